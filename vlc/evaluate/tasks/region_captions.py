"""`vlc eval --task region_captions`: what is said of given regions, and of those that the model finds itself."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vlc.data.captions import of_sources
from vlc.data.regions import Region
from vlc.errors import ConfigError, DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.dense_captions import Said, dense_caption_map
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.metrics.reference_based import meteor_scores, reference_figures
from vlc.evaluate.report.figures import DrawnRegion, contact_sheet
from vlc.evaluate.report.page import Report
from vlc.evaluate.tasks.base import Options, Outcome, left_out_text
from vlc.evaluate.tasks.region_data import RegionData, Seen, see_regions
from vlc.inference import Model
from vlc.inference.captioning import Caption, CaptionRequest
from vlc.inference.region_captions import caption_regions, dense_captions

_DRAWN = 8  # images, and regions of each


@dataclass
class _Found:
    """What is gathered, an image after another."""

    written: list[str] = field(default_factory=list)
    references: list[list[str]] = field(default_factory=list)
    own: list[list[bool]] = field(default_factory=list)  # whether each caption finds its region
    chance: list[float] = field(default_factory=list)
    equal: list[bool] = field(default_factory=list)
    truth: list[Said] = field(default_factory=list)
    given: list[Said] = field(default_factory=list)
    dense: list[Said] = field(default_factory=list)
    drawn: list[tuple[np.ndarray, list[DrawnRegion]]] = field(default_factory=list)


def run_region_captions(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # captions find regions by embeddings, where the model compares those
    model, spec = cache.model, options.path(task)
    data, found = RegionData(model, spec, options), _Found()
    request = replace(options.request, guidance_scale=options.scales[0])
    for part in data.parts():
        told = [[region for region in regions if texts_of(region, options.references)] for _, regions in part]
        kept = [(image, some) for (image, _), some in zip(part, told, strict=True) if some]
        if kept:
            seen = see_regions(model, [image for image, _ in kept], [some for _, some in kept])
            data.leave_out(seen.outside)
            _gather(found, model, [image for image, _ in kept], seen, options, request)
    if not found.written:
        raise DataError(
            f"{spec}: no region has a caption" + (f" of {options.references}." if options.references else ".")
        )
    figures, notes = _figures(found)
    figures |= {"images": len(found.truth), "regions": len(found.written), "skipped": data.skipped}
    rows = [("", name, value) for name, value in figures.items() if isinstance(value, float)]
    note = (
        f"{len(found.written):,} regions of {len(found.truth):,} images{left_out_text(data.skipped)}. unique: the "
        "share of captions that are more like their own region than like any other of the image; equal: of those that "
        "another region of the image has as well. map: of boxes and texts (IoU x METEOR), of those that the model "
        f"finds; map_given: of the given boxes. {' '.join(notes)}"
    )

    def draw(report: Report) -> None:
        report.figure(
            f"{task}: what is said of given regions", "Each in the colour of its number.",
            contact_sheet([one for one, _ in found.drawn], [""] * len(found.drawn),
                          regions=[some for _, some in found.drawn]),
        )  # fmt: skip

    return Outcome(figures, rows, note, draw)


def texts_of(region: Region, sources: str) -> list[str]:
    """The captions of a region of these sources (with commas, names may end in `*`; empty: all), else its class."""
    texts = list(of_sources(region.captions, sources))
    return texts or ([region.label] if region.label and not sources else [])


def _gather(
    found: _Found, model: Model, images: Sequence[Any], seen: Seen, options: Options, request: CaptionRequest
) -> None:
    """Captions of the regions of some images."""
    owned = [[seen.told[row] for row in np.flatnonzero(seen.owner == number)] for number in range(len(images))]
    boxes = [[region.box for region in some] for some in owned]
    written = caption_regions(model, images, request, boxes=boxes, unique=options.unique)
    embeds = iter(model.encode_text([one.text for some in written for one in some]).embed) if _compares(model) else None
    for number, (some, captions) in enumerate(zip(owned, written, strict=True)):
        texts = [one.text for one in captions]
        references = [texts_of(region, options.references) for region in some]
        found.written += texts
        found.references += references
        found.equal += [texts.count(text) > 1 for text in texts]
        rows = np.flatnonzero(seen.owner == number)
        if embeds is not None:
            vectors = np.array([next(embeds) for _ in texts]).reshape(len(texts), -1)
            _ask_for_own(found, seen.regions.embed[rows] @ vectors.T)
        corners = np.array(boxes[number], np.float64).reshape(-1, 4)
        found.given.append(Said(corners, texts, [_sure(one) for one in captions]))
        owner = [i for i, said in enumerate(references) for _ in said]
        found.truth.append(Said(corners[owner].reshape(-1, 4), [text for said in references for text in said]))
        if len(found.drawn) < _DRAWN:
            found.drawn.append((seen.pictures[number], _drawn(model, seen, number, texts)))
    if model.config.model.regions.queries and _compares(model):
        for some in dense_captions(model, images, request, least=0.0, overlap=0.7):
            corners = np.array([one.box for one in some], np.float64).reshape(-1, 4)
            found.dense.append(Said(corners, [one.text for one in some], [one.score for one in some]))


def _compares(model: Model) -> bool:
    return "embed" in model.compares


def _sure(caption: Caption) -> float:
    """The mean log-probability of its tokens."""
    return caption.log_prob / max(caption.tokens, 1)


def _ask_for_own(found: _Found, scores: np.ndarray) -> None:
    """Whether each caption is more like its own region than like any other, of the scores `[regions, captions]`."""
    others = np.where(np.eye(len(scores), dtype=bool), -np.inf, scores)
    if len(scores) > 1:
        found.own.append((np.diagonal(scores) > others.max(axis=0)).tolist())
        found.chance += [1 / len(scores)] * len(scores)


def _drawn(model: Model, seen: Seen, number: int, texts: Sequence[str]) -> list[DrawnRegion]:
    patch, shape = model.config.model.image.patch, seen.pictures[number].shape
    grid = shape[0] // patch, shape[1] // patch
    rows = np.flatnonzero(seen.owner == number)[:_DRAWN]
    return [
        DrawnRegion(seen.boxes[row], seen.cover[row, : grid[0] * grid[1]].reshape(grid), text)
        for row, text in zip(rows, texts, strict=False)
    ]


def _figures(found: _Found) -> tuple[dict[str, Any], list[str]]:
    """All figures, and what to know of them."""
    made: dict[str, Any] = {"equal": float(np.mean(found.equal))}
    if found.own:
        figure = Figure.ratio([sum(some) for some in found.own], [len(some) for some in found.own])
        made |= {"unique": figure.value, "unique_interval": interval(figure, len(found.own))}
        made["unique_chance"] = float(np.mean(found.chance))
    try:
        against, notes = reference_figures(found.written, found.references)
    except ConfigError as error:
        return made, [str(error)]
    made |= {name: figure.value for name, figure in against.items()}
    meteor = meteor_scores(found.written[:1], found.references[:1])
    if isinstance(meteor, str):
        return made, [f"map is left out: {meteor}"]
    made["map_given"] = dense_caption_map(found.given, found.truth, meteor_of)["map"]
    if found.dense:
        made |= dense_caption_map(found.dense, found.truth, meteor_of)
    return made, [f"Words cut by {notes['words']}."]


def meteor_of(captions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """METEOR of each caption.

    Raises:
        ConfigError: It cannot be had here.
    """
    scores = meteor_scores(captions, references)
    if isinstance(scores, str):
        raise ConfigError(scores)
    return scores
