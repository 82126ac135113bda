"""Masks of parts of a picture, run-length encoded as COCO has them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool
from pycocotools import mask

from vlc.errors import DataError

coco: Any = mask  # whose types say less than it takes
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mask:
    """Which pixels of a picture belong to a part of it.

    Attributes:
        height: Of the picture, in pixels.
        width: Likewise.
        counts: Lengths of runs in COCO's compressed form, column by column.
    """

    height: int
    width: int
    counts: bytes

    @classmethod
    def of(cls, pixels: Bool[np.ndarray, "H W"]) -> "Mask":
        """From the pixels themselves."""
        found = coco.encode(np.asfortranarray(pixels.astype(np.uint8)))
        return cls(*pixels.shape, counts=found["counts"])

    @classmethod
    def read(cls, value: Any, where: str, size: tuple[int, int] | None = None) -> "Mask":
        """From what annotation files have.

        Args:
            value: `{"size": [height, width], "counts": ...}` with compressed or plain runs, or COCO's polygons
                `[[x, y, x, y, ...], ...]` in pixels.
            where: The region, for messages.
            size: Height and width of the picture, where they are known; polygons need them.

        Raises:
            DataError: It is none of these, is of another size than the picture, or its runs do not fill it.
        """
        try:
            if isinstance(value, Mapping):
                height, width = (int(side) for side in value["size"])
                found = cls(height, width, _compressed(value["counts"], height, width))
            else:
                found = _from_polygons(value, size)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f'{where}: a mask is {{"size": [height, width], "counts": RUNS}} or polygons [[x, y, ...]] in pixels '
                f"({type(error).__name__}: {error}).",
                "region",
            ) from error
        if size is not None and (found.height, found.width) != tuple(size):
            raise DataError(
                f"{where}: the mask is {found.width} x {found.height}, the picture {size[1]} x {size[0]}.", "region"
            )
        return found

    def plain(self) -> dict[str, Any]:
        """As JSON has it; `read` gives the same mask again."""
        return {"size": [self.height, self.width], "counts": self.counts.decode()}

    def pixels(self) -> Bool[np.ndarray, "H W"]:
        """The pixels themselves."""
        return coco.decode(self._coco()).astype(bool)

    @property
    def area(self) -> int:
        """Pixels that belong to it."""
        return int(coco.area(self._coco()))

    @property
    def box(self) -> Box:
        """The smallest box around it, in shares; zeros of an empty mask."""
        left, top, width, height = (float(side) for side in coco.toBbox(self._coco()))
        return (
            left / self.width, top / self.height, (left + width) / self.width, (top + height) / self.height
        )  # fmt: skip

    def _coco(self) -> dict[str, Any]:
        return {"size": [self.height, self.width], "counts": self.counts}


def _compressed(counts: Any, height: int, width: int) -> bytes:
    """Runs in the compressed form; those that do not fill the picture would be read beyond their end."""
    if isinstance(counts, (str, bytes)):
        data = counts.encode() if isinstance(counts, str) else counts
        runs = _runs(data)
    else:
        runs = [int(count) for count in counts]
        data = coco.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"its runs are {sum(runs)} pixels of {height} x {width}")
    return data


def _runs(data: bytes) -> list[int]:
    """Lengths of runs: five bits a letter, the least first, the sixth says that more follow; from the third run on a
    number is the difference to the run before the last."""
    runs: list[int] = []
    value = shift = 0
    for letter in data:
        bits = letter - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{bytes([letter])!r} is no letter of compressed runs")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("its runs break off")
    return runs


def _from_polygons(value: Any, size: tuple[int, int] | None) -> Mask:
    if size is None:
        raise ValueError("polygons need the size of the picture")
    if not isinstance(value, Sequence) or not all(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in value):
        raise ValueError("a polygon has three corners or more, each of two numbers")
    height, width = size
    merged = coco.merge(coco.frPyObjects([list(map(float, polygon)) for polygon in value], height, width))
    return Mask(height, width, merged["counts"])
