"""Ranks and recall, with ties counted against the model, in blocks of bounded memory."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

KS = (1, 5, 10)


class Block(NamedTuple):
    """Scores of some images with some texts.

    Attributes:
        images: Which rows of the whole these are.
        texts: Which columns.
        i2t: Scores that rank texts for an image.
        t2i: Scores that rank images for a text.
    """

    images: slice
    texts: slice
    i2t: Float[np.ndarray, "b n"]
    t2i: Float[np.ndarray, "b n"]


def ranks(scores: Float[np.ndarray, "Q G"], positives: Bool[np.ndarray, "Q G"]) -> Int[np.ndarray, " Q"]:
    """The rank, from 0, of each query's best positive.

    A wrong candidate with the same score stands before it, so a model that gives one score to all ranks last, not
    first. Scores that are not finite count as the lowest.
    """
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    best = np.where(positives, scores, -np.inf).max(axis=1, keepdims=True)
    return ((scores >= best) & ~positives).sum(axis=1)


def block_ranks(
    make_blocks: Callable[[], Iterable[Block]], owner: Int[np.ndarray, " N"], images: int
) -> tuple[Int[np.ndarray, " B"], Int[np.ndarray, " N"]]:
    """As `ranks`, both ways, without all scores at once: a first look finds the best of the right, a second counts.

    Args:
        make_blocks: Gives the same blocks each time it is called.
        owner: The image of each text.
        images: How many there are.

    Returns:
        For each image the rank of its best text, for each text that of its image.
    """
    best_text, own = np.full(images, -np.inf, np.float32), np.full(len(owner), -np.inf, np.float32)
    for block, belongs, i2t, t2i in _finite(make_blocks(), owner):
        best = np.where(belongs, i2t, -np.inf).max(axis=1)
        best_text[block.images] = np.maximum(best_text[block.images], best)
        own[block.texts] = np.maximum(own[block.texts], np.where(belongs, t2i, -np.inf).max(axis=0))
    image_rank, text_rank = np.zeros(images, np.int64), np.zeros(len(owner), np.int64)
    for block, belongs, i2t, t2i in _finite(make_blocks(), owner):
        image_rank[block.images] += ((i2t >= best_text[block.images, None]) & ~belongs).sum(axis=1)
        text_rank[block.texts] += ((t2i >= own[None, block.texts]) & ~belongs).sum(axis=0)
    return image_rank, text_rank


def _finite(blocks: Iterable[Block], owner: np.ndarray) -> Iterator[tuple[Block, np.ndarray, np.ndarray, np.ndarray]]:
    """Blocks with what belongs together in them; scores that are not finite count as the lowest."""
    for block in blocks:
        rows = np.arange(block.images.start, block.images.stop)
        belongs = owner[None, block.texts] == rows[:, None]
        i2t, t2i = (np.where(np.isfinite(scores), scores, -np.inf) for scores in (block.i2t, block.t2i))
        yield block, belongs, i2t, t2i


def recall(rank: Int[np.ndarray, " Q"], prefix: str) -> dict[str, float]:
    """R@1, R@5 and R@10 in [0, 1]."""
    return {f"{prefix}_r{k}": float((rank < k).mean()) for k in KS}
