"""The training loss: any of the objectives, weighted, over one encoding of the batch.

It comes in two halves, so that gradient accumulation can cut between them: `encode_batch` looks at each image and text
by itself, `total_loss` compares them all.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vlc.models import DualEncoder, Scales
from vlc.objectives.captioning import average_nll, caption_nll
from vlc.objectives.contrastive import clip_loss, siglip_loss
from vlc.objectives.grouping import grouping_loss
from vlc.objectives.late_interaction import filip_loss
from vlc.objectives.multi_positive import multi_positive_loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Encoded:
    """What the objectives need of a batch; a part that none of them uses is `None`."""

    image_embed: Float[Array, "B D"]
    text_embed: Float[Array, "B K D"] | None
    image_tokens: Float[Array, "B P D"] | None
    text_tokens: Float[Array, "B T D"] | None  # of slot 0
    text_mask: Bool[Array, "B T"] | None
    caption_nll: Float[Array, " B"] | None
    caption_count: Float[Array, " B"] | None


def encode_batch(model: DualEncoder, batch: dict[str, Array], objectives: Any) -> Encoded:
    """Runs the towers, and the decoder where a caption objective has weight.

    Args:
        model: The model.
        batch: `image` `[B, S, S, 3]`, `text` `[B, K, T]`, `target` `[B, T]`, `null` `[B]`.
        objectives: `config.objectives`.
    """
    image = model.encode_image(batch["image"])
    rows, slots, length = batch["text"].shape
    embed = tokens = mask = nll = count = None
    if any(objectives[name].weight for name in ("clip", "siglip", "filip", "multi_positive", "grouping")):
        text = model.encode_text(batch["text"].reshape(rows * slots, length))
        embed = text.embed.reshape(rows, slots, -1)
        if objectives.filip.weight:
            tokens = text.tokens.reshape(rows, slots, length, -1)[:, 0]
            mask = text.mask.reshape(rows, slots, length)[:, 0]
    if objectives.caption.weight:
        inputs, labels = batch["target"][:, :-1], batch["target"][:, 1:]
        logits = model.caption_logits(image, inputs, batch["null"])
        nll, count = caption_nll(logits, labels, labels < logits.shape[-1])
    uses_patches = objectives.filip.weight or objectives.grouping.weight
    return Encoded(image.embed, embed, image.tokens if uses_patches else None, tokens, mask, nll, count)


def total_loss(encoded: Encoded, scales: Scales, objectives: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum, and each term without its weight."""
    terms: dict[str, Array] = {}
    image, text = encoded.image_embed, encoded.text_embed
    for name in objectives:
        options = objectives[name]
        if not options.weight:
            continue
        with jax.named_scope(name):
            if name == "clip":
                terms[name] = clip_loss(
                    image, text[:, 0], scales.logit_scale,
                    label_smoothing=options.label_smoothing, reduction=options.reduction,
                )  # fmt: skip
            elif name == "siglip":
                terms[name] = siglip_loss(image, text[:, 0], scales.logit_scale, scales.logit_bias)
            elif name == "filip":
                terms[name] = filip_loss(
                    encoded.image_tokens, encoded.text_tokens, encoded.text_mask, scales.token_logit_scale,
                    implementation=options.implementation,
                )  # fmt: skip
            elif name == "multi_positive":
                terms[name] = multi_positive_loss(image, text, scales.logit_scale, negatives=options.negatives)
            elif name == "grouping":
                threshold = None if options.threshold < 0 else options.threshold
                terms[name] = grouping_loss(
                    encoded.image_tokens, text, scales.token_logit_scale,
                    threshold=threshold, negatives=options.negatives,
                )  # fmt: skip
            elif name == "caption":
                terms[name] = average_nll(encoded.caption_nll, encoded.caption_count, options.average)
    total = sum((objectives[name].weight * term for name, term in terms.items()), start=jnp.float32(0))
    return total, terms
