"""WebDataset tar shards with random access, through an index of where each member lies."""

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from vlc.data.parts import Parts
from vlc.data.record import Record, Source, add_counts
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.kind import Location, SourceKind
from vlc.data.sources.tar_index import MEMBERS, index_shard, refuse_compressed
from vlc.data.table import TEXT, Table, is_kept, kept_table, write_table
from vlc.data.workers import cores, die_with_parent
from vlc.errors import DataError
from vlc.storage import find_shards, is_far, is_glob, keep_near, nearest, parent, read_ahead, read_range

log = logging.getLogger("vlc")
_COMPRESSED_NAME = re.compile(r"\.(tar\.(gz|bz2|xz|zst)|tgz)$")
_GAP = 1 << 16  # bytes that are read between members rather than asked for them apart
_WORDS = ("txt", "json")
_ASKED = 32  # shards in a bucket at once
_MANY = 16  # new shards that are worth the start of processes
_SCHEMA = pa.schema({"key": TEXT, **{f"{name}_{part}": pa.int64() for name in MEMBERS for part in ("offset", "size")}})

Place = tuple[int, int]  # where a member begins and ends in its shard


@dataclass(frozen=True)
class WebDataset(Source):
    """Samples of tar shards, as img2dataset writes them: an image with a `txt` or `json` of the same name.

    A `json` holds `caption`, `text` or `captions`, as a line of `Folder` does; without it the `txt` is the caption.
    Nothing is ever unpacked. The index of each shard is made once and kept beside it or in a cache.

    Attributes:
        shards: The tar files, in order.
        tables: Of each, key and place of the image, the `txt` and the `json` of every sample.
        columns: How a `json` is read.
        copies: Where the copy of each shard will be (`vlc.storage.keep_near`), or the shard itself.
    """

    shards: tuple[str, ...]
    tables: tuple[Table, ...]
    columns: Columns = BY_NAME
    copies: tuple[str, ...] = ()
    _parts: Parts = field(init=False, repr=False, compare=False)

    @classmethod
    def open(cls, pattern: str | Path, columns: Columns = BY_NAME) -> "WebDataset":
        """Indexes a folder, one tar, or a glob of them. Reads headers only; many new shards on all cores.

        Raises:
            DataError: Nothing matches, or no shard holds an image with a caption.
        """
        shards = [path for path in find_shards(str(pattern), "*.tar") if path.endswith(".tar")]
        if not shards:
            for other in (*find_shards(str(pattern), "*.tar.*"), *find_shards(str(pattern), "*.tgz")):
                refuse_compressed(other)
            raise DataError(f"{pattern}: no tar shard there. Give a folder with *.tar files, one, or a quoted glob.")
        with ThreadPoolExecutor(_ASKED if is_far(shards[0]) else 1) as pool:
            kept = list(pool.map(lambda shard: is_kept(*_kept_at(shard)), shards))
            _index_many([shard for shard, known in zip(shards, kept, strict=True) if not known])
            tables = list(pool.map(_table_of, shards))
        source = cls(tuple(shards), tuple(tables), columns, keep_near(shards))
        if source.paired_by_first_dot:
            log.warning("%s: samples are paired by what stands before the first dot of a name.", pattern)
        if not len(source):
            found = ", ".join(f"{count} {reason}" for reason, count in source.skipped.items()) or "they are empty"
            raise DataError(f"{pattern}: {len(shards)} shards, but no image with a txt or json beside it ({found}).")
        return source

    @property
    def skipped(self) -> dict[str, int]:
        """Samples left out when the shards were indexed, by reason."""
        return add_counts(*(table.notes["skipped"] for table in self.tables))

    @property
    def paired_by_first_dot(self) -> bool:
        """Whether any shard's samples are paired by what stands before the first dot of a name."""
        return any(table.notes["pairing"] == "first dot" for table in self.tables)

    def captions(self, index: int) -> dict[str, tuple[str, ...]]:
        """Captions by source, without reading the image."""
        _, where, (txt, info) = self._read(index, *_WORDS)
        return self.columns.captions_of(_info(txt, info, where), where)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", Parts(len(table) for table in self.tables))

    def __len__(self) -> int:
        return len(self._parts)

    def names(self, index: int) -> tuple[str, str]:
        """Key and URL of a sample, without reading its image."""
        key, where, (info,) = self._read(index, "json")
        return key, str(_info(None, info, where).get("url") or "")

    def __getitem__(self, index: int) -> Record:
        key, where, (image, txt, info) = self._read(index, *MEMBERS)
        assert image is not None
        values = _info(txt, info, where)
        captions = self.columns.captions_of(values, where)
        url, wrong = values.get("url"), self.columns.negatives_of(values, captions, where)
        extra = {"url": url} if url else {}
        return Record(key, image, captions, *self.columns.parts_of(values, where), extra, negatives=wrong)

    @property
    def prefetches(self) -> bool:
        last = nearest(self.shards[-1], self.copies[-1]) if self.copies else self.shards[-1]
        return is_far(last)  # which is the last to be copied

    def prefetch(self, indices: Sequence[int], *, images: bool = True) -> None:
        found = [self._find(index, MEMBERS if images else _WORDS) for index in indices]
        read_ahead([(path, start, end - start) for _, _, path, places in found for start, end in _spans(places)])

    def _read(self, index: int, *names: str) -> tuple[str, str, list[bytes | None]]:
        """Key of a sample, where it stands for messages, and its members of these kinds; None where it has none."""
        key, shard, path, places = self._find(index, names)
        try:
            blocks = _blocks(path, places)
        except DataError:
            if path == shard:
                raise
            blocks = _blocks(shard, places)  # the copy has just left the cache
        return key, f"{shard}:{key}", [_cut(blocks, place) for place in places]

    def _find(self, index: int, names: Sequence[str]) -> tuple[str, str, str, list[Place | None]]:
        """Key and shard of a sample, the copy of that where there is one, and where its members of these kinds lie."""
        number, row = self._parts.find(index)
        table, shard = self.tables[number], self.shards[number]
        path = nearest(shard, self.copies[number]) if self.copies else shard
        return table.get("key", row), shard, path, [_place(table, name, row) for name in names]


def _place(table: Table, name: str, row: int) -> Place | None:
    offset = table.get(f"{name}_offset", row)
    return None if offset is None else (offset, offset + table.get(f"{name}_size", row))


def _spans(places: Sequence[Place | None]) -> list[Place]:
    """What to read for some members: those that lie side by side, as they mostly do, at once."""
    there = [place for place in places if place is not None]
    if not there:
        return []
    whole = min(start for start, _ in there), max(end for _, end in there)
    return [whole] if whole[1] - whole[0] <= sum(end - start for start, end in there) + _GAP else there


def _blocks(path: str, places: Sequence[Place | None]) -> list[tuple[int, bytes]]:
    """What `_spans` says, with where each begins."""
    return [(start, read_range(path, start, end - start)) for start, end in _spans(places)]


def _cut(blocks: Sequence[tuple[int, bytes]], place: Place | None) -> bytes | None:
    """A member out of the blocks that were read."""
    if place is None:
        return None
    start, data = next((start, data) for start, data in blocks if start <= place[0] and place[1] <= start + len(data))
    return data[place[0] - start : place[1] - start]


def _info(txt: bytes | None, info: bytes | None, where: str) -> Mapping:
    """The json of a sample; where it has no caption of its own, with the txt as the caption."""
    try:
        row = json.loads(info) if info is not None else {}
        if not isinstance(row, dict):
            raise DataError(f"{where}: its json is not an object with a caption.", "row")
        if txt is not None and not {"captions", "caption", "text", "conversations", "vertices"} & row.keys():
            row["caption"] = txt.decode("utf-8")
        return row
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its text is not UTF-8 (byte {error.start}).", "encoding") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{where}: its json is not valid ({error}).", "row") from error


def _kept_at(shard: str) -> tuple[str, list[str], str]:
    """Under which name, from which files and beside what a shard's table is kept."""
    return f"tar-{PurePosixPath(shard).stem}", [shard], parent(shard)


def _table_of(shard: str) -> Table:
    notes: dict[str, Any] = {"skipped": {}, "pairing": "last dot"}
    return kept_table(*_kept_at(shard), lambda out: write_table(out, index_shard(shard, notes), _SCHEMA, lambda: notes))


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


def _matches(place: Location) -> bool:
    if place.is_folder:
        return any(name.endswith(".tar") or _COMPRESSED_NAME.search(name) for name in place.names)
    return place.path.endswith(".tar") or is_glob(place.path) or bool(_COMPRESSED_NAME.search(place.path))


KIND = SourceKind("WebDataset shards", _matches, lambda place, columns, _: WebDataset.open(place.path, columns))
