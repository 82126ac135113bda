"""Ranks and recall, with ties counted against the model."""

import numpy as np
from jaxtyping import Bool, Float, Int

KS = (1, 5, 10)


def ranks(scores: Float[np.ndarray, "Q G"], positives: Bool[np.ndarray, "Q G"]) -> Int[np.ndarray, " Q"]:
    """The rank, from 0, of each query's best positive.

    A wrong candidate with the same score stands before it, so a model that gives one score to all ranks last, not
    first. Scores that are not finite count as the lowest.
    """
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    best = np.where(positives, scores, -np.inf).max(axis=1, keepdims=True)
    return ((scores >= best) & ~positives).sum(axis=1)


def recall(rank: Int[np.ndarray, " Q"], prefix: str) -> dict[str, float]:
    """R@1, R@5 and R@10 in [0, 1]."""
    return {f"{prefix}_r{k}": float((rank < k).mean()) for k in KS}
