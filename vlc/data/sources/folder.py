"""Images named by a captions file: JSONL, JSON, CSV, TSV, Parquet, and the files of ImageFolder and Flickr8k."""

import array
import functools
import hashlib
import itertools
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from vlc.data.record import CaptionTypeError, Record, Source, flatten_captions, group_captions, mend_text
from vlc.data.sources.captions_file import CAPTION_FILES, SUFFIXES, read_rows
from vlc.data.sources.columns import BY_NAME, Columns, boxes_of
from vlc.data.sources.kind import Location, SourceKind
from vlc.data.table import TEXT, Table, kept_table, list_of, write_table
from vlc.errors import DataError
from vlc.storage import IMAGE_FOLDERS, exists, is_far, is_folder, join, parent, read_bytes

CAPTIONS = list_of(pa.struct({"source": TEXT, "text": TEXT}))
_SCHEMA = pa.schema(
    {
        "image": TEXT,
        "captions": CAPTIONS,
        "boxes": list_of(pa.float32()),
        "url": TEXT,
        "negatives": list_of(pa.struct({"caption": TEXT, "text": TEXT})),
        "twins": list_of(TEXT),
    }
)


@dataclass(frozen=True)
class Folder(Source):
    """Images by path or URL, with the captions that a file gives them.

    A JSONL line is `{"image": "a.jpg", "caption": "..."}` or `{"image": "a.jpg", "captions": ["...", "..."]}` or, by
    source, `{"image": "a.jpg", "captions": {"alt": ["..."], "long": ["..."]}}`; `boxes` are optional. The columns of
    a CSV, TSV or Parquet file are known by their names (`vlc.data.sources.columns`), those of DreamLIP's and
    ShareGPT4V's releases among them. An image may stand in several rows. `twins` names images that differ in one thing.

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
        table = captions_table(path, columns)
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

    def twin(self, index: int, caption: tuple[str, int], rng: np.random.Generator) -> Record | None:
        """One of those that the file names, with an image and captions of its own."""
        del caption
        known = [place for name in self.table.get("twins", index) or () if (place := self._named(name)) is not None]
        return self[known[int(rng.integers(len(known)))]] if known else None

    def _named(self, image: str) -> int | None:
        return self._places.get(image)

    @functools.cached_property
    def _places(self) -> dict[str, int]:
        """The rows of the images that are named as twins."""
        wanted = {name for names in _values_of(self.table.column("twins")) for name in names or ()}
        images = _values_of(self.table.column("image")) if wanted else ()
        return {image: row for row, image in enumerate(images) if image in wanted}

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
            negatives=group_captions((row["caption"], row["text"]) for row in self.table.get("negatives", index) or ()),
        )


def _values_of(column: pa.ChunkedArray) -> Iterator[Any]:
    """A column's values as Python has them, a chunk in memory at a time."""
    return itertools.chain.from_iterable(chunk.to_pylist() for chunk in column.chunks)


def _image_root(root: str, image: str) -> str:
    """The folder that image paths are relative to: that of the file, or one of the usual names in it."""
    if is_far(image) or exists(join(root, image)):
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


def captions_table(path: str, columns: Columns) -> Table:
    """The images that a captions file names with their captions, found again or made and kept."""
    return kept_table("captions", [path], parent(path), lambda out: _index(path, columns, out), columns.settings())


def table_captions(table: Table, index: int) -> dict[str, tuple[str, ...]]:
    """Captions by source from a table's list of source and text."""
    return group_captions((caption["source"], caption["text"]) for caption in table.get("captions", index))


def as_structs(captions: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Captions as a table keeps them."""
    return [{"source": source, "text": text} for source, text in flatten_captions(captions)]


def digest_of(name: str) -> int:
    """64 bits that stand for a name, where millions of them are looked for again."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _index(path: str, columns: Columns, out: Path) -> None:
    """Writes the table of a captions file: a row of the file at a time, then those of one image put together.

    In memory are eight bytes a row.
    """
    skipped: dict[str, int] = {}
    first: list[str] = []
    digests = array.array("Q")

    def rows() -> Iterator[tuple[Any, ...]]:
        for where, row in read_rows(path, columns):
            try:
                values = _values(row, columns, where)
            except CaptionTypeError:
                raise
            except DataError as error:
                skipped[error.reason] = skipped.get(error.reason, 0) + 1
                first[:] = first or [str(error)]
                continue
            digests.append(digest_of(values[0]))
            yield values

    def notes() -> dict[str, Any]:
        return {"skipped": skipped, "first": first[0] if first else "", "rows": len(digests)}

    single = out.with_name(f".rows-{secrets.token_hex(4)}-{out.name}")
    try:
        write_table(single, rows(), _SCHEMA, notes)
        groups = _groups(np.frombuffer(digests, np.uint64)) if digests else []
        if len(groups) == len(digests):
            os.replace(single, out)
        else:
            write_table(out, _joined(Table(single), groups), _SCHEMA, notes)
    finally:
        single.unlink(missing_ok=True)


def _values(row: Mapping[str, Any] | DataError, columns: Columns, where: str) -> tuple[Any, ...]:
    """A row of the table: image, captions, boxes, URL, negatives and twins."""
    if isinstance(row, DataError):
        raise row
    image, captions, boxes = columns.image_of(row, where), columns.captions_of(row, where), boxes_of(row, where)
    url, wrong = row.get("url"), flatten_captions(columns.negatives_of(row, captions, where))
    return (
        image,
        as_structs(captions),
        None if boxes is None else boxes.ravel().tolist(),
        mend_text(url) if isinstance(url, str) else None,
        [{"caption": caption, "text": text} for caption, text in wrong],
        list(columns.twins_of(row, where)),
    )


def _groups(digests: np.ndarray) -> list[np.ndarray]:
    """The rows of each image, in the order in which the images come first."""
    order = np.argsort(digests, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(digests[order])) + 1)
    return sorted(groups, key=lambda rows: rows[0])


def _joined(table: Table, groups: Sequence[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """What all rows of an image say of it: their captions, negatives and twins in order, and the boxes and URL of the
    first that has any."""
    for rows in groups:
        by_image: dict[str, list[Any]] = {}  # two names of one digest stay two images
        for row in rows.tolist():
            image, *values = (table.get(name, row) for name in _SCHEMA.names)
            known = by_image.setdefault(image, [image, [], None, None, [], []])
            known[1] += values[0]
            known[2:4] = [old if old is not None else new for old, new in zip(known[2:4], values[1:3], strict=True)]
            known[4] += values[3] or []
            known[5] += values[4] or []
        for image, captions, boxes, url, wrong, twins in by_image.values():
            sources = group_captions((caption["source"], caption["text"]) for caption in captions)
            yield image, as_structs(sources), boxes, url, wrong, list(dict.fromkeys(twins))


def _is_captions_file(place: Location) -> bool:
    if place.is_folder:
        return any(name in place.names or name in place.below("train").names for name in CAPTION_FILES)
    return place.path.lower().endswith((*SUFFIXES, ".token")) and place.is_file


KIND = SourceKind(
    "a captions file, or a folder with one",
    _is_captions_file,
    lambda place, columns, _: Folder.open(place.path, columns),
)
