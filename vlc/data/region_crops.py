"""Crops of regions as pictures of their own, without what is outside of a mask (OVSeg, arXiv 2210.04150)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vlc.data.decoding import decode_pixels
from vlc.data.images import Preprocess
from vlc.data.masks import Mask
from vlc.data.record import Record, group_captions
from vlc.data.region_choice import RegionChoice
from vlc.data.regions import Region
from vlc.errors import DataError


def crop_region(
    pixels: np.ndarray, region: Region, fill: Sequence[float], where: str = "image"
) -> tuple[np.ndarray, Mask]:
    """The part of a picture within a region's box, and the pixels of it that are the region's.

    What is outside of the mask becomes `fill`, a colour as shares of 1; a region without a mask is all of its box.

    Raises:
        DataError: The mask is of another size than the picture.
    """
    height, width = pixels.shape[:2]
    left, top = int(np.floor(region.box[0] * width)), int(np.floor(region.box[1] * height))
    right = max(left + 1, int(np.ceil(region.box[2] * width)))
    bottom = max(top + 1, int(np.ceil(region.box[3] * height)))
    crop = pixels[top:bottom, left:right]
    if region.mask is None:
        return crop, Mask.of(np.ones(crop.shape[:2], bool))
    if (region.mask.height, region.mask.width) != (height, width):
        raise DataError(
            f"{where}: a mask is {region.mask.width} x {region.mask.height}, and the picture {width} x {height}.",
            "region",
        )
    inside = region.mask.pixels()[top:bottom, left:right]
    colour = np.round(np.asarray(fill) * 255).astype(np.uint8)
    return np.where(inside[..., None], crop, colour), Mask.of(inside)


def draw_crop(record: Record, choice: RegionChoice, preprocess: Preprocess, rng: np.random.Generator) -> Record:
    """A record of one of the regions that have a text: its crop, its texts, and what of the crop is the region's.

    Raises:
        DataError: No region has a text.
    """
    told = [(region, texts) for region in record.regions if (texts := choice.texts_of(region))]
    if not told:
        raise DataError(f"{record.key}: no region with a text.", "region")
    region, texts = told[int(rng.integers(len(told)))]
    pixels = record.image
    if isinstance(pixels, bytes):
        pixels = decode_pixels(pixels, where=record.key, convert=preprocess.convert)
    crop, mask = crop_region(pixels, region, preprocess.mean, record.key)
    whole = Region((0.0, 0.0, 1.0, 1.0), mask, region.captions, region.label)
    return replace(
        record, image=np.ascontiguousarray(crop), captions=group_captions(texts), regions=(whole,), graph=(), scores={},
        negatives={},
    )  # fmt: skip
