"""Scores of classes for every patch of a large picture, by windows that slide over it.

Each is looked at as a picture of the model's size, as in the field's open-vocabulary segmentation.
"""

from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from vlc.errors import ConfigError
from vlc.inference import Model

PatchScore = Callable[[np.ndarray], np.ndarray]  # tokens of patches `[P, D]` to scores `[P, classes]`


def check_windows(model: Model, short: int) -> None:
    """Raises `ConfigError` where the short side that a picture is brought to is less than what the model sees."""
    size = model.preprocess.size
    if short < size:
        raise ConfigError(
            f"--windows {short}: the short side of a picture must be {size} pixels at least, as a window is."
        )


def window_field(
    model: Model, picture: UInt8[np.ndarray, "H W 3"], short: int, score: PatchScore
) -> Float[np.ndarray, "R C classes"]:
    """Scores of all patches of a picture; where windows overlap, by half of their side, the mean of theirs.

    Args:
        model: Of patches.
        picture: All of its pixels.
        short: Pixels that its short side is brought to; the aspect is kept, to a patch.
        score: Of the patches of a window.
    """
    size, patch = model.preprocess.size, model.config.model.image.patch
    height, width = picture.shape[:2]
    scale = short / min(height, width)
    rows, columns = (max(round(side * scale / patch), size // patch) for side in (height, width))
    large = cv2.resize(
        picture, (columns * patch, rows * patch), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    )
    grid = size // patch
    places = [(top, left) for top in _starts(rows, grid) for left in _starts(columns, grid)]
    cuts = [large[y * patch : y * patch + size, x * patch : x * patch + size] for y, x in places]
    whole = model.preprocess.squashed()
    tokens = model.encode_pixels(np.stack([whole(np.ascontiguousarray(cut)) for cut in cuts])).tokens
    total, count = None, np.zeros((rows, columns, 1), np.float32)
    for (y, x), some in zip(places, tokens, strict=True):
        found = score(some).reshape(grid, grid, -1)
        total = np.zeros((rows, columns, found.shape[2]), np.float32) if total is None else total
        total[y : y + grid, x : x + grid] += found
        count[y : y + grid, x : x + grid] += 1
    assert total is not None
    return total / count


def _starts(length: int, grid: int) -> list[int]:
    """Where windows begin, half a window apart; the last ends with the picture."""
    last = length - grid
    return sorted({*range(0, last, max(grid // 2, 1)), last})
