"""The training loss: any of the objectives, weighted, over one encoding of the batch.

It comes in two halves, so that gradient accumulation can cut between them: `encode_batch` looks at each image and text
by itself, `total_loss` compares them all.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

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

    image_embed: Any  # [B, D]
    text_embed: Any  # [B, K, D], of the main caption, then of the sub-captions
    image_tokens: Any  # [B, P, D]
    text_tokens: Any  # [B, T, D], of the main caption
    text_mask: Any  # [B, T], 1 for real tokens; float, since the whole is differentiated
    caption_nll: Any  # [B]
    caption_count: Any  # [B]


def encode_batch(model: DualEncoder, batch: dict[str, Array], objectives: Any) -> Encoded:
    """Runs the towers, and the decoder where a caption objective has weight.

    Args:
        model: The model.
        batch: `image` `[B, S, S, 3]`, `text` `[B, T]`, `target` `[B, V]`, `null` `[B]`, and perhaps `subs`
            `[B, K-1, U]`, `control` `[B, S]` and `parallel` `[B]` (see `CaptionDecoder`).
        objectives: `config.objectives`.
    """
    image = model.encode_image(batch["image"])
    embed = tokens = mask = nll = count = None
    if any(objectives[name].weight for name in ("clip", "siglip", "filip", "multi_positive", "grouping")):
        text = model.encode_text(batch["text"])
        embed = text.embed[:, None]
        if objectives.filip.weight:
            tokens, mask = text.tokens, text.mask.astype(jnp.float32)
        if "subs" in batch:
            rows, slots, length = batch["subs"].shape
            subs = model.encode_text(batch["subs"].reshape(rows * slots, length)).embed
            embed = jnp.concatenate([embed, subs.reshape(rows, slots, -1)], axis=1)
    if objectives.caption.weight:
        inputs, labels = batch["target"][:, :-1], batch["target"][:, 1:]
        logits = model.caption_logits(image, inputs, batch["null"], batch.get("control"), batch.get("parallel"))
        nll, count = caption_nll(logits, labels, labels < logits.shape[-1])
    uses_patches = objectives.filip.weight or objectives.grouping.weight
    return Encoded(image.embed, embed, image.tokens if uses_patches else None, tokens, mask, nll, count)


def total_loss(encoded: Encoded, scales: Scales, objectives: Any) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The weighted sum, and each term without its weight."""
    image, text = encoded.image_embed, encoded.text_embed
    patches, mask = encoded.image_tokens, encoded.text_mask
    losses: dict[str, Callable[[Any], Array]] = {
        "clip": lambda o: clip_loss(
            image, text[:, 0], scales.logit_scale,
            label_smoothing=o.label_smoothing, reduction=o.reduction, exchange=o.exchange,
        ),
        "siglip": lambda o: siglip_loss(
            image, text[:, 0], scales.logit_scale, scales.logit_bias, exchange=o.exchange
        ),
        "filip": lambda o: filip_loss(
            _compared_as(o.dtype, patches), _compared_as(o.dtype, encoded.text_tokens), mask > 0,
            scales.token_logit_scale,
            implementation=o.implementation, smoothing=o.smoothing, exchange=o.exchange,
            keep_tokens=o.keep_tokens, buckets=tuple(o.buckets),
        ),
        "multi_positive": lambda o: multi_positive_loss(image, text, scales.logit_scale, negatives=o.negatives),
        "grouping": lambda o: grouping_loss(
            patches, text, scales.token_logit_scale,
            threshold=None if o.threshold < 0 else o.threshold, negatives=o.negatives,
        ),
        "caption": lambda o: average_nll(encoded.caption_nll, encoded.caption_count, o.average),
    }  # fmt: skip
    terms = {}
    for name, loss in losses.items():
        if objectives[name].weight:
            with jax.named_scope(name):
                terms[name] = loss(objectives[name])
    total = sum((objectives[name].weight * term for name, term in terms.items()), start=jnp.float32(0))
    return total, terms


def _compared_as(dtype: str, tokens: Array) -> Array:
    """Tokens in the type they are compared in: the kernels are made for bfloat16."""
    return tokens if dtype == "auto" else tokens.astype(dtype)
