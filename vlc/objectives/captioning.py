"""Cross-entropy of captions, averaged by token or by example."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vlc.errors import ConfigError
from vlc.objectives.base import Objective, Weighted
from vlc.settings import choice, number


def caption_nll(
    logits: Float[Array, "B T V"], labels: Int[Array, "B T"], mask: Bool[Array, "B T"], *, z_loss: float = 0.0
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Negative log-likelihood of each caption, in nats, and its number of tokens; pads count for nothing.

    With `z_loss` each token costs that much of the square of the log of its softmax's denominator as well, so that
    logits do not drift (PaLM, arXiv 2204.02311, section 5: 1e-4).
    """
    picked = jnp.take_along_axis(logits, jnp.where(mask, labels, 0)[..., None], axis=-1)[..., 0]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    cost = normaliser - picked + (z_loss * normaliser**2 if z_loss else 0)
    nll = jnp.where(mask, cost, 0)
    return nll.sum(axis=1), mask.sum(axis=1).astype(jnp.float32)


def average_nll(nll: Float[Array, " B"], count: Float[Array, " B"], average: str) -> Float[Array, ""]:
    """Averages `caption_nll` over tokens, or first within each caption.

    Raises:
        ConfigError: `average` is unknown.
    """
    if average == "token":
        return nll.sum() / jnp.maximum(count.sum(), 1)
    if average == "example":
        return (nll / jnp.maximum(count, 1)).sum() / jnp.maximum((count > 0).sum(), 1)
    raise ConfigError(f'caption_loss: average is "{average}"; it must be "token" or "example".')


def caption_loss(
    logits: Float[Array, "B T V"], labels: Int[Array, "B T"], mask: Bool[Array, "B T"], *, average: str = "token"
) -> Float[Array, ""]:
    """Cross-entropy of the next token, in nats.

    Args:
        logits: `[B, T, V]`, of the token that `labels` holds at the same place.
        labels: `[B, T]`; pads may hold any id.
        mask: `[B, T]`, true for real tokens.
        average: `token`: over all tokens of the batch (CoCa). `example`: over each caption, then over captions (CapPa).
    """
    return average_nll(*caption_nll(logits, labels, mask), average)


class Caption(Weighted):
    """Cross-entropy of the caption decoder."""

    average = choice("token", ("token", "example"), "over all tokens (CoCa), or over captions (CapPa)")
    null_rate = number(0.1, "share of images that are hidden from the captioner, for guidance", low=0, high=1)
    z_loss = number(0.0, "weight of the squared log of the softmax's denominator (PaLM: 1e-4)", low=0)
    control_dropout = number(0.1, "share of controls that are left out", low=0, high=1)


CAPTION = Objective(
    "caption",
    Caption,
    ("caption",),
    lambda encoded, scales, options: average_nll(encoded.caption_nll, encoded.caption_count, options.average),
)
