"""RandAugment (arXiv 1909.13719) and AutoAugment's ImageNet policy (arXiv 1805.09501), the latter used by FILIP."""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vlc.errors import ConfigError, did_you_mean

_GREY = (128, 128, 128)
LEVELS = 10  # a magnitude goes from 0 to this


class _Op(NamedTuple):
    apply: Callable[[Image.Image, float], Image.Image]
    strongest: float  # value at the highest magnitude; the value at 0 leaves the image alone
    signed: bool = False


def _affine(picture: Image.Image, *matrix: float) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=_GREY)


def _enhance(kind: type) -> Callable[[Image.Image, float], Image.Image]:
    return lambda picture, value: kind(picture).enhance(1 + value)


OPS: dict[str, _Op] = {
    "identity": _Op(lambda picture, _: picture, 0),
    "shear_x": _Op(lambda picture, v: _affine(picture, 1, v, 0, 0, 1, 0), 0.3, True),
    "shear_y": _Op(lambda picture, v: _affine(picture, 1, 0, 0, v, 1, 0), 0.3, True),
    "translate_x": _Op(lambda picture, v: _affine(picture, 1, 0, v * picture.width, 0, 1, 0), 0.45, True),
    "translate_y": _Op(lambda picture, v: _affine(picture, 1, 0, 0, 0, 1, v * picture.height), 0.45, True),
    "rotate": _Op(lambda picture, v: picture.rotate(v, Image.Resampling.BILINEAR, fillcolor=_GREY), 30, True),
    "brightness": _Op(_enhance(ImageEnhance.Brightness), 0.9, True),
    "color": _Op(_enhance(ImageEnhance.Color), 0.9, True),
    "contrast": _Op(_enhance(ImageEnhance.Contrast), 0.9, True),
    "sharpness": _Op(_enhance(ImageEnhance.Sharpness), 0.9, True),
    "posterize": _Op(lambda picture, v: ImageOps.posterize(picture, 8 - round(v)), 4),
    "solarize": _Op(lambda picture, v: ImageOps.solarize(picture, round(256 - v)), 256),
    "auto_contrast": _Op(lambda picture, _: ImageOps.autocontrast(picture), 0),
    "equalize": _Op(lambda picture, _: ImageOps.equalize(picture), 0),
    "invert": _Op(lambda picture, _: ImageOps.invert(picture), 0),
}
_RAND = tuple(name for name in OPS if name != "invert")

# Table 9 of AutoAugment: two operations, each with its chance and magnitude.
_IMAGENET = tuple(
    tuple((name, float(chance), int(level)) for name, chance, level in (part.split() for part in line.split(",")))
    for line in """
    posterize .4 8, rotate .6 9
    solarize .6 5, auto_contrast .6 5
    equalize .8 8, equalize .6 3
    posterize .6 7, posterize .6 6
    equalize .4 7, solarize .2 4
    equalize .4 4, rotate .8 8
    solarize .6 3, equalize .6 7
    posterize .8 5, equalize 1 2
    rotate .2 3, solarize .6 8
    equalize .6 8, posterize .4 6
    rotate .8 8, color .4 0
    rotate .4 9, equalize .6 2
    equalize 0 7, equalize .8 8
    invert .6 4, equalize 1 8
    color .6 4, contrast 1 8
    rotate .8 8, color 1 2
    color .8 8, solarize .8 7
    sharpness .4 7, invert .6 8
    shear_x .6 5, equalize 1 9
    color .4 0, equalize .6 3
    equalize .4 7, solarize .2 4
    solarize .6 5, auto_contrast .6 5
    invert .6 4, equalize 1 8
    color .6 4, contrast 1 8
    equalize .8 8, equalize .6 3
    """.strip().splitlines()
)


def apply_op(picture: Image.Image, name: str, magnitude: float, rng: np.random.Generator) -> Image.Image:
    """One operation; where it has a direction, that is drawn.

    Args:
        picture: RGB.
        name: One of `OPS`.
        magnitude: From 0, which leaves the picture as it is where the operation has a strength, to `LEVELS`.
        rng: Draws the direction.
    """
    op = OPS[name]
    value = op.strongest * magnitude / LEVELS
    return op.apply(picture, -value if op.signed and rng.random() < 0.5 else value)


def rand_augment(picture: Image.Image, rng: np.random.Generator, *, ops: int, magnitude: float) -> Image.Image:
    """`ops` operations drawn evenly, one after the other, all at one magnitude."""
    for index in rng.integers(len(_RAND), size=ops):
        picture = apply_op(picture, _RAND[index], magnitude, rng)
    return picture


def auto_augment(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One of the 25 pairs of operations that AutoAugment found for ImageNet."""
    for name, chance, magnitude in _IMAGENET[rng.integers(len(_IMAGENET))]:
        if rng.random() < chance:
            picture = apply_op(picture, name, magnitude, rng)
    return picture


def parse_augment(text: str) -> Callable[[Image.Image, np.random.Generator], Image.Image] | None:
    """Reads `config.data.image.augment`: `""`, `"auto"`, `"rand"` or `"rand(ops=2, magnitude=9)"`.

    Raises:
        ConfigError: It is none of these.
    """
    if not text:
        return None
    if text == "auto":
        return auto_augment
    found = re.fullmatch(r"rand(?:\((?:ops=(\d+))?,?\s*(?:magnitude=(\d+(?:\.\d+)?))?\))?", text)
    if not found:
        hint = did_you_mean(text.partition("(")[0], ("auto", "rand"))
        raise ConfigError(f'config.data.image.augment is "{text}"; write auto or rand(ops=2, magnitude=9).{hint}')
    ops, magnitude = int(found[1] or 2), float(found[2] or 9)
    if magnitude > LEVELS:
        raise ConfigError(f'config.data.image.augment is "{text}"; a magnitude is at most {LEVELS}.')
    return lambda picture, rng: rand_augment(picture, rng, ops=ops, magnitude=magnitude)
