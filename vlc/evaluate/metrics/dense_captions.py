"""Dense captioning: boxes that are found and what is said of them, both at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vlc.data.boxes import box_iou
from vlc.evaluate.metrics.regions import average_precision

OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)
SCORES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
_SAME = 0.7  # IoU of true boxes that are one
# Captions and the references of each to the score of each.
TextScore = Callable[[Sequence[str], Sequence[Sequence[str]]], Float[np.ndarray, " N"]]


@dataclass(frozen=True)
class Said:
    """Boxes of a picture, with texts.

    Attributes:
        boxes: As shares.
        texts: Of each.
        scores: How sure each is; of the truth none.
    """

    boxes: Float[np.ndarray, "N 4"]
    texts: Sequence[str]
    scores: Sequence[float] = ()


@dataclass(frozen=True)
class _Matched:
    score: float
    overlap: float
    first: bool  # no surer box has the same true one
    text: str
    references: Sequence[str]


def dense_caption_map(found: Sequence[Said], truth: Sequence[Said], text_score: TextScore) -> dict[str, float]:
    """Visual Genome's measure of dense captions (Johnson et al., CVPR 2016, arXiv 1511.07571, section 4.2).

    True boxes whose IoU is 0.7 or more are one, with all of their texts. Each box that is found, the surest first, is
    held against the true one that it covers best; a second box for the same is wrong. It is right where the IoU is at
    least, and the text's score above, a threshold; average precision (101 levels of recall) is averaged over all pairs
    of `OVERLAPS` and `SCORES`. As in the published code, a box takes its true one at whatever IoU; that code counts
    pixels from edge to edge inclusive, which shares have not.

    Args:
        found: Of each picture.
        truth: Likewise, without scores.
        text_score: METEOR, in the paper.

    Returns:
        `map`, and `detection_map` of the boxes alone.
    """
    records, positives = [], 0
    for boxes, true in zip(found, truth, strict=True):
        groups = merge_boxes(true.boxes)
        positives += len(groups)
        records += _matched(boxes, true, groups)
    texts = text_score([one.text for one in records], [one.references for one in records])
    sure = np.array([one.score for one in records])
    overlap = np.array([one.overlap if one.first else -1.0 for one in records])

    def precision(least: float, score: float) -> float:
        return average_precision(sure, (overlap >= least) & (texts > score), positives)

    both = [precision(least, score) for least in OVERLAPS for score in SCORES]
    return {
        "map": float(np.mean(both)),
        "detection_map": float(np.mean([precision(least, -1) for least in OVERLAPS])),
    }


def merge_boxes(boxes: Float[np.ndarray, "N 4"], least: float = _SAME) -> list[np.ndarray]:
    """Groups of boxes that are one: the box with most others of this IoU, and those; then the same of the rest."""
    if not len(boxes):
        return []
    alike = box_iou(boxes[:, None], boxes[None])[0] >= least
    groups = []
    while alike.any():
        group = np.flatnonzero(alike[alike.sum(axis=1).argmax()])
        groups.append(group)
        alike[group], alike[:, group] = False, False
    return groups


def _matched(found: Said, truth: Said, groups: Sequence[np.ndarray]) -> list[_Matched]:
    true = np.array([truth.boxes[group].mean(axis=0) for group in groups]).reshape(-1, 4)
    taken, records = set(), []
    for i in np.argsort(-np.asarray(found.scores, np.float64), kind="stable").tolist():
        overlaps = box_iou(found.boxes[i], true)[0] if len(true) else np.zeros(1)
        best = int(overlaps.argmax())
        references = [truth.texts[int(k)] for k in groups[best]] if overlaps[best] > 0 else []
        first = bool(references) and best not in taken
        taken |= {best} if references else set()
        records.append(_Matched(found.scores[i], float(overlaps[best]), first, found.texts[i], references))
    return records
