"""WebDataset tar shards with random access, through an index of where each member lies."""

import contextlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pyarrow as pa

from vlc.data.files import find_shards, open_file, parent, read_range, reading, version_of
from vlc.data.record import Record, add_counts
from vlc.data.sources.columns import BY_NAME, Columns, boxes_of
from vlc.data.sources.parts import Parts
from vlc.data.table import Table, is_kept, kept_table, write_table
from vlc.data.workers import cores, die_with_parent
from vlc.errors import DataError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff")
_MANY = 16  # new shards that are worth the start of processes
_COLUMNS = ("image", "txt", "json")
_SCHEMA = pa.schema(
    {"key": pa.string(), **{f"{name}_{part}": pa.int64() for name in _COLUMNS for part in ("offset", "size")}}
)


@dataclass(frozen=True)
class WebDataset:
    """Samples of tar shards, as img2dataset writes them: an image with a `txt` or `json` of the same name.

    A `json` holds `caption`, `text` or `captions`, as a line of `Folder` does; without it the `txt` is the caption.
    Nothing is ever unpacked. The index of each shard is made once and kept beside it or in a cache.

    Attributes:
        shards: The tar files, in order.
        tables: Of each, key and place of the image, the `txt` and the `json` of every sample.
        columns: How a `json` is read.
    """

    shards: tuple[str, ...]
    tables: tuple[Table, ...]
    columns: Columns = BY_NAME
    _parts: Parts = field(init=False, repr=False, compare=False)

    @classmethod
    def open(cls, pattern: str | Path, columns: Columns = BY_NAME) -> "WebDataset":
        """Indexes a folder, one tar, or a glob of them. Reads headers only; many new shards on all cores.

        Raises:
            DataError: Nothing matches, or no shard holds an image with a caption.
        """
        shards = [path for path in find_shards(str(pattern), "*.tar") if path.endswith(".tar")]
        if not shards:
            raise DataError(f"{pattern}: no tar shard there. Give a folder with *.tar files, one, or a quoted glob.")
        _index_many([shard for shard in shards if not is_kept(*_place_of(shard))])
        tables = [_table_of(shard) for shard in shards]
        source = cls(tuple(shards), tuple(tables), columns)
        if not len(source):
            found = ", ".join(f"{count} {reason}" for reason, count in source.skipped.items()) or "they are empty"
            raise DataError(f"{pattern}: {len(shards)} shards, but no image with a txt or json beside it ({found}).")
        return source

    @property
    def skipped(self) -> dict[str, int]:
        """Samples left out when the shards were indexed, by reason."""
        return add_counts(*(table.notes["skipped"] for table in self.tables))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", Parts(len(table) for table in self.tables))

    def __len__(self) -> int:
        return len(self._parts)

    def names(self, index: int) -> tuple[str, str]:
        """Key and URL of a sample, without reading its image."""
        shard, row = self._parts.find(index)
        key = self.tables[shard].get("key", row)
        info = self._member(self.tables[shard], self.shards[shard], row, "json")
        return key, str(_info(None, info, f"{self.shards[shard]}:{key}").get("url") or "")

    def __getitem__(self, index: int) -> Record:
        shard, row = self._parts.find(index)
        table, path = self.tables[shard], self.shards[shard]
        key = table.get("key", row)
        image, txt, info = (self._member(table, path, row, name) for name in _COLUMNS)
        assert image is not None
        values = _info(txt, info, f"{path}:{key}")
        captions = self.columns.captions_of(values, f"{path}:{key}")
        url = values.get("url")
        return Record(key, image, captions, boxes_of(values, f"{path}:{key}"), {"url": url} if url else {})

    def _member(self, table: Table, path: str, row: int, name: str) -> bytes | None:
        offset = table.get(f"{name}_offset", row)
        return None if offset is None else read_range(path, offset, table.get(f"{name}_size", row))


def _info(txt: bytes | None, info: bytes | None, where: str) -> Mapping:
    """The json of a sample; where it has no caption of its own, with the txt as the caption."""
    try:
        row = json.loads(info) if info is not None else {}
        if not isinstance(row, dict):
            raise DataError(f"{where}: its json is not an object with a caption.", "row")
        if txt is not None and not {"captions", "caption", "text", "conversations"} & row.keys():
            row["caption"] = txt.decode("utf-8")
        return row
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its text is not UTF-8 (byte {error.start}).", "encoding") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: its json is not valid ({error}).", "row") from error


def _place_of(shard: str) -> tuple[str, list[str], str]:
    """Under which name, from which files and beside what a shard's table is kept."""
    return f"tar-{PurePosixPath(shard).stem}", [shard], parent(shard)


def _table_of(shard: str) -> Table:
    skipped: dict[str, int] = {}
    return kept_table(
        *_place_of(shard),
        lambda out: write_table(out, _index_shard(shard, skipped), _SCHEMA, lambda: {"skipped": skipped}),
    )


def _index_many(shards: Sequence[str]) -> None:
    """Indexes shards in processes of their own, started as commands, so that no caller needs a main guard."""
    if len(shards) < _MANY:
        return
    command = [sys.executable, "-c", "from vlc.data.sources import webdataset; webdataset.index_from_stdin()"]
    path = os.pathsep.join(filter(None, sys.path))
    children = []
    for first in range(cores()):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
        assert child.stdin is not None
        child.stdin.write("\n".join(shards[first :: cores()]))
        child.stdin.close()
        children.append(child)
    for child in children:
        child.wait()  # a shard that failed is tried again by the caller, which then says why


def index_from_stdin() -> None:
    """Indexes the shards named on standard input, a line each."""
    die_with_parent()
    for shard in sys.stdin.read().splitlines():
        with contextlib.suppress(DataError):
            _table_of(shard)


def _index_shard(shard: str, skipped: dict[str, int]) -> Iterator[Sequence]:
    """Yields the rows of a shard's table, and counts what is left out."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    size, _ = version_of(shard)

    def leave_out(reason: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    with reading(shard), open_file(shard) as file:
        cut = False
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    key, _, suffix = member.name.rpartition(".")
                    name = "image" if suffix.lower() in IMAGE_SUFFIXES else suffix.lower()
                    if name not in _COLUMNS or not key:
                        continue
                    if not member.isfile():
                        leave_out("not a file")
                    elif _is_unsafe(member.name):
                        leave_out("unsafe path")
                    elif member.offset_data + member.size > size:
                        cut = True
                        break
                    else:
                        groups.setdefault(key, {})[name] = (member.offset_data, member.size)
                cut = cut or not _ends_here(file, tar.offset)
        except (tarfile.TarError, EOFError):
            cut = True
        if cut:
            leave_out("shard cut short")
    for key, members in groups.items():
        if "image" not in members:
            leave_out("without image")
        elif members.keys() == {"image"}:
            leave_out("without caption")
        else:
            places = (members.get(name, (None, None)) for name in _COLUMNS)
            yield key, *(value for place in places for value in place)


def _is_unsafe(name: str) -> bool:
    """Whether a member's name would lead out of the folder that the shard were unpacked in."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name


def _ends_here(file, offset: int) -> bool:
    """Whether the tar's end mark, a block of zeros, stands at or just before the offset; a cut tar has none."""
    file.seek(max(offset - tarfile.BLOCKSIZE, 0))
    return bytes(tarfile.BLOCKSIZE) in file.read(3 * tarfile.BLOCKSIZE)
