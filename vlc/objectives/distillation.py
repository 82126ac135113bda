"""Learning from another model's scores and features, or from those of the model's own moving average.

From another model: its scores as targets of both softmaxes (CLIP-KD, Yang et al., CVPR 2024, arXiv 2307.12732, section
3.2, "contrastive relational distillation"; TinyCLIP's affinity mimicking, ICCV 2023, arXiv 2309.12314), and its
embeddings (CLIP-KD's feature distillation). From the moving average of its own parameters: momentum distillation, soft
targets for captions of the web that fit other images too (ALBEF, Li et al., NeurIPS 2021, arXiv 2107.07651, section
3.3).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vlc.errors import ConfigError
from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.contrastive import similarities
from vlc.settings import number, text


def distillation_loss(
    image_embed: Float[Array, "B D"],
    text_embed: Float[Array, "B D"],
    logit_scale: Float[Array, ""] | float,
    teacher_image: Float[Array, "B E"],
    teacher_text: Float[Array, "B E"],
    teacher_scale: Float[Array, ""] | float,
    *,
    features: float = 0.0,
) -> Float[Array, ""]:
    """The teacher's choices as targets: the mean of both Kullback-Leibler divergences, and what `features` adds.

    `L = 1/2 [KL(softmax_j(s' S'_ij) || softmax_j(s S_ij)) + the same over i] + features * (2 - cos_image - cos_text)`

    Args:
        image_embed: `[B, D]`, unit length.
        text_embed: `[B, D]`; row i belongs to image i.
        logit_scale: The multiplier s of the student's similarities S.
        teacher_image: `[B, E]`, unit length; nothing of the teacher has a gradient.
        teacher_text: `[B, E]`.
        teacher_scale: Its multiplier s'.
        features: Weight of how far embeddings are from the teacher's, for which they must be of one width.

    Raises:
        ConfigError: They are not.
    """
    student = logit_scale * similarities(image_embed, text_embed)
    teacher = jax.lax.stop_gradient(teacher_scale * similarities(teacher_image, teacher_text))
    total = jnp.float32(0)
    for axis in (0, 1):
        targets = jax.nn.log_softmax(teacher, axis)
        total += 0.5 * (jnp.exp(targets) * (targets - jax.nn.log_softmax(student, axis))).sum(axis).mean()
    if not features:
        return total
    if image_embed.shape != teacher_image.shape:
        raise ConfigError(
            f"objectives.distill.features compares embeddings of {image_embed.shape[1]} and {teacher_image.shape[1]} "
            "numbers; set config.model.embed_dim to the teacher's, or features to 0."
        )
    pairs = ((image_embed, teacher_image), (text_embed, teacher_text))
    cosines = sum(((one * jax.lax.stop_gradient(other)).sum(axis=-1).mean() for one, other in pairs), jnp.float32(0))
    return total + features * (2 - cosines)


class Distill(Weighted):
    """Another model's scores and embeddings, or those of the moving average (ALBEF)."""

    teacher = text("", "a model that `vlc.load` reads, with the same tokenizer; empty: the average of `optimizer.ema`")
    features = number(0.0, "weight of the cosines with the teacher's embeddings; 0: scores alone", low=0)


def _distill(encoded: Encoded, scales: Scales, options: Distill) -> Array:
    return distillation_loss(
        encoded.image_embed, encoded.text_embed[:, 0], scales.logit_scale,
        encoded.teacher_image, encoded.teacher_text, encoded.teacher_scale[0], features=options.features,
    )  # fmt: skip


DISTILL = Objective("distill", Distill, ("text_embed", "teacher"), _distill, compares="embed")
