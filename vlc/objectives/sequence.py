"""Parts of a picture and sentences about it, of which nobody says which belongs to which, or whether it belongs at all.

Norton (Lin et al., ICLR 2024, arXiv 2401.16702): the score of a video and a paragraph is that of the best plan of their
clips and sentences, by optimal transport; a bucket takes what has no partner. Here the clips are regions of a picture,
and the sentences what is said of them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.contrastive import cross_entropy_of_pairs
from vlc.settings import integer, number


def realigned(
    scores: Float[Array, "R T"],
    rows: Float[Array, " R"],
    columns: Float[Array, " T"],
    bucket: Float[Array, ""] | float | None,
    *,
    smoothness: float = 0.1,
    iterations: int = 50,
) -> Float[Array, "R T"]:
    """The plan `Q` that moves equal shares of the rows to equal shares of the columns where scores are high.

    `Q = exp(S / eps + f + g)`, with `f = log a - lse_j(S / eps + g)` and `g = log b - lse_i(S / eps + f)` in turn
    (Cuturi, 2013), in logarithms, float32. Of a bucket a row and a column whose scores are all its value stand beside
    the others, and are dropped afterwards: what is nothing's partner goes there (section 3.2). `Q` is not normalised
    again.

    Args:
        scores: Of rows and columns.
        rows: 1 for those that there are.
        columns: Likewise.
        bucket: Its value; `None`: there is none, and all is moved.
        smoothness: `eps` of the plan.
        iterations: Rounds.
    """
    logits = scores.astype(jnp.float32) / smoothness
    if bucket is not None:
        logits = jnp.pad(logits, ((0, 1), (0, 1)), constant_values=0)
        value = jnp.asarray(bucket, jnp.float32) / smoothness
        logits = logits.at[-1].set(value).at[:, -1].set(value)
        rows, columns = (jnp.append(x, 1.0) for x in (rows, columns))
    pairs = (rows[:, None] > 0) & (columns[None] > 0)
    logits = jnp.where(pairs, logits, -jnp.inf)
    a, b = (_log_shares(x) for x in (rows, columns))

    def scale(_: Any, both: tuple[Array, Array]) -> tuple[Array, Array]:
        _, g = both
        f = jnp.where(rows > 0, a - _sums(logits + g, 1), 0)
        return f, jnp.where(columns > 0, b - _sums(logits + f[:, None], 0), 0)

    f, g = jax.lax.fori_loop(0, iterations, scale, (jnp.zeros(len(rows)), jnp.zeros(len(columns))))
    plan = jnp.where(pairs, jnp.exp(logits + f[:, None] + g), 0)
    return plan if bucket is None else plan[:-1, :-1]


def _log_shares(there: Float[Array, " N"]) -> Float[Array, " N"]:
    return jnp.where(there > 0, -jnp.log(jnp.maximum((there > 0).sum(), 1).astype(jnp.float32)), 0)


def _sums(x: Float[Array, "N M"], axis: int) -> Array:
    """Log-sum-exp; 0 where nothing is there."""
    total = jax.nn.logsumexp(x, axis=axis)
    return jnp.where(jnp.isfinite(total), total, 0)


def paragraph_scores(
    regions: Float[Array, "B R D"],
    texts: Float[Array, "B T D"],
    rows: Float[Array, "B R"],
    columns: Float[Array, "B T"],
    *,
    smoothness: float = 0.1,
    quantile: float = 0.3,
    iterations: int = 50,
) -> Float[Array, "B B"]:
    """`<Q*, S>` of every picture with all that is said of every other; no gradient is taken of `Q*` (section 3.2).

    The bucket's value is the quantile of the scores of aligned pairs, of the same place in a picture and its texts; 0:
    no bucket. `R T` numbers are held of each of `B B` pairs, a row of pictures at a time.

    Args:
        regions: Unit length.
        texts: Likewise.
        rows: 1 for the regions that there are.
        columns: 1 for the texts that there are.
        smoothness: `eps` of the plan.
        quantile: Of the bucket.
        iterations: Of Sinkhorn's scaling.
    """
    aligned = jnp.einsum("brd,brd->br", *(x[:, : min(regions.shape[1], texts.shape[1])] for x in (regions, texts)))
    both = rows[:, : aligned.shape[1]] * columns[:, : aligned.shape[1]]
    bucket = jax.lax.stop_gradient(jnp.nanquantile(jnp.where(both > 0, aligned, jnp.nan), quantile))
    bucket = jnp.nan_to_num(bucket) if quantile else None

    def of_picture(picture: tuple[Array, Array]) -> Array:
        some, there = picture
        scores = jnp.einsum("rd,btd->brt", some, texts, preferred_element_type=jnp.float32, precision="highest")
        plans = jax.vmap(
            lambda one, mask: realigned(one, there, mask, bucket, smoothness=smoothness, iterations=iterations)
        )(jax.lax.stop_gradient(scores), columns)
        return jnp.einsum("brt,brt->b", plans, scores)

    return jax.lax.map(jax.checkpoint(of_picture), (regions, rows))


def sequence_loss(
    scores: Float[Array, "B B"], there: Float[Array, " B"], logit_scale: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Symmetric InfoNCE of pictures and what is said of their parts, of those that have any.

    Args:
        scores: Of `paragraph_scores`.
        there: 1 for pictures with regions.
        logit_scale: The multiplier, 1/temperature.
    """
    own = jnp.eye(len(scores), dtype=bool)
    pairs = (there[:, None] > 0) & (there[None] > 0)
    logits = jnp.where(pairs | own, logit_scale * scores, -jnp.inf)
    # A picture without regions stands alone: its share is 1, and its loss 0.
    both = cross_entropy_of_pairs(logits, 1) + cross_entropy_of_pairs(logits, 0)
    return 0.5 * both * len(scores) / jnp.maximum(there.sum(), 1)


class Sequence(Weighted):
    """Contrastive loss of pictures' regions and their texts, realigned by optimal transport (Norton: weight 0.1)."""

    smoothness = number(0.1, "of the plan of regions and texts", above=0)
    bucket = number(0.3, "quantile of aligned scores below which a pair is none; 0: all are moved", low=0, below=1)
    iterations = integer(50, "rounds of Sinkhorn's scaling", low=1)


def _loss(encoded: Encoded, scales: Scales, options: Any) -> Array:
    mask = encoded.region_mask
    scores = paragraph_scores(
        encoded.region_embed, encoded.region_text_embed, mask, mask, smoothness=options.smoothness,
        quantile=options.bucket, iterations=options.iterations,
    )  # fmt: skip
    return sequence_loss(scores, mask.max(axis=1), scales.logit_scale)


SEQUENCE = Objective("sequence", Sequence, ("regions", "region_texts"), _loss, compares="embed")
