"""Images by path or URL, in a table with what is said of each: what captions and annotation files are read to."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from vlc.data.record import Record, Source, flatten_captions, group_captions
from vlc.data.sources.parts_of_row import read_parts
from vlc.data.table import TEXT, Table, list_of
from vlc.storage import IMAGE_FOLDERS, exists, is_far, join, read_bytes

CAPTIONS = list_of(pa.struct({"source": TEXT, "text": TEXT}))
SCHEMA = pa.schema(
    {
        "image": TEXT,
        "captions": CAPTIONS,
        "regions": TEXT,
        "url": TEXT,
        "negatives": list_of(pa.struct({"caption": TEXT, "text": TEXT})),
        "twins": list_of(TEXT),
    }
)


@dataclass(frozen=True)
class Listed(Source):
    """Images that a table lists.

    Attributes:
        root: The folder that image paths are relative to.
        table: Of `SCHEMA`: image, captions, regions, URL, negatives and twins of every image.
    """

    root: str
    table: Table

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
        url = self.table.get("url", index)
        return Record(
            image,
            read_bytes(join(self.root, image)),
            table_captions(self.table, index),
            *read_parts(self.table.get("regions", index), image),
            {"url": url} if url else {},
            negatives=group_captions((row["caption"], row["text"]) for row in self.table.get("negatives", index) or ()),
        )


def _values_of(column: pa.ChunkedArray) -> Iterator[Any]:
    """A column's values as Python has them, a chunk in memory at a time."""
    return itertools.chain.from_iterable(chunk.to_pylist() for chunk in column.chunks)


def image_root(root: str, image: str) -> str:
    """The folder that image paths are relative to: that of the file, or one of the usual names in it."""
    if is_far(image) or exists(join(root, image)):
        return root
    return next((join(root, name) for name in IMAGE_FOLDERS if exists(join(join(root, name), image))), root)


def table_captions(table: Table, index: int) -> dict[str, tuple[str, ...]]:
    """Captions by source from a table's list of source and text."""
    return group_captions((caption["source"], caption["text"]) for caption in table.get("captions", index))


def as_structs(captions: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Captions as a table keeps them."""
    return [{"source": source, "text": text} for source, text in flatten_captions(captions)]
