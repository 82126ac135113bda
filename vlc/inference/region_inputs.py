"""Regions that a user names of pictures: boxes, masks or points, as the model is told them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vlc.data.frame import Frame, cover_of_boxes, cover_of_mask, visible_share
from vlc.data.masks import Mask
from vlc.data.regions import Region, check_box
from vlc.errors import ConfigError, DataError

_ROUND = 8  # to a multiple of which regions of an image are filled up, so that few programs are compiled


@dataclass(frozen=True)
class Places:
    """Regions of some pictures, one after another.

    Attributes:
        owner: The picture of each.
        boxes: As shares of what the model sees; of points both corners are alike.
        cover: The share of each patch that each covers.
    """

    owner: Int[np.ndarray, " N"]
    boxes: Float[np.ndarray, "N 4"]
    cover: Float[np.ndarray, "N P"]

    def rows(self, images: int) -> tuple[Float[np.ndarray, "B R P"], Int[np.ndarray, " N"]]:
        """The covers by picture, filled up with regions that cover nothing, and the place of each among its own."""
        place = _count_within(self.owner)
        most = -(-(int(place.max(initial=0)) + 1) // _ROUND) * _ROUND
        found = np.zeros((images, most, self.cover.shape[1]), np.float32)
        found[self.owner, place] = self.cover
        return found, place


def _count_within(owner: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """0, 1, 2, ... among the entries of each owner."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], owner[order])
    place = np.empty(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - starts
    return place


def named_regions(
    frames: Sequence[Frame], grids: Sequence[tuple[int, int]], patches: int, *, boxes: Any = None, masks: Any = None,
    points: Any = None, first: int = 0,
) -> Places:  # fmt: skip
    """The regions of pictures, from one of `boxes`, `masks` and `points`, each a list a picture.

    Args:
        frames: What the model sees of each picture.
        grids: Rows and columns of its patches.
        patches: Of the longest picture.
        boxes: Left, top, right, bottom as shares of the picture.
        masks: `[height, width]` of the picture, or `vlc.data.masks.Mask`.
        points: Across and down, as shares of the picture.
        first: Number of the first picture, for messages.

    Raises:
        ConfigError: Not exactly one of the three is given.
        DataError: A region is none, or lies outside of what the model sees.
    """
    given = [(kind, value) for kind, value in (("box", boxes), ("mask", masks), ("point", points)) if value is not None]
    if len(given) != 1:
        raise ConfigError("Name regions by one of boxes, masks and points.")
    kind, regions = given[0]
    if len(regions) != len(frames):
        raise DataError(
            f"{len(frames)} images and regions of {len(regions)}: give a list of them for each image.", "region"
        )
    owner, found_boxes, covers = [], [], []
    for number, (frame, grid, some) in enumerate(zip(frames, grids, regions, strict=True)):
        for place, region in enumerate(some):
            box, cover = _READERS[kind](region, frame, grid, f"image {first + number}, {kind} {place}")
            owner.append(number)
            found_boxes.append(box)
            covers.append(np.pad(cover, (0, patches - len(cover))))
    count = len(owner)
    return Places(
        np.asarray(owner, np.int64),
        np.asarray(found_boxes, np.float32).reshape(count, 4),
        np.asarray(covers, np.float32).reshape(count, patches),
    )


def as_region(kind: str, value: Any, where: str) -> Region:
    """A region of `boxes` or `masks`.

    Raises:
        DataError: It is none.
    """
    if kind == "boxes":
        return Region(check_box(value, where))
    mask = value if isinstance(value, Mask) else Mask.of(_pixels(value, where))
    if not mask.area:
        raise DataError(f"{where}: the mask is empty.", "region")
    return Region(mask.box, mask)


def _read_box(value: Any, frame: Frame, grid: tuple[int, int], where: str) -> tuple[np.ndarray, np.ndarray]:
    boxes = frame.boxes([check_box(value, where)])
    if visible_share(boxes)[0] <= 0:
        raise DataError(f"{where}: lies outside of what the model sees of the image.", "region")
    inside = boxes.clip(0, 1)
    return inside[0], cover_of_boxes(inside, *grid)[0]


def _read_mask(value: Any, frame: Frame, grid: tuple[int, int], where: str) -> tuple[np.ndarray, np.ndarray]:
    pixels = value.pixels() if isinstance(value, Mask) else _pixels(value, where)
    cover = cover_of_mask(pixels, frame, *grid)
    if not cover.any():
        raise DataError(f"{where}: is empty, or outside of what the model sees of the image.", "region")
    return frame.boxes([Mask.of(pixels).box]).clip(0, 1)[0], cover


def _pixels(value: Any, where: str) -> Bool[np.ndarray, "H W"]:
    array = np.asarray(value)
    if array.ndim != 2 or not array.size or not np.isin(array, (0, 1)).all():
        raise DataError(f"{where}: a mask is [height, width] of true and false, got {list(array.shape)}.", "region")
    return array.astype(bool)


def _read_point(value: Any, frame: Frame, grid: tuple[int, int], where: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        x, y = map(float, value)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: a point is two numbers, got {value!r:.40}.", "region") from error
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise DataError(f"{where}: [{x:g}, {y:g}] is not within 0 and 1, as shares of the image are.", "region")
    at = frame.boxes([(x, y, x, y)])
    if not ((at >= 0) & (at <= 1)).all():
        raise DataError(f"{where}: lies outside of what the model sees of the image.", "region")
    rows, columns = grid
    cover = np.zeros((rows, columns))
    cover[min(int(at[0, 1] * rows), rows - 1), min(int(at[0, 0] * columns), columns - 1)] = 1
    return at[0], cover.reshape(-1)


_READERS = {"box": _read_box, "mask": _read_mask, "point": _read_point}
