"""Wrong texts of a batch as further ones that an image chooses from.

NegCLIP (Yuksekgonul et al., ICLR 2023, arXiv 2210.01936, section 4) lets every image choose among the captions and the
wrong texts of the whole batch; no image belongs to a wrong text, so that captions choose among the images as before.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.errors import ConfigError
from vlc.objectives.base import Encoded

# The similarity of a text that is not there. Far below any other, and finite: the gradient of a product with minus
# infinity, by the other factor, is not a number.
ABSENT = -1e4

Further = tuple[Any, Any]  # wrong texts [B, H, ...], and their mask, [B, H] or [B, H, T]


def further_texts(encoded: Encoded, options: Any, *, tokens: bool = False) -> Further | None:
    """What an objective of this name takes beside the captions: embeddings or tokens of wrong texts, and their mask."""
    if not options.hard_texts:
        return None
    if tokens:
        return encoded.hard_tokens, encoded.hard_mask
    return encoded.hard_embed, encoded.hard_mask.max(axis=2)


def with_further(
    score: Callable[..., tuple[Array, Array]],
) -> Callable[..., tuple[Float[Array, "B M"], Float[Array, "B N"]]]:
    """Of a function `(images, texts, mask)` that scores all pairs both ways, one that also takes wrong texts.

    The new one takes `texts` and `mask` as pairs, of captions `[N, ...]` and wrong texts `[N, H, ...]`. Its `i2t` has
    `N + N H` columns, the captions first; its `t2i` those of the captions.
    """

    def scored(images: Any, texts: tuple[Any, Any], mask: tuple[Any, Any]) -> tuple[Array, Array]:
        i2t, t2i = score(images, texts[0], mask[0])
        wrong, there = (x.reshape(-1, *x.shape[2:]) for x in (texts[1], mask[1]))
        further, _ = score(images, wrong, there)
        known = there.reshape(len(there), -1).max(axis=1) > 0
        return jnp.concatenate([i2t, jnp.where(known, further, ABSENT)], axis=1), t2i

    return scored


def check_weight(weight: float, further: Further | None, **others: bool) -> None:
    """Raises `ConfigError` where wrong texts are asked for and there are none, or what does not go with them is set."""
    if further is None:
        return
    if weight <= 0:
        raise ConfigError(f"hard_texts is {weight}; the weight of wrong texts must be above 0.")
    for name, is_set in others.items():
        if is_set:
            raise ConfigError(f"hard_texts does not go with {name}: leave one of them out.")
