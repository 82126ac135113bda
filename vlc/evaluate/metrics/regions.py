"""Figures about regions: classes, attributes and texts of given boxes, and boxes that were found."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from vlc.data.boxes import box_iou

_LEVELS = np.linspace(0, 1, 101)  # of recall, as COCO has them


def average_precision(scores: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], positives: int) -> float:
    """COCO's average precision: the mean, over 101 levels of recall, of the best precision at that recall or above.

    Those of equal scores are counted in the order in which they stand, as COCO does.

    Args:
        scores: Of what was found.
        right: Whether each is right.
        positives: How many there are to be found.

    Returns:
        NaN where there are none.
    """
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="mergesort")
    hits = np.cumsum(right[order])
    precision = hits / np.arange(1, len(hits) + 1)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)  # 0 of a recall that is never reached
    place = np.searchsorted(hits / positives, _LEVELS, side="left")
    return float(best[place].mean())


def given_boxes_map(scores: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> float:
    """Mean average precision of classes that occur, of boxes that are given: each box is found once for every class.

    That is COCO's AP with the true boxes as detections (RegionCLIP, arXiv 2112.09106; FlexCap, arXiv 2403.12026).
    """
    present = np.unique(labels)
    found = [average_precision(scores[:, c], labels == c, int((labels == c).sum())) for c in present]
    return float(np.mean(found))


def labelled_ap(scores: Float[np.ndarray, "N A"], labels: Int[np.ndarray, "N A"]) -> dict[int, float]:
    """Average precision of each attribute over the regions of which it is known (OVAD, VAW: 1 has it, 0 has it not, -1
    is not known), of attributes that some region has and some has not.

    It is scikit-learn's `average_precision_score`, as both data sets are evaluated by: `sum of (R_n - R_(n-1)) P_n`
    over different scores.
    """
    found = {}
    for column in range(labels.shape[1]):
        known = labels[:, column] >= 0
        truth, score = labels[known, column] == 1, scores[known, column]
        if truth.any() and not truth.all():
            found[column] = _step_ap(score, truth)
    return found


def _step_ap(scores: Float[np.ndarray, " N"], truth: Bool[np.ndarray, " N"]) -> float:
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # equal scores are one step
    hits = np.cumsum(truth[order])[ends]
    precision, recall = hits / (ends + 1), hits / truth.sum()
    return float((np.diff(recall, prepend=0) * precision).sum())


def r_precision(scores: Float[np.ndarray, "Q N"], relevant: Bool[np.ndarray, "Q N"]) -> Float[np.ndarray, " Q"]:
    """Of each query the share of relevant regions among its first R, where R of them are relevant (ViLLA).

    Of equal scores the irrelevant ones come first.
    """
    count = relevant.sum(axis=1)
    order = np.lexsort((relevant, -scores), axis=1)
    ranked = np.take_along_axis(relevant, order, axis=1)
    first = np.arange(scores.shape[1]) < count[:, None]
    return (ranked & first).sum(axis=1) / np.maximum(count, 1)


def box_recall(found: Sequence[np.ndarray], truth: Sequence[np.ndarray], least: float = 0.5) -> float:
    """Share of true boxes that are matched, one to one and the best pairs first, by a found box of this IoU."""
    hits = total = 0
    for boxes, true in zip(found, truth, strict=True):
        pairs = np.asarray(boxes).reshape(-1, 1, 4), np.asarray(true).reshape(1, -1, 4)
        iou, total = box_iou(*pairs)[0], total + len(true)
        while iou.size and iou.max() >= least:
            i, j = np.unravel_index(iou.argmax(), iou.shape)
            iou[i], iou[:, j] = -1, -1
            hits += 1
    return hits / max(total, 1)


def patch_cover(masks: np.ndarray, grid: int) -> np.ndarray:
    """The share of each patch that each mask covers, `[objects, grid, grid]`."""
    objects, side, _ = masks.shape
    patch = side // grid
    return masks.reshape(objects, grid, patch, grid, patch).mean(axis=(2, 4))
