"""Classifier-free guidance for captions (Kornblith et al., ICCV 2023, arXiv 2307.16686)."""

import jax
from jaxtyping import Array, Float


def guided_log_probs(
    conditional: Float[Array, "N V"], unconditional: Float[Array, "N V"], scale: Float[Array, ""] | float
) -> Float[Array, "N V"]:
    """Next-token log-probabilities under `p(x) (p(x|y) / p(x))^scale`, normalised at this step (section 3, eq. 2-3).

    Args:
        conditional: Logits given the image.
        unconditional: Logits given the null image.
        scale: 1 is ordinary decoding, 0 ignores the image, above 1 prefers what only this image explains.
    """
    prior = jax.nn.log_softmax(unconditional)
    return jax.nn.log_softmax(prior + scale * (jax.nn.log_softmax(conditional) - prior))
