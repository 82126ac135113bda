"""Images named by a captions file: `captions.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlc.data.files import exists, is_folder, join, parent, read_bytes
from vlc.data.record import CaptionTypeError, Record, flatten_captions, group_captions
from vlc.data.sources.captions_file import CAPTION_FILES, read_rows
from vlc.data.sources.columns import BY_NAME, Columns, boxes_of
from vlc.data.table import Table, kept_table, write_table
from vlc.errors import DataError

_SCHEMA = pa.schema(
    {
        "image": pa.string(),
        "captions": pa.list_(pa.struct({"source": pa.string(), "text": pa.string()})),
        "boxes": pa.list_(pa.float32()),
        "url": pa.string(),
    }
)


@dataclass(frozen=True)
class Folder:
    """Images by path or URL, with the captions that a file gives them.

    A JSONL line is `{"image": "a.jpg", "caption": "..."}` or `{"image": "a.jpg", "captions": ["...", "..."]}` or, by
    source, `{"image": "a.jpg", "captions": {"alt": ["..."], "long": ["..."]}}`; `boxes` are optional. The columns of
    a CSV, TSV or Parquet file are known by their names (`vlc.data.sources.columns`), those of DreamLIP's and
    ShareGPT4V's releases among them. An image may stand in several rows.

    Attributes:
        root: The folder that image paths are relative to.
        table: Image, captions and boxes of every image.
    """

    root: str
    table: Table

    @classmethod
    def open(cls, path: str | Path, columns: Columns = BY_NAME) -> "Folder":
        """Reads the captions file of a folder, or the file itself.

        Rows that cannot be used are left out and counted in `skipped`.

        Raises:
            DataError: There is no captions file, none of its rows can be used, or a string stands where a list of
                captions is meant.
        """
        path = str(path)
        if is_folder(path):
            path = find_captions_file(path)
        root = columns.names.get("root") or parent(path)
        table = kept_table(
            "captions", [path], parent(path), lambda out: _index(path, columns, out), dict(columns.names)
        )
        if not len(table):
            skipped = table.notes["skipped"]
            first = table.notes["first"]
            raise DataError(
                f"{path}: the file holds no image that can be used."
                + (f" {sum(skipped.values())} rows were left out; the first says: {first}" if first else "")
            )
        return cls(root, table)

    @property
    def skipped(self) -> dict[str, int]:
        """Rows left out, by reason."""
        return self.table.notes["skipped"]

    def __len__(self) -> int:
        return len(self.table)

    def names(self, index: int) -> tuple[str, str]:
        """Key and URL of an image, without reading it."""
        return self.table.get("image", index), self.table.get("url", index) or ""

    def __getitem__(self, index: int) -> Record:
        image = self.table.get("image", index)
        boxes = self.table.get("boxes", index)
        url = self.table.get("url", index)
        return Record(
            image,
            read_bytes(join(self.root, image)),
            captions_at(self.table, index),
            boxes_of({"boxes": boxes}, image),
            {"url": url} if url else {},
        )


def captions_at(table: Table, index: int) -> dict[str, tuple[str, ...]]:
    """Captions by source from a table's list of source and text."""
    return group_captions((caption["source"], caption["text"]) for caption in table.get("captions", index))


def as_structs(captions: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Captions as a table keeps them."""
    return [{"source": source, "text": text} for source, text in flatten_captions(captions)]


def find_captions_file(folder: str) -> str:
    """The captions file of a folder.

    Raises:
        DataError: There is none.
    """
    for name in CAPTION_FILES:
        if exists(join(folder, name)):
            return join(folder, name)
    raise DataError(
        f"{folder}: no {CAPTION_FILES[0]} or {CAPTION_FILES[1]} (or .tsv, .parquet, .json) in this folder, no shards "
        'and no prepared dataset. Write one line for each image: {"image": "a.jpg", "captions": ["what it shows"]}'
    )


def _index(path: str, columns: Columns, out: Path) -> None:
    """Writes the table of a captions file."""
    listed = list_images(path, columns)
    values = ((image, as_structs(row.captions), row.boxes, row.url) for image, row in listed.images.items())
    write_table(out, values, _SCHEMA, lambda: {"skipped": listed.skipped, "first": listed.first})


@dataclass
class Row:
    """What all rows of one image say of it."""

    boxes: list[float] | None
    url: str | None
    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Listed:
    """What a captions file lists.

    Attributes:
        images: By path or URL.
        skipped: Rows that cannot be used, by reason.
        first: What was said of the first of these.
    """

    images: dict[str, Row] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    first: str = ""


def list_images(path: str, columns: Columns) -> Listed:
    """Reads a captions file; rows of one image are put together.

    Raises:
        DataError: The file cannot be opened, or a string stands where a list of captions is meant.
    """
    listed = Listed()
    for where, row in read_rows(path):
        try:
            if isinstance(row, DataError):
                raise row
            _add_row(listed.images, row, columns, where)
        except CaptionTypeError:
            raise
        except DataError as error:
            listed.skipped[error.reason] = listed.skipped.get(error.reason, 0) + 1
            listed.first = listed.first or str(error)
    return listed


def _add_row(images: dict[str, Row], row: Mapping[str, Any], columns: Columns, where: str) -> None:
    image, captions, boxes = columns.image_of(row, where), columns.captions_of(row, where), boxes_of(row, where)
    url = row.get("url")
    known = images.setdefault(
        image, Row(None if boxes is None else boxes.ravel().tolist(), url if isinstance(url, str) else None)
    )
    for source, texts in captions.items():
        known.captions[source] = known.captions.get(source, ()) + texts
