"""Tables on disk with random access: what an index, a captions file and a survey are kept in.

A table is an Arrow file that is mapped into memory, so that it costs a worker nothing to hold it, and pickles as its
path. It is written and read in batches, so that neither takes more memory than one of them, however long it is; and a
process maps only so many at a time, since systems allow some 65,000 maps. It is made once for a set of input files and
found again by their names, sizes and times.
"""

import contextlib
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlc.data.parts import Parts
from vlc.errors import DataError
from vlc.storage import Place, cache_folder, place, version_of, write_whole

_VERSION = 6  # of everything kept in a cache; with another number all is made again
_BATCH = 1024  # rows
_MAPPED = 4096  # tables of one process

# Offsets of 64 bits: the captions of a batch, or of a column, may be longer than 2 GiB.
TEXT = pa.large_string()


def list_of(values: pa.DataType) -> pa.DataType:
    """The type of a column of lists."""
    return pa.large_list(values)


class Table:
    """An Arrow table, from a file or in memory.

    Attributes:
        notes: What was written down beside the columns, e.g. how many rows were left out and why.
    """

    __slots__ = ("_memory", "_path", "_rows", "_version", "notes")

    def __init__(self, source: str | Path | bytes):
        self._memory = _Batches(pa.ipc.open_file(source)) if isinstance(source, bytes) else None
        self._path: Any = source if isinstance(source, bytes) else str(source)
        self._version = 0 if isinstance(source, bytes) else os.stat(source).st_mtime_ns
        self._rows, self.notes = self._batches.rows, self._batches.notes

    @property
    def _batches(self) -> "_Batches":
        return self._memory if self._memory is not None else _mapped(self._path, self._version)

    def __len__(self) -> int:
        return self._rows

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, in chunks."""
        batches = self._batches
        return pa.chunked_array([batch.column(name) for batch in batches.batches], batches.schema.field(name).type)

    def get(self, name: str, row: int) -> Any:
        """One value as Python has it."""
        batch, place = self._batches.find(row)
        return batch.column(name)[place].as_py()

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """All rows, a batch in memory at a time."""
        for batch in self._batches.batches:
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)

    def __reduce__(self):
        return Table, (self._path,)


class _Batches:
    """The batches of an opened file; the last, which is empty, carries the notes."""

    def __init__(self, reader: Any):
        self.schema: pa.Schema = reader.schema
        found = [reader.get_batch_with_custom_metadata(i) for i in range(reader.num_record_batches)]
        notes = (found[-1].custom_metadata or {}).get(b"notes") if found else None
        notes = notes or (self.schema.metadata or {}).get(b"notes", b"{}")  # in the head of older files
        self.notes: dict[str, Any] = json.loads(notes)
        self.batches: list[pa.RecordBatch] = [one.batch for one in found if one.batch.num_rows]
        self._places = Parts(batch.num_rows for batch in self.batches)
        self.rows = len(self._places)

    def find(self, row: int) -> tuple[pa.RecordBatch, int]:
        """The batch that a row is in, and its place there."""
        number, place = self._places.find(row)
        return self.batches[number], place


@lru_cache(maxsize=_MAPPED)
def _mapped(path: str, version: int) -> _Batches:
    del version  # a file that replaced another is opened again
    with pa.memory_map(path) as file:  # the mapping outlives the file
        return _Batches(pa.ipc.open_file(file))


def write_table(path: str | Path, rows: Iterable[Sequence[Any]], schema: pa.Schema, notes: Callable[[], dict]) -> None:
    """Writes rows as they come, a batch in memory at a time; a reader never sees half a table.

    Args:
        path: The file to write.
        rows: Values in the order of the schema, whose texts and lists are of `TEXT` and `list_of`.
        schema: Names and types.
        notes: Called after the last row.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=Path(path).parent, prefix=".partial-")
    os.close(handle)
    try:
        with pa.OSFile(partial, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for part in itertools.batched(rows, _BATCH):
                writer.write_batch(_to_batch(part, schema))
            empty = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
            writer.write_batch(empty, custom_metadata={"notes": json.dumps(notes())})
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def _to_batch(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def kept_table(
    kind: str, files: Sequence[str], beside: str, make: Callable[[Path], None], settings: Any = None
) -> Table:
    """The table of a set of files: found again, or made and kept.

    It is kept in `.vlc` beside the files; where that cannot be written, in the cache folder; failing both, in memory.
    Of files in a bucket it is kept in the cache, and beside them for other hosts.

    Args:
        kind: What it is, for its name.
        files: What it is made from; with another size or time of one of them it is made again.
        beside: The folder of the files.
        make: Writes the table to a path.
        settings: What else it depends on; plain values.
    """
    name, places = _name_and_places(kind, files, beside, settings)
    shared = _shared(name, beside)
    found = _find(name, places) or _fetched(shared, places[0] / name)
    if found is not None:
        return found
    for kept in places:
        try:
            make(kept / name)
            _share(kept / name, shared)
            return Table(kept / name)
        except OSError:
            continue  # not ours to write in, or full
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch) / name)
        return Table((Path(scratch) / name).read_bytes())


def is_kept(kind: str, files: Sequence[str], beside: str, settings: Any = None) -> bool:
    """Whether `kept_table` would find the table."""
    name, places = _name_and_places(kind, files, beside, settings)
    return any((place / name).is_file() for place in places) or _is_there(_shared(name, beside))


def _name_and_places(kind: str, files: Sequence[str], beside: str, settings: Any) -> tuple[str, list[Path]]:
    versions = [(str(name), *version_of(name)) for name in files]
    text = json.dumps([_VERSION, kind, versions, settings], default=str)
    places, folder = [cache_folder() / "index"], place(beside)
    if isinstance(folder, Path):
        places.insert(0, folder.resolve() / ".vlc")
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.arrow", places


def _shared(name: str, beside: str) -> Place | None:
    """Where other hosts find the table of files in a bucket."""
    folder = place(beside)
    return None if isinstance(folder, Path) else folder / ".vlc" / name


def _is_there(shared: Place | None) -> bool:
    try:
        return shared is not None and shared.exists()
    except DataError:  # a bucket that may be read, but not looked into
        return False


def _fetched(shared: Place | None, to: Path) -> Table | None:
    """What another host has made."""
    if shared is None or not _is_there(shared):
        return None
    try:
        write_whole(to, shared.read_bytes())
        return Table(to)
    except (pa.ArrowInvalid, OSError, ValueError):
        return None  # damaged, or there is no room for it: it is made here


def _share(made: Path, shared: Place | None) -> None:
    if shared is not None:
        with contextlib.suppress(OSError):  # where one may not write others make their own
            shared.write_bytes(made.read_bytes())


def _find(name: str, places: Sequence[Path]) -> Table | None:
    for kept in places:
        if (kept / name).is_file():
            try:
                return Table(kept / name)
            except (pa.ArrowInvalid, OSError, ValueError):
                continue  # damaged: it is made again
    return None
