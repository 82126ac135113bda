"""Left and right in captions of mirrored pictures."""

import re

_SIDES = re.compile(r"\b(left|right)(most|wards?|-hand)?\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def names_a_side(text: str) -> bool:
    """Whether a caption speaks of left or right."""
    return _SIDES.search(text) is not None


def swap_sides(text: str) -> str:
    """The caption of the mirrored picture: `left` and `right` change places, in the letters that they had."""

    def other(found: re.Match[str]) -> str:
        side = _OTHER[found[1].lower()]
        side = side.upper() if found[1].isupper() else side.capitalize() if found[1][0].isupper() else side
        return side + (found[2] or "")

    return _SIDES.sub(other, text)
