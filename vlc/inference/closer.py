"""Looking at a picture again, closer: small things in large pictures, with the weights that are there.

GLSim (Rios et al., 2024, arXiv 2407.12891): the patches that are most like the whole picture lie in a box; its crop is
looked at again. Dragonfly (Thapa et al., 2024, arXiv 2406.00977): the parts of the picture are looked at as well, and
of their patches the most useful are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from vlc.data.masks import Box
from vlc.data.region_crops import crop_region
from vlc.data.regions import Region
from vlc.errors import ConfigError, did_you_mean
from vlc.inference.encoder import Encoder
from vlc.models import ImageEncoding

_WHOLE = 0.95  # of a picture, of which a crop shows nothing new


@dataclass(frozen=True)
class Closer:
    """How a picture is looked at again.

    Attributes:
        zoom: How many of the patches that are most like the picture lie in the box that is cut out; 0: none is.
        parts: Into how many parts a side is cut, `(2, 3)`: four parts, and nine; empty: into none.
        keep: Patches of all parts that are kept, those most like the picture; 0: as many as the picture has.
        by: What patches are chosen by, one of `BY`. `likeness`: the cosine with the embedding of the picture, as in the
            papers. `oddness`: how unlike the mean patch of the picture their feature is; a small thing before a plain
            background is found by that, and not by the first.
    """

    zoom: int = 0
    parts: tuple[int, ...] = ()
    keep: int = 0
    by: str = "likeness"

    def __post_init__(self) -> None:
        if self.zoom < 0 or self.keep < 0 or any(sides < 2 for sides in self.parts):
            raise ConfigError(f"{self}: zoom and keep are 0 or more, and parts numbers of 2 or more.")
        if self.by not in BY:
            raise ConfigError(f'Closer: by is "{self.by}".{did_you_mean(self.by, BY)}')
        if not self.zoom and not self.parts:
            raise ConfigError("Closer: neither zoom nor parts, so there is nothing to be looked at again.")
        if self.keep and not self.parts:
            raise ConfigError("Closer: keep is about the patches of parts, and there are no parts.")


def look_closer(model: Encoder, pictures: Sequence[np.ndarray], closer: Closer) -> ImageEncoding:
    """Pictures as they are and closer: tokens and features of both, one after the other, and the embedding of unit
    length that lies between theirs.

    Args:
        model: Of patches.
        pictures: All pixels of each.
        closer: What is looked at again.

    Raises:
        ConfigError: The model has no patches.
    """
    model.check_patches()
    framed = [model.preprocess.framed(picture) for picture in pictures]
    pixels, frames = np.stack([one for one, _ in framed]), [frame for _, frame in framed]
    seen = model.encode_pixels(pixels)
    found = [seen]
    if closer.zoom:
        alike = _CHOICES[closer.by](model, seen, seen)
        boxes = []
        for frame, row, one in zip(frames, alike, pixels, strict=True):
            boxes.append([frame.back(np.array([zoom_box(row, model.grid_of(one), closer.zoom)]))[0].tolist()])
        crops = look_at_boxes(model, pictures, boxes)
        again = np.array([_area(box) < _WHOLE for (box,) in boxes])
        found.append(ImageEncoding(crops.tokens, np.where(again[:, None], crops.embed, seen.embed), crops.features,
                                   crops.mask))  # fmt: skip
    if closer.parts:
        found.append(_parts(model, pictures, seen, closer))
    return joined(found)


def zoom_box(alike: Float[np.ndarray, " P"], grid: tuple[int, int], count: int) -> Box:
    """The box around the patches that are most alike, as shares of what the model sees.

    Args:
        alike: How much each patch is like the picture.
        grid: Rows and columns.
        count: How many patches.
    """
    rows, columns = grid
    best = np.argsort(-alike[: rows * columns], kind="stable")[:count]
    y, x = best // columns, best % columns
    return x.min() / columns, y.min() / rows, (x.max() + 1) / columns, (y.max() + 1) / rows


def part_boxes(parts: Sequence[int]) -> list[Box]:
    """The parts of a picture, row by row."""
    return [
        (column / sides, row / sides, (column + 1) / sides, (row + 1) / sides)
        for sides in parts
        for row in range(sides)
        for column in range(sides)
    ]


def _parts(model: Encoder, pictures: Sequence[np.ndarray], seen: ImageEncoding, closer: Closer) -> ImageEncoding:
    """The patches of parts that are most like each picture, and the mean of those as its embedding."""
    boxes = part_boxes(closer.parts)
    crops = look_at_boxes(model, pictures, [boxes] * len(pictures))
    whole = jax.tree.map(lambda x: np.repeat(x, len(boxes), axis=0), seen)
    alike = _CHOICES[closer.by](model, crops, whole).reshape(len(pictures), -1)
    count = min(closer.keep or seen.tokens.shape[1], alike.shape[1])
    best = np.argsort(-alike, axis=1, kind="stable")[:, :count]

    def kept(x: np.ndarray) -> np.ndarray:
        rows = x.reshape(len(pictures), -1, *x.shape[2:])
        return np.take_along_axis(rows, best[..., None] if rows.ndim == 3 else best, axis=1)

    # A part counts by how many of its patches are kept.
    share = (best[..., None] // crops.tokens.shape[1] == np.arange(len(boxes))).mean(axis=1)
    embed = np.einsum("bn,bnd->bd", share, crops.embed.reshape(len(pictures), len(boxes), -1))
    return ImageEncoding(
        kept(crops.tokens), _unit(embed), kept(crops.features), None if crops.mask is None else kept(crops.mask)
    )


def look_at_boxes(model: Encoder, pictures: Sequence[np.ndarray], boxes: Sequence[Sequence[Box]]) -> ImageEncoding:
    """The parts of pictures that lie in boxes, one after another."""
    fill = model.preprocess.mean
    cut = [crop_region(one, Region(box), fill)[0] for one, some in zip(pictures, boxes, strict=True) for box in some]
    return model.encode_pixels(np.stack([model.preprocess(np.ascontiguousarray(crop)) for crop in cut]))


def _likeness(model: Encoder, image: ImageEncoding, whole: ImageEncoding) -> Float[np.ndarray, "B P"]:
    """The cosine of each patch, through the projection of the pooled feature, with the whole picture's embedding."""
    patches = image.tokens.shape[1]
    each = np.broadcast_to(np.eye(patches, dtype=np.float32), (len(image.tokens), patches, patches))
    return _of_real(np.einsum("bpd,bd->bp", model.encode_region_rows(image, each), whole.embed), image)


def _oddness(model: Encoder, image: ImageEncoding, whole: ImageEncoding) -> Float[np.ndarray, "B P"]:
    """How unlike each patch's feature is to the mean of the whole picture's."""
    del model
    there = True if whole.mask is None else whole.mask[..., None]
    mean = _unit(_unit(np.asarray(whole.features, np.float32)).mean(axis=1, where=there))
    return _of_real(-np.einsum("bpw,bw->bp", _unit(np.asarray(image.features, np.float32)), mean), image)


_CHOICES = {"likeness": _likeness, "oddness": _oddness}
BY = tuple(_CHOICES)


def _of_real(scores: Float[np.ndarray, "B P"], image: ImageEncoding) -> Float[np.ndarray, "B P"]:
    """Of pads the least."""
    return scores if image.mask is None else np.where(image.mask, scores, -np.inf)


def joined(found: Sequence[ImageEncoding]) -> ImageEncoding:
    """Tokens and features one after another, and the mean embedding."""
    masks = [one.mask for one in found if one.mask is not None]
    return ImageEncoding(
        np.concatenate([one.tokens for one in found], axis=1),
        _unit(np.mean([one.embed for one in found], axis=0)),
        np.concatenate([one.features for one in found], axis=1),
        np.concatenate(masks, axis=1) if masks else None,
    )


def _unit(x: Float[np.ndarray, "... D"]) -> Float[np.ndarray, "... D"]:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
