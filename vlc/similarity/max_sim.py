"""Late interaction of texts with texts, where both sides have pads: ColBERT's score."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_DOCUMENTS = 64  # compared at once


@jax.jit
def max_sim(
    queries: Float[Array, "Q S D"], query_mask: Bool[Array, "Q S"],
    documents: Float[Array, "N T D"], document_mask: Bool[Array, "N T"],
) -> Float[Array, "Q N"]:  # fmt: skip
    """The sum over a query's tokens of the most similar token of a document (Khattab and Zaharia, 2020, eq. 3).

    `late_interaction` has the means instead, and no pads among the tokens of an image.

    Args:
        queries: `tokens` of `Model.encode_text`, of unit length.
        query_mask: Their `mask`.
        documents: Likewise.
        document_mask: Their `mask`. A document of which nothing counts scores 0.

    Returns:
        `[Q, N]`, float32.
    """

    def of_one(document: tuple[Array, Array]) -> Array:
        tokens, counts = document
        products = jnp.einsum("qsd,td->qst", queries, tokens, preferred_element_type=jnp.float32, precision="highest")
        best = jnp.where(counts, products, -jnp.inf).max(axis=2)
        return jnp.where(query_mask & counts.any(), best, 0).sum(axis=1)

    return jax.lax.map(of_one, (documents, document_mask), batch_size=_DOCUMENTS).T
