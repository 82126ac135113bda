"""Images named by a captions file: JSONL, JSON, CSV, TSV, Parquet, and the files of ImageFolder and Flickr8k."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from vlc.data.files import IMAGE_FOLDERS, exists, is_folder, is_remote, join, parent, read_bytes
from vlc.data.record import CaptionTypeError, Record, Source, flatten_captions, group_captions
from vlc.data.sources.captions_file import CAPTION_FILES, SUFFIXES, read_rows
from vlc.data.sources.columns import BY_NAME, Columns, boxes_of
from vlc.data.sources.kind import Location, SourceKind
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
class Folder(Source):
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
            path = _captions_file(path)
        if PurePath(path).stem == "metadata":  # ImageFolder has any column of text
            columns = replace(columns, any_text=True)
        root = columns.names.get("root") or parent(path)
        table = kept_table("captions", [path], parent(path), lambda out: _index(path, columns, out), columns.settings())
        if not len(table):
            skipped = table.notes["skipped"]
            first = table.notes["first"]
            raise DataError(
                f"{path}: the file holds no image that can be used."
                + (f" {sum(skipped.values())} rows were left out; the first says: {first}" if first else "")
            )
        return cls(_image_root(root, table.get("image", 0)), table)

    @property
    def skipped(self) -> dict[str, int]:
        """Rows left out, by reason."""
        return self.table.notes["skipped"]

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the first of them."""
        return tuple(filter(None, (self.table.notes["first"],)))

    def captions(self, index: int) -> dict[str, tuple[str, ...]]:
        """Captions by source, without reading the image."""
        return table_captions(self.table, index)

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
            table_captions(self.table, index),
            boxes_of({"boxes": boxes}, image),
            {"url": url} if url else {},
        )


def _image_root(root: str, image: str) -> str:
    """The folder that image paths are relative to: that of the file, or one of the usual names in it."""
    if is_remote(image) or exists(join(root, image)):
        return root
    return next((join(root, name) for name in IMAGE_FOLDERS if exists(join(join(root, name), image))), root)


def _captions_file(folder: str) -> str:
    """The captions file of a folder, or of its folder `train` (ImageFolder).

    Raises:
        DataError: There is none.
    """
    found = Location(folder)
    for place in (found, found.below("train")):
        name = next((name for name in CAPTION_FILES if name in place.names), None)
        if name:
            return join(place.path, name)
    raise DataError(f"{folder}: none of {', '.join(CAPTION_FILES)} is in this folder.")


def table_captions(table: Table, index: int) -> dict[str, tuple[str, ...]]:
    """Captions by source from a table's list of source and text."""
    return group_captions((caption["source"], caption["text"]) for caption in table.get("captions", index))


def as_structs(captions: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Captions as a table keeps them."""
    return [{"source": source, "text": text} for source, text in flatten_captions(captions)]


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
    for where, row in read_rows(path, columns):
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


def _is_captions_file(place: Location) -> bool:
    if place.is_folder:
        return any(name in place.names or name in place.below("train").names for name in CAPTION_FILES)
    return place.path.lower().endswith((*SUFFIXES, ".token")) and place.is_file


KIND = SourceKind(
    "a captions file, or a folder with one",
    _is_captions_file,
    lambda place, columns, _: Folder.open(place.path, columns),
)
