"""More captions for the same images, from a file of their own, joined by path or URL."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from vlc.data.files import version_of
from vlc.data.record import CaptionTypeError, Record, Source, skipped_of
from vlc.data.sources.captions_file import read_rows
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.folder import captions_at
from vlc.data.table import Table, write_table
from vlc.errors import DataError

_SCHEMA = pa.schema({"captions": pa.list_(pa.struct({"source": pa.string(), "text": pa.string()}))})


@dataclass(frozen=True)
class Joined:
    """A source whose records have the captions of a file beside their own; where both have a source, the file's count.

    Attributes:
        source: The images.
        table: What the file adds to each record.
    """

    source: Source
    table: Table

    @property
    def skipped(self) -> dict[str, int]:
        """Records left out of the source's index, by reason."""
        return skipped_of(self.source)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        record = self.source[index]
        added = captions_at(self.table, index)
        return replace(record, captions={**record.captions, **added}) if added else record


def join_captions(source: Source, file: str, folder: Path, *, columns: Columns = BY_NAME) -> Joined:
    """Joins the captions of a file (DreamLIP's CSV, ShareGPT4V's JSON, what `Columns` knows) to a source.

    A row belongs to the image whose URL or key its image column holds; failing that, to the one with the same file
    name, with or without its suffix.

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
        rows, skipped = _read(file, columns)
        notes: dict[str, Any] = {"file": file, "rows": len(rows), "rows left out": skipped}
        write_table(path, _match(source, rows, notes), _SCHEMA, lambda: notes)
    joined = Joined(source, Table(path))
    notes = joined.table.notes
    if not notes["images with captions"]:
        raise DataError(
            f"{file}: none of its {notes['rows']} rows belongs to an image of the source. Its first image is "
            f"{notes['first row']!r}; the source's first is {notes['first key']!r}."
        )
    return joined


def _read(file: str, columns: Columns) -> tuple[dict[str, dict[str, tuple[str, ...]]], dict[str, int]]:
    """Captions by image path or URL."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    skipped: dict[str, int] = {}
    for where, row in read_rows(file):
        try:
            if isinstance(row, DataError):
                raise row
            known = found.setdefault(columns.image_of(row, where), {})
            for name, texts in columns.captions_of(row, where).items():
                known[name] = known.get(name, ()) + texts
        except CaptionTypeError:
            raise
        except DataError as error:
            skipped[error.reason] = skipped.get(error.reason, 0) + 1
    return found, skipped


def _match(source: Source, rows: dict[str, dict[str, tuple[str, ...]]], notes: dict[str, Any]) -> Iterable[tuple]:
    """What each record gets; counts on both sides go into the notes."""
    by_name: dict[str, str] = {}
    for image in rows:
        for name in _names(image):
            by_name.setdefault(name, image)
    used: set[str] = set()
    matched = 0
    notes.update({"first row": next(iter(rows), ""), "first key": ""})
    for index in range(len(source)):
        key, url = _key_and_url(source, index)
        notes["first key"] = notes["first key"] or key
        image = next((by_name[name] for name in (url, *_names(key)) if name in by_name), None)
        captions = rows.get(image, {}) if image is not None else {}
        if image is not None:
            used.add(image)
            matched += 1
        yield ([{"source": name, "text": text} for name, texts in captions.items() for text in texts],)
    notes.update({"images with captions": matched, "images without": len(source) - matched})
    notes["rows without image"] = len(rows) - len(used)


def _names(image: str) -> tuple[str, str, str]:
    path = PurePosixPath(image)
    return image, path.name, path.stem


def _key_and_url(source: Source, index: int) -> tuple[str, str]:
    try:
        if hasattr(source, "names"):
            return source.names(index)  # pyright: ignore[reportAttributeAccessIssue]
        record = source[index]
        return record.key, str(record.extra.get("url") or "")
    except DataError:
        return "", ""  # it is counted when it is read
