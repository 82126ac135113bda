"""What every published layout is read to, and what is counted on the way."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlc.data.regions import Box, PartsOfPicture, Region, to_shares
from vlc.data.sources.kind import Location
from vlc.errors import DataError
from vlc.storage import read_bytes


@dataclass
class Tally:
    """What is left out of a file, by reason, and what was wrong with the first of it."""

    counts: dict[str, int] = field(default_factory=dict)
    first: str = ""

    def add(self, reason: str, message: str) -> None:
        """Counts one thing that is left out."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.first = self.first or message


@dataclass(frozen=True)
class Annotated:
    """An image with its regions.

    Attributes:
        name: Its file, relative to the folder of images.
        captions: Of the whole image, by source.
        parts: Its regions.
        split: Where the layout has several in one file.
    """

    name: str
    captions: Mapping[str, list[str]]
    parts: PartsOfPicture
    split: str = "all"


@dataclass(frozen=True)
class Layout:
    """A published layout.

    Attributes:
        name: For messages.
        find: The file of a location that is of this layout; empty where none is.
        read: Its images, one after another.
        beside: Other files that are read with a file, where they are there; with another version of one of them it is
            read again.
    """

    name: str
    find: Callable[[Location], str]
    read: Callable[[str, Tally], Iterator[Annotated]]
    beside: Callable[[str], list[str]]


def read_json(path: str, kind: type) -> Any:
    """A JSON file whose outermost value is of a kind.

    Raises:
        DataError: It is damaged or of another kind.
    """
    try:
        found = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}).") from error
    if not isinstance(found, kind):
        raise DataError(f"{path}: is no {kind.__name__} of JSON.")
    return found


def pixel_box(box: Any, size: tuple[int, int], where: str, tally: Tally) -> Box | None:
    """A box of left, top, width and height in pixels; `None`, and counted, where it is none."""
    try:
        return to_shares(box, where, form="xywh", units="pixels", size=size)
    except DataError as error:
        numbers = isinstance(box, list) and len(box) == 4 and all(isinstance(side, (int, float)) for side in box)
        tally.add("no area" if numbers and min(box[2:]) <= 0 else "region", str(error))
        return None


def labels_of(regions: tuple[Region, ...]) -> dict[str, list[str]]:
    """A caption for images that have none: the classes that can be seen."""
    labels = dict.fromkeys(region.label for region in regions if region.label)
    return {"labels": [", ".join(labels)]} if labels else {}
