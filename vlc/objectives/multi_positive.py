"""Several captions of one image as positives: DreamLIP (per slot) and GBC (all captions)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.errors import ConfigError
from vlc.objectives.base import Objective, Weighted
from vlc.settings import choice


def multi_positive_loss(
    image_embed: Float[Array, "B D"],
    caption_embeds: Float[Array, "B K D"],
    logit_scale: Float[Array, ""] | float,
    *,
    negatives: str = "slot",
) -> Float[Array, ""]:
    """Contrastive loss with K positives an image, the mean of both directions.

    `slot` (DreamLIP, arXiv 2403.17007, eq. 5): the k-th caption competes with the k-th captions of the other images;
    the K losses are averaged. `all` (GBC, arXiv 2407.06723): image to text, a positive competes with all captions of
    all *other* images, never with its siblings; text to image, each caption's softmax runs over the images.

    Args:
        image_embed: `[B, D]`.
        caption_embeds: `[B, K, D]`; row i holds the captions of image i.
        logit_scale: The multiplier, 1/temperature.
        negatives: `slot` or `all`.

    Raises:
        ConfigError: `negatives` is unknown.
    """
    logits = logit_scale * jnp.einsum(
        "id,jkd->ijk", image_embed, caption_embeds, preferred_element_type=jnp.float32, precision="highest"
    )
    own = jnp.diagonal(logits).T  # [B, K]
    text_to_image = -jnp.diagonal(jax.nn.log_softmax(logits, axis=0)).mean()
    if negatives == "slot":
        return 0.5 * (text_to_image - jnp.diagonal(jax.nn.log_softmax(logits, axis=1)).mean())
    if negatives == "all":
        batch = logits.shape[0]
        others = jnp.where(jnp.eye(batch, dtype=bool)[..., None], -jnp.inf, logits)
        rest = jax.nn.logsumexp(others, axis=(1, 2))[:, None]
        image_to_text = (jnp.logaddexp(own, rest) - own).mean()
        return 0.5 * (image_to_text + text_to_image)
    raise ConfigError(f'multi_positive_loss: negatives is "{negatives}"; it must be "slot" or "all".')


class MultiPositive(Weighted):
    """Contrastive loss with several captions an image (DreamLIP, GBC)."""

    negatives = choice("slot", ("slot", "all"), "captions of the same slot (DreamLIP), or all of other images (GBC)")


MULTI_POSITIVE = Objective(
    "multi_positive",
    MultiPositive,
    ("text_embed", "sub_captions"),
    lambda encoded, scales, options: multi_positive_loss(
        encoded.image_embed, encoded.text_embed, scales.logit_scale, negatives=options.negatives
    ),
    compares="embed",
)
