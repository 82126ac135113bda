"""Captioned data whose images have regions, as tasks about given regions read it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import batched
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vlc.data.frame import cover_of_mask, visible_share
from vlc.data.regions import Region
from vlc.errors import DataError
from vlc.evaluate.tasks.base import Options, open_captioned
from vlc.inference import Model
from vlc.inference.image_inputs import picture_of
from vlc.inference.region_inputs import named_regions
from vlc.inference.regions import encode_crops
from vlc.models import ImageEncoding

_IMAGES = 64  # encoded at once


@dataclass(frozen=True)
class Seen:
    """Some images with their regions.

    Attributes:
        image: The images.
        regions: Their regions as images of their own: tokens of the patches that a region covers, and its embedding.
        owner: The image of each region.
        cover: The share of each patch that each region covers.
        told: What is known of each region.
        pictures: What the model sees of the images.
        boxes: Of the regions, as shares of that.
        outside: Regions that are left out, since the model sees nothing of them.
    """

    image: ImageEncoding
    regions: ImageEncoding
    owner: Int[np.ndarray, " N"]
    cover: Float[np.ndarray, "N P"]
    told: list[Region]
    pictures: list[np.ndarray]
    boxes: Float[np.ndarray, "N 4"]
    outside: int


def see_regions(
    model: Model, images: Sequence[Any], regions: Sequence[Sequence[Region]], *, crops: bool = False
) -> Seen:
    """Encodes images with their regions; those with a mask are that, others their box.

    Args:
        model: The model.
        images: Encoded, or their pixels.
        regions: Of each.
        crops: Whether regions are looked at as pictures of their own.

    Raises:
        ConfigError: The model has no patches.
        DataError: An image is damaged.
    """
    model.check_patches()
    framed = [model.preprocess.framed(image) for image in images]
    pixels, frames = np.stack([one for one, _ in framed]), [frame for _, frame in framed]
    given = sum(map(len, regions))
    regions = [
        [one for one in some if visible_share(frame.boxes([one.box]))[0] > 0]
        for frame, some in zip(frames, regions, strict=True)
    ]
    grids = [model.grid_of(one) for one in pixels]
    image = model.encode_pixels(pixels)
    places = named_regions(frames, grids, model.grid**2, boxes=[[one.box for one in some] for some in regions])
    cover = places.cover
    for row, one in enumerate(region for some in regions for region in some):
        if one.mask is not None:
            number = int(places.owner[row])
            drawn = cover_of_mask(one.mask.pixels(), frames[number], *grids[number])
            cover[row, : len(drawn)] = drawn if drawn.any() else cover[row, : len(drawn)]
    told = [region for some in regions for region in some]
    shown = [model.preprocess.picture(one) for one in pixels]
    if crops:
        pictures = [picture_of(image, model.preprocess, f"image {i}") for i, image in enumerate(images)]
        crops_of = encode_crops(model, pictures, regions)
        return Seen(image, crops_of, places.owner, cover, told, shown, places.boxes, given - len(told))
    rows, place = places.rows(len(images))
    embed = model.encode_region_rows(image, rows)[places.owner, place] if len(cover) else image.embed[:0]
    inside = cover >= 0.5 * cover.max(axis=1, keepdims=True, initial=0)
    tokens = np.where(inside[..., None] & (cover[..., None] > 0), image.tokens[places.owner], 0)
    seen = ImageEncoding(tokens, embed, image.features[places.owner])
    return Seen(image, seen, places.owner, cover, told, shown, places.boxes, given - len(told))


class RegionData:
    """Images of a source that have regions, and what is known of all of them."""

    def __init__(self, model: Model, spec: str, options: Options):
        self._model = model
        self._source = open_captioned(model, spec, options)
        count = min(options.examples or len(self._source), len(self._source))
        self._crops = options.crops
        self._places = [index * len(self._source) // count for index in range(count)]
        self.skipped: dict[str, int] = dict(self._source.skipped)
        labels, attributes = dict[str, None](), dict[str, None]()
        kept = []
        for place in self._places:
            _, regions = self._regions(place)
            kept += [place] if regions else []
            for region in regions:
                labels |= {region.label: None} if region.label else {}
                attributes |= dict.fromkeys((*region.attributes, *region.absent))
        self._places = kept  # those that can be read and have regions
        self.labels, self.attributes = sorted(labels), sorted(attributes)

    def _regions(self, place: int) -> tuple[Any, list[Region]]:
        try:
            record = self._source[place]
        except DataError as error:
            self.skipped[error.reason] = self.skipped.get(error.reason, 0) + 1
            return None, []
        return record.image, [region for region in record.regions if region.kind in ("", "entity")]

    def parts(self) -> Iterator[list[tuple[Any, list[Region]]]]:
        """All images with their regions, some at a time."""
        for places in batched(self._places, _IMAGES):
            yield [found for found in map(self._regions, places) if found[1]]

    def seen(self) -> Iterator[Seen]:
        """The same, encoded."""
        for part in self.parts():
            seen = see_regions(self._model, [one for one, _ in part], [some for _, some in part], crops=self._crops)
            self.leave_out(seen.outside)
            yield seen

    def leave_out(self, regions: int) -> None:
        """Counts regions of which the model sees nothing."""
        if regions:
            self.skipped["outside"] = self.skipped.get("outside", 0) + regions
