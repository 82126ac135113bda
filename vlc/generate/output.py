"""What a search gives."""

from typing import NamedTuple

import jax
from jaxtyping import Array, Float, Int

Ids = Int[Array, "..."]


class GenerateOutput(NamedTuple):
    """Captions of a batch of images, the best of an image first where a search ranks them.

    Attributes:
        ids: `[B, S, T]`, from the first word on, with the end mark, then pads.
        log_prob: `[B, S]`, the sum of guided log-probabilities of the words that were chosen, the end mark included.
        image_log_prob: `[B, S]`, that of log-probabilities given the image, without guidance.
        tokens: `[B, S]`, how many were chosen.
    """

    ids: Ids
    log_prob: Float[Array, "B S"]
    image_log_prob: Float[Array, "B S"]
    tokens: Int[Array, "B S"]


def group_by_image(written: GenerateOutput, images: int) -> GenerateOutput:
    """Rows `[R, ...]` as `[B, S, ...]`."""
    return jax.tree.map(lambda x: x.reshape(images, -1, *x.shape[1:]), written)
