"""Which part of a picture the model sees, so that boxes and masks can follow its pixels; and how much of each patch
they cover."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vlc.data.masks import Box


@dataclass(frozen=True)
class Frame:
    """What of a picture is shown: its left, top, right and bottom, as shares of the picture.

    Where a picture was padded they lie outside of it.

    Attributes:
        left: Where the first pixel column begins.
        top: Where the first pixel row begins.
        right: Where the last column ends.
        bottom: Where the last row ends.
        mirrored: Whether left and right are exchanged.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0
    mirrored: bool = False

    @classmethod
    def of_cut(cls, sides: tuple[float, float], left: float, top: float, width: float, height: float) -> "Frame":
        """A cut out of a picture of these sides (width and height), all in pixels."""
        return cls(left / sides[0], top / sides[1], (left + width) / sides[0], (top + height) / sides[1])

    def boxes(self, boxes: Sequence[Box] | np.ndarray) -> Float[np.ndarray, "N 4"]:
        """Boxes of the picture as shares of what is shown; what is not shown of them lies outside of 0 to 1."""
        found = np.asarray(boxes, np.float64).reshape(-1, 4)
        start, extent = np.array([self.left, self.top]), np.array([self.right - self.left, self.bottom - self.top])
        found = (found - np.tile(start, 2)) / np.tile(extent, 2)
        if self.mirrored:
            found[:, [0, 2]] = 1 - found[:, [2, 0]]
        return found

    def back(self, boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
        """Boxes as shares of the picture, from shares of what is shown, cut at the edges of the picture."""
        found = np.array(boxes, np.float64).reshape(-1, 4)
        if self.mirrored:
            found[:, [0, 2]] = 1 - found[:, [2, 0]]
        start, extent = np.array([self.left, self.top]), np.array([self.right - self.left, self.bottom - self.top])
        return (found * np.tile(extent, 2) + np.tile(start, 2)).clip(0, 1)


def visible_share(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    """How much of the area of each box lies within 0 to 1."""
    inside = boxes.clip(0, 1)
    return _area(inside) / np.maximum(_area(boxes), 1e-12)


def _area(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, " N"]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def cover_of_boxes(boxes: Float[np.ndarray, "N 4"], rows: int, columns: int) -> Float[np.ndarray, "N P"]:
    """The share of each patch of a grid, row by row, that each box covers.

    Args:
        boxes: As shares of what the grid shows.
        rows: Of patches.
        columns: Likewise.
    """
    across = _overlap(boxes[:, 0], boxes[:, 2], columns)
    down = _overlap(boxes[:, 1], boxes[:, 3], rows)
    return (down[:, :, None] * across[:, None, :]).reshape(len(boxes), rows * columns)


def _overlap(start: np.ndarray, end: np.ndarray, cells: int) -> np.ndarray:
    """The share of each of the cells between 0 and 1 that lies between two numbers."""
    edges = np.arange(cells + 1) / cells
    low, high = np.maximum(start[:, None], edges[:-1]), np.minimum(end[:, None], edges[1:])
    return np.clip(high - low, 0, None) * cells


def cover_of_mask(pixels: Bool[np.ndarray, "H W"], frame: Frame, rows: int, columns: int) -> Float[np.ndarray, " P"]:
    """The share of each patch of a grid, row by row, that a mask of the whole picture covers.

    Args:
        pixels: Of the picture before it was cut or resized.
        frame: What of the picture the grid shows.
        rows: Of patches.
        columns: Likewise.
    """
    height, width = pixels.shape
    down = (frame.top + (frame.bottom - frame.top) * np.arange(rows + 1) / rows) * height
    across = (frame.left + (frame.right - frame.left) * np.arange(columns + 1) / columns) * width
    sums = np.zeros((height + 1, width + 1))
    sums[1:, 1:] = pixels.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    at = _between(_between(sums, down).T, across).T  # sums of pixels above and left of every corner of the grid
    inside = at[1:, 1:] - at[:-1, 1:] - at[1:, :-1] + at[:-1, :-1]
    cover = inside / (np.diff(down)[:, None] * np.diff(across)[None, :])
    return np.ascontiguousarray(cover[:, ::-1] if frame.mirrored else cover).reshape(-1)


def _between(sums: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows of an array at places between them, by straight lines."""
    places = places.clip(0, len(sums) - 1)
    low = np.minimum(places.astype(int), len(sums) - 2)
    share = (places - low)[:, None]
    return sums[low] * (1 - share) + sums[low + 1] * share
