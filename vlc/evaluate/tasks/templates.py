"""Prompt templates of zero-shot classification."""

import itertools

from vlc.errors import DataError, did_you_mean
from vlc.storage import local_copy

_VIEWS = (
    "bad photo", "sculpture", "low resolution photo", "rendering", "cropped photo", "tattoo", "bright photo",
    "dark photo", "drawing", "close-up photo", "black and white photo", "painting", "pixelated photo",
    "jpeg corrupted photo", "blurry photo", "good photo", "doodle", "sketch", "rendition",
)  # fmt: skip
_LOOKS = ("hard to see", "clean", "dirty", "cool", "large", "small", "nice", "weird")
_KINDS = ("embroidered", "plastic", "origami", "toy", "cartoon", "plushie")
_ARTICLES = ("a", "the")

CLIP = (
    *(f"a {view} of {article} {{}}." for view, article in itertools.product(_VIEWS, _ARTICLES)),
    *(f"{start} of {article} {{}}." for start, article in itertools.product(("graffiti", "art"), _ARTICLES)),
    *(f"itap of {which} {{}}." for which in (*_ARTICLES, "my")),
    *(f"a photo of {which} {{}}." for which in (*_ARTICLES, "my", "one", "many")),
    *(f"a photo of {article} {look} {{}}." for look, article in itertools.product(_LOOKS, _ARTICLES)),
    *(f"{article} {kind} {{}}." for kind, article in itertools.product(_KINDS, _ARTICLES)),
    *(f"{article} {{}} in a video game." for article in _ARTICLES),
)
"""The 80 of CLIP's ImageNet accuracies (Radford et al. 2021, section 3.1.4), as released with the paper."""

SIMPLE = ("a photo of a {}.",)
_NAMED = {"clip": CLIP, "simple": SIMPLE}


def read_templates(name: str) -> tuple[str, ...]:
    """`clip` (the 80), `simple` (one), or a file with a template on each line, `{}` (or `{c}`) for the name.

    Raises:
        DataError: There is no such file, or a line has no place for the name.
    """
    if name in _NAMED:
        return _NAMED[name]
    try:
        lines = [line.strip() for line in local_copy(name).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--templates {name}: neither a file nor a known name.{did_you_mean(name, _NAMED)}") from error
    lines = [line.replace("{c}", "{}") for line in lines]
    wrong = next((line for line in lines if line.count("{}") != 1), None)
    if wrong is not None or not lines:
        raise DataError(f'{name}: a template has one {{}} for the name of the class; "{wrong or ""}" does not.')
    return tuple(lines)
