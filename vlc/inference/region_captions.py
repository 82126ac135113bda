"""Captions of regions of images: of those that a user names, and of those that the model's queries find."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from vlc.data.boxes import box_iou
from vlc.errors import ConfigError
from vlc.inference.captioning import Caption, CaptionRequest, generate_captions
from vlc.inference.comparison import compared_by
from vlc.inference.encoder import Encoder
from vlc.inference.image_inputs import Images, image_chunks, read_framed
from vlc.inference.region_inputs import Places, named_regions
from vlc.inference.regions import Detected, encoded_with_places
from vlc.models import ImageEncoding

_SIDE = 1e-3  # of a picture, which a box that is one has at least


def caption_regions(
    model: Encoder, images: Images, request: CaptionRequest, *, unique: bool = False, **regions: Any
) -> list[list[Caption]]:
    """A caption of each region of each image; see `Model.caption`."""
    if unique:
        _check_unique(model, request)
    found = []
    for image, places in encoded_with_places(model, images, **regions):
        written = _write(model, image, places, request)
        found += _unique(model, image, places, written) if unique else [[c[0] for c in some] for some in written]
    return found


def dense_captions(
    model: Encoder, images: Images, request: CaptionRequest, *, least: float, overlap: float
) -> list[list[Detected]]:
    """See `Model.dense_captions`."""
    compared_by(model, "embed")
    found: list[list[Detected]] = []
    for chunk in image_chunks(images, model.batch_size):
        pixels, frames = read_framed(chunk, model.preprocess, first=len(found))
        image, grids = model.encode_pixels(pixels), [model.grid_of(one) for one in pixels]
        seen = model.find_region_rows(image)
        boxes = np.asarray(seen.boxes).clip(0, 1)
        whole = [frame.back(some) for frame, some in zip(frames, boxes, strict=True)]
        kept = [np.flatnonzero((some[:, 2:] - some[:, :2] > _SIDE).all(axis=1)) for some in whole]
        named = [some[rows].tolist() for some, rows in zip(whole, kept, strict=True)]
        places = named_regions(frames, grids, model.grid**2, boxes=named, first=len(found))
        written = _write(model, image, places, request)
        texts = iter(model.encode_text([captions[0].text for some in written for captions in some]).embed)
        for number, (some, captions) in enumerate(zip(named, written, strict=True)):
            queries = np.asarray(seen.embed)[number, kept[number]]
            own = np.array([query @ next(texts) for query in queries])
            margin = model.scales.logit_scale * (own - queries @ model.absent_region)
            scores = 1 / (1 + np.exp(-margin))
            rows = [row for row in _apart(np.array(some).reshape(-1, 4), scores, overlap) if scores[row] >= least]
            found.append([Detected(captions[row][0].text, tuple(some[row]), float(scores[row])) for row in rows])
    return found


def _apart(boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, " N"], overlap: float) -> list[int]:
    """The boxes, the surest first, without those that overlap a surer one."""
    kept: list[int] = []
    for row in np.argsort(-scores, kind="stable"):
        if not kept or box_iou(boxes[row], boxes[kept])[0].max() <= overlap:
            kept.append(int(row))
    return kept


def _write(model: Encoder, image: ImageEncoding, places: Places, request: CaptionRequest) -> list[list[list[Caption]]]:
    """The captions of each region of each image, one or several."""
    if not len(places.owner):
        return [[] for _ in image.embed]
    rows = jax.tree.map(lambda x: x[places.owner], image)
    written = generate_captions(model, rows, request, regions=places)
    found: list[list[list[Caption]]] = [[] for _ in image.embed]
    for owner, captions in zip(places.owner, written, strict=True):
        found[owner].append(captions)
    return found


def _check_unique(model: Encoder, request: CaptionRequest) -> None:
    compared_by(model, "embed")
    if request.decoding.num_return_sequences < 2:
        raise ConfigError(
            "unique=True chooses among several captions of a region: ask for them, with num_return_sequences=5 and "
            "num_beams=5 or temperature=1."
        )


def _unique(
    model: Encoder, image: ImageEncoding, places: Places, written: Sequence[Sequence[Sequence[Caption]]]
) -> list[list[Caption]]:
    """Of the captions of each region the one by which it is found among those of its image, each one only once.

    A caption `c` of region `n` has the score `s <r_n, c> - log sum over m of exp s <r_m, c>`; the region whose choice
    is clearest chooses first.
    """
    cover, place = places.rows(len(image.embed))
    regions = model.encode_region_rows(image, cover)
    texts = iter(model.encode_text([one.text for some in written for captions in some for one in captions]).embed)
    found = []
    for number, some in enumerate(written):
        vectors = regions[number, place[places.owner == number]]
        scored = []
        for own, captions in enumerate(some):
            logits = model.scales.logit_scale * np.array([next(texts) for _ in captions]) @ vectors.T  # [S, R]
            top = logits.max(axis=1)
            share = logits[:, own] - top - np.log(np.exp(logits - top[:, None]).sum(axis=1))
            scored.append([replace(one, score=float(s)) for one, s in zip(captions, share, strict=True)])
        found.append(_once_each(scored))
    return found


def _once_each(scored: Sequence[Sequence[Caption]]) -> list[Caption]:
    """The best caption of each region that no other has taken; its best where all are."""
    best = [max(one.score for one in some) for some in scored]
    chosen: dict[int, Caption] = {}
    for region in np.argsort(-np.array(best), kind="stable"):
        order, taken = sorted(scored[region], key=lambda one: -one.score), {one.text for one in chosen.values()}
        chosen[int(region)] = next((one for one in order if one.text not in taken), order[0])
    return [chosen[region] for region in range(len(scored))]
