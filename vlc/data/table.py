"""Tables on disk with random access: what an index, a captions file and a survey are kept in.

A table is an Arrow file that is mapped into memory, so that it costs a worker nothing to hold it, and pickles as its
path. It is made once for a set of input files and found again by their names, sizes and times.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlc.data.files import is_remote, version_of

_VERSION = 2  # of everything kept in a cache; with another number all is made again
_CHUNK = 20_000


class Table:
    """An Arrow table in one chunk, from a file or in memory.

    Attributes:
        notes: What was written down beside the columns, e.g. how many rows were left out and why.
    """

    def __init__(self, source: str | Path | pa.Table):
        if isinstance(source, pa.Table):
            self._path = None
            table: pa.Table = source.combine_chunks()  # pyright: ignore[reportAttributeAccessIssue]
        else:
            self._path = str(source)
            with pa.memory_map(self._path) as file:  # the mapping outlives the file, which thousands of shards need
                table = pa.ipc.open_file(file).read_all()
        self._columns = {name: _one_chunk(table.column(name)) for name in table.column_names}
        self._rows = table.num_rows
        self.notes: dict[str, Any] = json.loads((table.schema.metadata or {}).get(b"notes", b"{}"))
        self._table = table

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> pa.Array:
        """A whole column."""
        return self._columns[name]

    def get(self, name: str, row: int) -> Any:
        """One value as Python has it."""
        return self._columns[name][row].as_py()

    def __reduce__(self):
        return Table, (self._path or self._table,)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def write_table(path: str | Path, rows: Iterable[Sequence[Any]], schema: pa.Schema, notes: Callable[[], dict]) -> None:
    """Writes rows as they come; a reader never sees half a table.

    Args:
        path: The file to write.
        rows: Values in the order of the schema.
        schema: Names and types.
        notes: Called after the last row.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=Path(path).parent, prefix=".partial-")
    os.close(handle)
    try:
        chunks = [_to_batch(part, schema) for part in _parts(rows)]
        table = pa.Table.from_batches(chunks, schema).combine_chunks()  # one chunk: a row is found without a search
        table = table.replace_schema_metadata({"notes": json.dumps(notes())})
        with pa.OSFile(partial, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _parts(rows: Iterable[Sequence[Any]]) -> Iterable[list[Sequence[Any]]]:
    part: list[Sequence[Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == _CHUNK:
            yield part
            part = []
    if part:
        yield part


def _to_batch(rows: list[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def cache_folder() -> Path:
    """Where indices go that cannot lie beside their data: `$VLC_CACHE`, else `~/.cache/vlc`."""
    return Path(os.environ.get("VLC_CACHE") or Path.home() / ".cache" / "vlc")


def kept_table(
    kind: str, files: Sequence[str], beside: str, make: Callable[[Path], None], settings: Any = None
) -> Table:
    """The table of a set of files: found again, or made and kept.

    It is kept in `.vlc` beside the files; where that cannot be written, in the cache folder; failing both, in memory.

    Args:
        kind: What it is, for its name.
        files: What it is made from; with another size or time of one of them it is made again.
        beside: The folder of the files.
        make: Writes the table to a path.
        settings: What else it depends on; plain values.
    """
    name, places = _name_and_places(kind, files, beside, settings)
    found = _find(name, places)
    if found is not None:
        return found
    for place in places:
        try:
            make(place / name)
            return Table(place / name)
        except OSError:
            continue  # not ours to write in, or full
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch) / name)
        return Table(pa.ipc.open_file((Path(scratch) / name).read_bytes()).read_all())


def is_kept(kind: str, files: Sequence[str], beside: str, settings: Any = None) -> bool:
    """Whether `kept_table` would find the table."""
    name, places = _name_and_places(kind, files, beside, settings)
    return any((place / name).is_file() for place in places)


def _name_and_places(kind: str, files: Sequence[str], beside: str, settings: Any) -> tuple[str, list[Path]]:
    versions = [(str(name), *version_of(name)) for name in files]
    text = json.dumps([_VERSION, kind, versions, settings], default=str)
    places = [cache_folder() / "index"]
    if not is_remote(beside):
        places.insert(0, Path(beside).resolve() / ".vlc")
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.arrow", places


def _find(name: str, places: Sequence[Path]) -> Table | None:
    for place in places:
        if (place / name).is_file():
            try:
                return Table(place / name)
            except (pa.ArrowInvalid, OSError, ValueError):
                continue  # damaged: it is made again
    return None
