"""Masks that another model proposes, and the class of each: by the crop, by the proposer, and by both (OVSeg)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vlc.data.frame import cover_of_mask
from vlc.data.masks import Mask
from vlc.data.regions import Region
from vlc.errors import ConfigError, DataError
from vlc.inference import Model
from vlc.inference.regions import encode_crops
from vlc.storage import local_copy


@dataclass(frozen=True)
class Proposal:
    """A mask.

    Attributes:
        mask: Its pixels.
        score: How sure the proposer is that it is something.
        classes: What it takes it for, a probability for each class; empty where it does not say.
    """

    mask: Mask
    score: float = 1.0
    classes: tuple[float, ...] = ()


def read_proposals(path: str | Path, classes: int) -> dict[str, list[Proposal]]:
    """Proposals by the stem of their picture's file name.

    Args:
        path: A JSON list of `{"image": NAME, "segmentation": RLE, "score": S, "scores": [...]}`, as COCO's results are
            (`image`, `file_name` or `image_id`); `score` and the class probabilities `scores` may be left out.
        classes: How many there are.

    Raises:
        DataError: It cannot be read, or an entry is none; the first is named.
    """
    try:
        entries = json.loads(local_copy(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable JSON ({error}).") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: a list of proposals is meant, each with an image and a segmentation.")
    found: dict[str, list[Proposal]] = {}
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        if not isinstance(entry, Mapping) or "segmentation" not in entry:
            raise DataError(f'{where}: a proposal is {{"image": NAME, "segmentation": RLE}}, got {entry!r:.60}.')
        name = next((str(entry[key]) for key in ("image", "file_name", "image_id") if key in entry), "")
        if not name:
            raise DataError(f"{where}: it names no image (image, file_name or image_id).")
        scores = entry.get("scores", ())
        if scores and len(scores) != classes:
            raise DataError(f"{where}: it has {len(scores)} scores, and there are {classes} classes.")
        mask = Mask.read(entry["segmentation"], where)
        if mask.area:
            proposal = Proposal(mask, float(entry.get("score", 1.0)), tuple(map(float, scores)))
            found.setdefault(Path(name).stem, []).append(proposal)
    return found


def check_ensemble(model: Model, share: float) -> None:
    """Raises `ConfigError` where the share of the crop's opinion is none, or embeddings were not trained."""
    if not 0 <= share <= 1:
        raise ConfigError(f"--ensemble is {share:g}; the crop's share of the opinion is 0 to 1 (OVSeg: 0.7).")
    if "embed" not in model.compares:
        raise ConfigError("Crops are told by their embeddings, and no loss ever saw those of this model.")


def pixel_scores(
    model: Model, picture: np.ndarray, proposals: Sequence[Proposal], prompts: Float[np.ndarray, "classes D"],
    share: float, where: str,
) -> Float[np.ndarray, "H W classes"]:  # fmt: skip
    """Scores of every pixel: the sum, over the masks that it is in, of their class probabilities times their scores.

    `p = p_mask^(1 - share) p_crop^share`, normalised (OVSeg, Liang et al., CVPR 2023, arXiv 2210.04150, section 3.3).
    `p_crop` is the softmax of the masked crop's similarities, times the learned scale; `p_mask` what the proposer says,
    or, where it says nothing, the same of the patches of the whole picture that the mask covers. Where no mask is,
    there are zeros.

    Raises:
        DataError: A mask is of another size than the picture.
    """
    height, width = picture.shape[:2]
    for one in proposals:
        if (one.mask.height, one.mask.width) != (height, width):
            raise DataError(f"{where}: a mask is {one.mask.width} x {one.mask.height}, the picture {width} x {height}.")
    scores = np.zeros((height, width, len(prompts)), np.float32)
    if not proposals:
        return scores
    regions = [Region(one.mask.box, one.mask) for one in proposals]
    by_crop = _probabilities(model, encode_crops(model, [picture], [regions]).embed, prompts)
    by_mask = _of_masks(model, picture, proposals, prompts)
    both = by_mask ** (1 - share) * by_crop**share
    both /= both.sum(axis=1, keepdims=True)
    for one, classes in zip(proposals, both, strict=True):
        scores[one.mask.pixels()] += one.score * classes
    return scores


def _of_masks(
    model: Model, picture: np.ndarray, proposals: Sequence[Proposal], prompts: Float[np.ndarray, "classes D"]
) -> Float[np.ndarray, "N classes"]:
    """What the proposer takes each mask for, else what the patches of the whole picture say."""
    if all(one.classes for one in proposals):
        return np.array([one.classes for one in proposals], np.float64).clip(1e-12)
    pixels, frame = model.preprocess.squashed().framed(picture)
    grid = model.grid_of(pixels)
    cover = np.stack([cover_of_mask(one.mask.pixels(), frame, *grid) for one in proposals]).astype(np.float32)
    embed = model.encode_region_rows(model.encode_pixels(pixels[None]), cover[None])[0]
    found = _probabilities(model, embed, prompts)
    told: Any = [one.classes or row for one, row in zip(proposals, found, strict=True)]
    return np.array(told, np.float64).clip(1e-12)


def _probabilities(
    model: Model, embed: Float[np.ndarray, "N D"], prompts: Float[np.ndarray, "classes D"]
) -> Float[np.ndarray, "N classes"]:
    logits = float(model.scales.logit_scale) * embed.astype(np.float64) @ prompts.T
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (share / share.sum(axis=1, keepdims=True)).clip(1e-12)
