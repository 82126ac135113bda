"""Places as words: `<x12><y03>` names a point, two of them a box (LocCa, arXiv 2403.19596; LLaVA-ST, arXiv 2501.08282).

Each axis has so many bins; those across come first in the vocabulary, then those down.
"""

import re
from collections.abc import Sequence

from vlc.data.masks import Box
from vlc.data.tokenizers.sentence_piece import EOS_ID

FIRST_PLACE = EOS_ID + 1  # the id of the first word for a place, behind the marks (`SentencePiece.train`)
_POINT = re.compile(r"<x(\d+)>\s*<y(\d+)>")


def place_words(bins: int) -> list[str]:
    """All words for places, in the order of the vocabulary."""
    return [f"<{axis}{number:02d}>" for axis in "xy" for number in range(bins)]


def write_box(box: Sequence[float], bins: int) -> str:
    """A box in words: its left top, then its right bottom, each by the bin that it lies in."""
    numbers = [min(max(int(side * bins), 0), bins - 1) for side in box]
    return "".join(f"<{axis}{number:02d}>" for axis, number in zip("xyxy", numbers, strict=True))


def read_box(text: str, bins: int) -> Box | None:
    """The first box that a text names, its corners in the middle of their bins; `None` where it names none."""
    points = [(int(x), int(y)) for x, y in _POINT.findall(text)]
    if len(points) < 2 or max(max(point) for point in points[:2]) >= bins:
        return None
    (left, top), (right, bottom) = points[:2]
    if right < left or bottom < top:
        return None
    return (left + 0.5) / bins, (top + 0.5) / bins, (right + 0.5) / bins, (bottom + 0.5) / bins


def without_places(text: str) -> str:
    """A text without the places in it."""
    return " ".join(re.sub(r"<[xy]\d+>", " ", text).split())
