"""Targets of a contrastive loss that allow for captions which also fit other images: optimal transport of the batch.

Norton (Lin et al., ICLR 2024, arXiv 2401.16702, eq. 7): what the model itself finds alike in a batch is not pushed
apart with the full weight of a negative.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sinkhorn(logits: Float[Array, "N M"], iterations: int) -> Float[Array, "N M"]:
    """The plan `exp(logits + u_i + v_j)` whose rows add up to 1 and whose columns all to the same (Cuturi, 2013).

    In logarithms, float32. Columns are scaled last, so their sums are exact.

    Args:
        logits: Similarities, divided by the smoothness of the plan.
        iterations: Rounds of scaling rows and columns.
    """
    logits = logits.astype(jnp.float32)
    share = math.log(logits.shape[0] / logits.shape[1])

    def scale(_: Any, both: tuple[Array, Array]) -> tuple[Array, Array]:
        _, v = both
        u = -jax.nn.logsumexp(logits + v, axis=1)
        return u, share - jax.nn.logsumexp(logits + u[:, None], axis=0)

    start = jnp.zeros(logits.shape[0]), jnp.zeros(logits.shape[1])
    u, v = jax.lax.fori_loop(0, iterations, scale, start)
    return jnp.exp(logits + u[:, None] + v)


def transport_targets(logits: Float[Array, "N N"], share: float, iterations: int) -> Float[Array, "N N"]:
    """`(1 - share) I + share Q`, Q the plan of `sinkhorn`, of which no gradient is taken."""
    plan = jax.lax.stop_gradient(sinkhorn(logits, iterations))
    return (1 - share) * jnp.eye(len(logits)) + share * plan
