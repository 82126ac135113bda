"""What a model does with regions of images: encodes them, captions them, and finds those that texts name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vlc.data.frame import Frame, cover_of_mask
from vlc.data.masks import Box
from vlc.data.places import read_box
from vlc.data.region_crops import crop_region
from vlc.data.regions import Region
from vlc.errors import ConfigError, DataError
from vlc.inference.captioning import CaptionRequest, generate_captions
from vlc.inference.encoder import Encoder
from vlc.inference.image_inputs import Images, image_chunks, is_one, picture_of, read_framed
from vlc.inference.region_inputs import Places, as_region, named_regions
from vlc.models import ImageEncoding


@dataclass(frozen=True)
class Detected:
    """What a query found.

    Attributes:
        text: The text that it chose.
        box: Left, top, right, bottom, as shares of the image.
        score: The share of its choice.
    """

    text: str
    box: Box
    score: float


def encode_regions(model: Encoder, images: Images, *, crop: bool = False, **regions: Any) -> Any:
    """See `Model.encode_regions`."""
    if crop:
        return _cropped(model, images, regions)
    return _by_image(model, images, model.encode_region_rows, regions)


def encode_crops(model: Encoder, pictures: Sequence[np.ndarray], regions: Sequence[Sequence[Region]]) -> ImageEncoding:
    """The crops of regions as pictures of their own, one after another; see `vlc.data.region_crops`.

    Args:
        model: The model; with mask prompts it is told which patches are a region's.
        pictures: All pixels of each.
        regions: Of each picture.
    """
    patch = model.config.model.image.patch
    pixels, inside = [], []
    for picture, some in zip(pictures, regions, strict=True):
        for region in some:
            crop, mask = crop_region(picture, region, model.preprocess.mean)
            seen, frame = model.preprocess.framed(np.ascontiguousarray(crop))
            pixels.append(seen)
            inside.append(cover_of_mask(mask.pixels(), frame, *model.preprocess.grid(seen, patch)) > 0)
    if not pixels:
        return model.encode_pixels(np.zeros((0, *model.preprocess.shape), np.uint8))
    return model.encode_masked(np.stack(pixels), np.stack(inside))


def attribute_scores(model: Encoder, images: Images, boxes: Any) -> Any:
    """See `Model.attribute_scores`."""
    if not model.config.model.regions.attributes:
        raise ConfigError("This model knows no attributes: it was trained with config.model.regions.attributes=0.")
    return _by_image(model, images, model.attribute_score_rows, {"boxes": boxes})


def _cropped(model: Encoder, images: Images, given: dict[str, Any]) -> Any:
    """Regions by their crops, of each image, of one image alone without a list."""
    one, done, found = is_one(images), 0, []
    kinds = [kind for kind, some in given.items() if some is not None]
    if kinds not in (["boxes"], ["masks"]):
        raise ConfigError("Crops are of boxes or of masks: name regions by one of them.")
    named = [given[kinds[0]]] if one else given[kinds[0]]
    for chunk in image_chunks(images, model.batch_size):
        pictures = [picture_of(image, model.preprocess, f"image {done + i}") for i, image in enumerate(chunk)]
        some = [
            [as_region(kinds[0], value, f"image {done + i}, region {place}") for place, value in enumerate(values)]
            for i, values in enumerate(named[done : done + len(chunk)])
        ]
        embeds = iter(encode_crops(model, pictures, some).embed)
        width = model.config.model.embed_dim
        found += [np.asarray([next(embeds) for _ in values], np.float32).reshape(-1, width) for values in some]
        done += len(chunk)
    return found[0] if one else found


def _by_image(model: Encoder, images: Images, compute: Callable[..., np.ndarray], regions: Any) -> Any:
    """What is computed of the regions of each image, of one image alone without a list."""
    found = []
    for image, places in encoded_with_places(model, images, **regions):
        cover, place = places.rows(len(image.embed))
        rows = compute(image, cover)
        found += [rows[number, place[places.owner == number]] for number in range(len(image.embed))]
    return found[0] if is_one(images) else found


def locate(model: Encoder, images: Images, texts: Sequence[str]) -> list[Box | None]:
    """See `Model.locate`."""
    bins = model.config.data.captions.places
    if not bins:
        raise ConfigError("This captioner has no words for places: it was trained with config.data.captions.places=0.")
    found: list[Box | None] = []
    for chunk in image_chunks(images, model.batch_size):
        some = texts[len(found) : len(found) + len(chunk)]
        if len(some) != len(chunk):
            raise DataError(f"locate: more images than texts ({len(texts)}); one text an image is meant.")
        pixels, frames = read_framed(chunk, model.preprocess, first=len(found))
        written = generate_captions(model, pixels, CaptionRequest(), prompts=some)
        for captions, frame in zip(written, frames, strict=True):
            box = read_box(captions[0].text, bins)
            left, top, right, bottom = frame.back(np.array([box or (0, 0, 1, 1)]))[0].tolist()
            found.append(None if box is None else (left, top, right, bottom))
    return found


def detect(model: Encoder, images: Images, texts: Sequence[str], least: float) -> list[list[Detected]]:
    """See `Model.detect`."""
    text, found = model.encode_text(texts).embed, []
    for chunk in image_chunks(images, model.batch_size):
        pixels, frames = read_framed(chunk, model.preprocess, first=len(found))
        seen = model.find_region_rows(model.encode_pixels(pixels))
        options = np.concatenate([text, model.absent_region[None]])
        logits = model.scales.logit_scale * np.asarray(seen.embed) @ options.T
        share = np.exp(logits - logits.max(axis=2, keepdims=True))
        share /= share.sum(axis=2, keepdims=True)
        rows = zip(np.asarray(seen.boxes), share[..., :-1], frames, strict=True)
        found += [_detected(boxes, shares, frame, texts, least) for boxes, shares, frame in rows]
    return found


def _detected(boxes: np.ndarray, share: np.ndarray, frame: Frame, texts: Sequence[str], least: float) -> list[Detected]:
    found = []
    for (left, top, right, bottom), shares in zip(frame.back(boxes).tolist(), share, strict=True):
        best = int(shares.argmax())
        found.append(Detected(texts[best], (left, top, right, bottom), float(shares[best])))
    return sorted((one for one in found if one.score >= least), key=lambda one: -one.score)


def encoded_with_places(
    model: Encoder, images: Images, *, boxes: Any = None, masks: Any = None, points: Any = None
) -> Iterator[tuple[ImageEncoding, Places]]:
    """Encoded images, a batch at a time, with the regions that a user named of them."""
    model.check_patches()
    given = {"boxes": boxes, "masks": masks, "points": points}
    if is_one(images):
        given = {kind: None if some is None else [some] for kind, some in given.items()}
    done = 0
    for chunk in image_chunks(images, model.batch_size):
        part = slice(done, done + len(chunk))
        pixels, frames = read_framed(chunk, model.preprocess, first=done)
        grids = [model.grid_of(one) for one in pixels]
        some = {kind: None if regions is None else regions[part] for kind, regions in given.items()}
        yield model.encode_pixels(pixels), named_regions(frames, grids, model.grid**2, **some, first=done)
        done += len(chunk)
