"""More captions for the same images, from a file of their own, joined by path or URL."""

import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from vlc.data.record import Record, Source, Wrapper
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.folder import captions_table, digest_of
from vlc.data.sources.listed import CAPTIONS, table_captions
from vlc.data.table import Table, write_table
from vlc.errors import DataError
from vlc.storage import is_far, version_of

_SCHEMA = pa.schema({"captions": CAPTIONS})


@dataclass(frozen=True)
class Joined(Wrapper):
    """A source whose records have the captions of a file beside their own; where both have a source, the file's count.

    Attributes:
        source: The images.
        table: What the file adds to each record.
    """

    source: Source
    table: Table

    def __getitem__(self, index: int) -> Record:
        record = self.source[index]
        added = table_captions(self.table, index)
        scores = {source: scores for source, scores in record.scores.items() if source not in added}
        return replace(record, captions={**record.captions, **added}, scores=scores) if added else record

    def names(self, index: int) -> tuple[str, str]:
        return self.source.names(index)

    def captions(self, index: int) -> Mapping[str, tuple[str, ...]]:
        return {**self.source.captions(index), **table_captions(self.table, index)}


def join_captions(source: Source, file: str, folder: Path, *, columns: Columns = BY_NAME) -> Joined:
    """Joins the captions of a file (DreamLIP's CSV, ShareGPT4V's JSON, what `Columns` knows) to a source.

    A row belongs to the image whose URL or key its image column holds. A row with a path also belongs to the image with
    that file name, with or without its suffix, unless two rows have it.

    Args:
        source: The images.
        file: JSONL, JSON, CSV, TSV or Parquet.
        folder: Where the join is kept; found there again by a later call.
        columns: How the file's columns are read.

    Raises:
        DataError: The file cannot be read, or matches no image.
    """
    size, version = version_of(file)
    path = folder / f"join-{PurePosixPath(file).stem}-{size}-{version[-12:]}-{len(source)}.arrow"
    if not path.exists():
        listed = captions_table(file, columns)
        notes: dict[str, Any] = {"file": file, "rows": len(listed), "rows left out": listed.notes["skipped"]}
        notes |= {"first row": listed.get("image", 0) if len(listed) else "", "first key": ""}
        write_table(path, _match(source, listed, notes), _SCHEMA, lambda: notes)
    joined = Joined(source, Table(path))
    notes = joined.table.notes
    if not notes["images with captions"]:
        raise DataError(
            f"{file}: none of its {notes['rows']} rows belongs to an image of the source. Its first image is "
            f"{notes['first row']!r}; the source's first is {notes['first key']!r}."
        )
    return joined


def _match(source: Source, listed: Table, notes: dict[str, Any]) -> Iterable[tuple]:
    """What each record gets; counts on both sides go into the notes."""
    by_name = _ByName(listed)
    used = np.zeros(len(listed), bool)
    matched = 0
    for index in range(len(source)):
        key, url = _key_and_url(source, index)
        if not index:
            notes["first key"] = key
        rows = (by_name.row(name) for name in (url, *_names(key)) if name)
        row = next((row for row in rows if row is not None), None)
        if row is None:
            yield ([],)
            continue
        used[row] = True
        matched += 1
        yield (listed.get("captions", row),)
    notes.update({"images with captions": matched, "images without": len(source) - matched})
    notes["rows without image"] = int((~used).sum())


class _ByName:
    """Finds the row of an image by any of its names; a name that two images share stands for neither.

    In memory are digests of the names, 16 bytes each.
    """

    def __init__(self, listed: Table):
        self._listed = listed
        digests, rows = array.array("Q"), array.array("q")
        for row, image in enumerate(_images(listed)):
            for name in set(_names(image)):
                digests.append(digest_of(name))
                rows.append(row)
        order = np.argsort(np.frombuffer(digests, np.uint64), kind="stable")
        self._digests, self._rows = np.frombuffer(digests, np.uint64)[order], np.frombuffer(rows, np.int64)[order]

    def row(self, name: str) -> int | None:
        digest = np.uint64(digest_of(name))
        first, last = np.searchsorted(self._digests, digest, "left"), np.searchsorted(self._digests, digest, "right")
        if last - first != 1:
            return None
        row = int(self._rows[first])
        return row if name in _names(self._listed.get("image", row)) else None


def _images(listed: Table) -> Iterable[str]:
    return (image for chunk in listed.column("image").chunks for image in chunk.to_pylist())


def _names(image: str) -> tuple[str, ...]:
    """A path, its file name, and that without suffix. A URL has no other name: on the web many are called alike."""
    path = PurePosixPath(image)
    return (image,) if is_far(image) else (image, path.name, path.stem)


def _key_and_url(source: Source, index: int) -> tuple[str, str]:
    try:
        return source.names(index)
    except DataError:
        return "", ""  # it is counted when it is read
