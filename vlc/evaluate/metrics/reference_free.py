"""Captions without references: CLIPScore, self-retrieval, and how rich the language is."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from vlc.evaluate.metrics.intervals import Figure
from vlc.evaluate.metrics.ranking import KS, block_ranks
from vlc.evaluate.metrics.retrieval import embed_blocks

PREFIX = "A photo depicts "  # before every text that CLIPScore compares
WEIGHT = 2.5


def clip_figures(
    images: Float[np.ndarray, "N D"],
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    embed: Callable[[Sequence[str]], Float[np.ndarray, "M D"]],
) -> dict[str, Figure]:
    """CLIPScore and its kin, and whether a caption finds its image, by one dual encoder.

    `clip_s` = `2.5 max(cos(image, caption), 0)`; `ref_only` the best cosine of a caption with a reference; `ref_clip_s`
    the harmonic mean of both (Hessel et al., EMNLP 2021, arXiv 2104.08718, sections 3 and 4); `r1`, `r5`, `r10`: the
    caption's own image is among the first of all images, ties counted as wrong.

    Args:
        images: Embeddings of unit length.
        captions: One of each.
        references: Those of each.
        embed: Embeddings of texts, of unit length.
    """
    flat = [text for some in references for text in some]
    text = embed([PREFIX + caption for caption in captions])
    meant = embed([PREFIX + caption for caption in flat])
    owner = np.repeat(np.arange(len(captions)), [len(some) for some in references])
    score = WEIGHT * np.maximum(np.einsum("nd,nd->n", images, text), 0)
    best = np.full(len(captions), -np.inf)
    np.maximum.at(best, owner, np.einsum("md,md->m", text[owner], meant))
    near = np.maximum(best, 0)
    both = 2 * score * near / np.maximum(score + near, 1e-12)
    rank = block_ranks(lambda: embed_blocks(images, embed(list(captions))), np.arange(len(captions)), len(images))[1]
    return {
        "ref_only": Figure.mean(best),
        "clip_s": Figure.mean(score),
        **{f"r{k}": Figure.mean(rank < k) for k in KS},
        "ref_clip_s": Figure.mean(both),
    }


def language_figures(words: Sequence[Sequence[str]]) -> dict[str, Figure]:
    """How varied captions are.

    `words`: the mean length. `vocabulary`: different words in all captions. `distinct1`, `distinct2`: the share of
    different words, and pairs of neighbours, among all (Li et al., NAACL 2016). `different`: the share of different
    captions. Only the length has an interval: the others grow or shrink with the number of captions.

    Args:
        words: Of each caption.
    """

    def distinct(n: int) -> float:
        grams = [tuple(some[i : i + n]) for some in words for i in range(len(some) - n + 1)]
        return len(set(grams)) / max(len(grams), 1)

    return {
        "words": Figure.mean(np.asarray([len(some) for some in words])),
        "vocabulary": Figure(float(len({word for some in words for word in some}))),
        "distinct1": Figure(distinct(1)),
        "distinct2": Figure(distinct(2)),
        "different": Figure(len({tuple(some) for some in words}) / max(len(words), 1)),
    }
