"""FILIP's loss: both softmaxes over token-wise similarities."""

from jaxtyping import Array, Bool, Float

from vlc.objectives.contrastive import cross_entropy_of_pairs
from vlc.similarity import late_interaction


def filip_loss(
    image_tokens: Float[Array, "B P D"],
    text_tokens: Float[Array, "B T D"],
    text_mask: Bool[Array, "B T"],
    logit_scale: Float[Array, ""] | float,
    *,
    implementation: str = "auto",
) -> Float[Array, ""]:
    """Token-wise contrastive loss (FILIP, arXiv 2111.07783, eq. 2-5).

    `L = 1/2 [CE over texts of s i2t + CE over images of s t2i]`, with `i2t` and `t2i` from `vlc.late_interaction`. Pads
    enter neither the maxima nor the means.

    Args:
        image_tokens: `[B, P, D]`, unit length.
        text_tokens: `[B, T, D]`, unit length; row i belongs to image i.
        text_mask: `[B, T]`, true for real tokens (begin and end marks included).
        logit_scale: The multiplier s, 1/temperature.
        implementation: Of `vlc.late_interaction`.
    """
    i2t, t2i = late_interaction(image_tokens, text_tokens, text_mask, implementation=implementation)
    return 0.5 * (cross_entropy_of_pairs(logit_scale * i2t, 1) + cross_entropy_of_pairs(logit_scale * t2i, 0))
