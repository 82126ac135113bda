"""Pictures of any shape as so many patches: their aspect is kept, and nothing is cut off.

NaFlex (SigLIP 2, arXiv 2502.14786, section 2.4.2): a picture is resized so that both sides are whole patches and there
are as many as fit into a budget. Its patches, row by row, and behind them pads, travel as one array of bytes of the
size of a square picture, `[S + 1, S, 3]`: the patches stand where those of a square would, and one row more says how
many rows and columns they are.
"""

import math

import numpy as np

_STEP = 1e-5  # how near the largest scale is found; that of the public preprocessing


def shape_for(height: float, width: float, patch: int, budget: int) -> tuple[int, int]:
    """Rows and columns of patches of a picture, the most that keep its aspect and are no more than `budget`.

    Args:
        height: Of the picture, in pixels.
        width: Likewise.
        patch: Pixels on a side of a patch.
        budget: The most patches.
    """

    def at(scale: float) -> tuple[int, int]:
        return max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch))

    low, high = _STEP / 10, 100.0
    while high - low >= _STEP:
        middle = (low + high) / 2
        rows, columns = at(middle)
        low, high = (middle, high) if rows * columns <= budget else (low, middle)
    rows, columns = at(low)
    return min(rows, budget), min(columns, budget)


def pack(pixels: np.ndarray, patch: int, size: int) -> np.ndarray:
    """The patches of a picture `[rows * patch, columns * patch, 3]` as `[size + 1, size, 3]` uint8."""
    rows, columns, side = pixels.shape[0] // patch, pixels.shape[1] // patch, size // patch
    patches = np.zeros((side * side, patch, patch, 3), np.uint8)
    cut = pixels.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)
    patches[: rows * columns] = cut.reshape(-1, patch, patch, 3)
    packed = np.zeros((size + 1, size, 3), np.uint8)
    packed[:size] = patches.reshape(side, side, patch, patch, 3).swapaxes(1, 2).reshape(size, size, 3)
    packed[size, :2, :2] = [divmod(rows, 256), divmod(columns, 256)]
    return packed


def shape_of(packed: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the patches."""
    rows, columns = (int(high) * 256 + int(low) for high, low in packed[packed.shape[1], :2, :2])
    return rows, columns


def unpack(packed: np.ndarray, patch: int) -> np.ndarray:
    """The picture again."""
    size = packed.shape[1]
    side = size // patch
    rows, columns = shape_of(packed)
    patches = packed[:size].reshape(side, patch, side, patch, 3).swapaxes(1, 2).reshape(-1, patch, patch, 3)
    grid = patches[: rows * columns].reshape(rows, columns, patch, patch, 3)
    return grid.swapaxes(1, 2).reshape(rows * patch, columns * patch, 3)
