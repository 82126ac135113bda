"""Images named by a captions file: `captions.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlc.data.files import exists, is_folder, join, parent, read_bytes
from vlc.data.record import CaptionTypeError, Record
from vlc.data.sources.captions_file import CAPTION_FILES, read_rows
from vlc.data.sources.columns import Columns, boxes_of
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
    def open(cls, path: str | Path, columns: Columns | None = None) -> "Folder":
        """Reads the captions file of a folder, or the file itself.

        Rows that cannot be used are left out and counted in `skipped`.

        Raises:
            DataError: There is no captions file, none of its rows can be used, or a string stands where a list of
                captions is meant.
        """
        path = str(path)
        if is_folder(path):
            path = find_captions_file(path)
        columns = columns or Columns()
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
    captions: dict[str, tuple[str, ...]] = {}
    for caption in table.get("captions", index):
        captions[caption["source"]] = (*captions.get(caption["source"], ()), caption["text"])
    return captions


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
    rows: dict[str, dict[str, Any]] = {}
    skipped: dict[str, int] = {}
    first = ""
    for where, row in read_rows(path):
        try:
            if isinstance(row, DataError):
                raise row
            _add_row(rows, row, columns, where)
        except CaptionTypeError:
            raise
        except DataError as error:
            skipped[error.reason] = skipped.get(error.reason, 0) + 1
            first = first or str(error)
    values = (
        (
            image,
            [{"source": source, "text": text} for source, texts in row["captions"].items() for text in texts],
            row["boxes"],
            row["url"],
        )
        for image, row in rows.items()
    )
    write_table(out, values, _SCHEMA, lambda: {"skipped": skipped, "first": first})


def _add_row(rows: dict[str, dict[str, Any]], row: Mapping[str, Any], columns: Columns, where: str) -> None:
    image = columns.image_of(row, where)
    captions = columns.captions_of(row, where)
    boxes = boxes_of(row, where)
    url = row.get("url")
    known = rows.setdefault(
        image,
        {
            "captions": {},
            "boxes": None if boxes is None else boxes.ravel().tolist(),
            "url": url if isinstance(url, str) else None,
        },
    )
    for source, texts in captions.items():
        known["captions"][source] = known["captions"].get(source, ()) + texts
