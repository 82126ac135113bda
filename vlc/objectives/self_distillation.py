"""What a model learns of pictures from its own moving average, beside what captions say.

The teacher is the moving average of the parameters (`optimizer.ema`). It sees the whole picture, the student a part of
it, and both choose among learned prototypes (`model.image.prototypes`). SigLIP 2 (arXiv 2502.14786, section 2.3) trains
both terms beside its sigmoid loss: `local_global` is SILC's (Naeem et al., ECCV 2024, arXiv 2310.13355), `masked` that
of TIPS (arXiv 2410.16512), after iBOT (arXiv 2111.07832).

That the teacher does not give all pictures one prototype, the batch sees to: its choices are balanced by Sinkhorn's
rounds (SwAV, arXiv 2006.09882; DINOv2, arXiv 2304.07193, section 4), which need no state.
"""

from typing import Any

import jax
from jaxtyping import Array, Float

from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.transport import sinkhorn
from vlc.settings import integer, number, numbers

_ROUNDS = 3


def balanced(logits: Float[Array, "N K"], temperature: float) -> Float[Array, "N K"]:
    """Choices of N samples, each of sum 1, in which all prototypes are chosen about as often; without a gradient."""
    plan = sinkhorn(jax.lax.stop_gradient(logits) / temperature, _ROUNDS)
    return plan / plan.sum(axis=1, keepdims=True)


def agreement(
    student: Float[Array, "N ... K"], teacher: Float[Array, "N K"], temperature: float, teacher_temperature: float
) -> Float[Array, ""]:
    """Mean cross-entropy of the student's choices with the teacher's balanced ones of the same sample.

    Args:
        student: Cosines with the prototypes, of one or several views of each sample.
        teacher: Likewise, of the sample.
        temperature: Of the student.
        teacher_temperature: Lower, so that its choices are sharper.
    """
    targets = balanced(teacher, teacher_temperature)
    targets = targets.reshape(len(targets), *[1] * (student.ndim - 2), -1)
    return -(targets * jax.nn.log_softmax(student / temperature, axis=-1)).sum(axis=-1).mean()


class SelfDistilled(Weighted):
    """Settings of both terms."""

    temperature = number(0.1, "of the student's choices", above=0)
    teacher_temperature = number(0.04, "of the teacher's", above=0)


class LocalGlobal(SelfDistilled):
    """A crop's choice is to be that of the whole picture (SILC)."""

    crops = integer(2, "crops of a picture (SILC: 8)", low=1)
    size = integer(0, "pixels on a side of a crop; 0: half of a picture's, in whole patches", low=0)
    area = numbers((0.05, 0.4), "least and most share of the picture", length=2, above=0, high=1, rising=True)


class Masked(SelfDistilled):
    """A patch that is hidden is to choose as where it is seen (TIPS, iBOT)."""

    share = number(0.5, "share of the patches that are hidden", above=0, below=1)


def _local_global(encoded: Encoded, _: Any, options: Any) -> Array:
    return agreement(encoded.crops, encoded.teacher_whole, options.temperature, options.teacher_temperature)


def _masked(encoded: Encoded, _: Any, options: Any) -> Array:
    student, teacher = (x.reshape(-1, x.shape[-1]) for x in (encoded.hidden, encoded.teacher_hidden))
    return agreement(student, teacher, options.temperature, options.teacher_temperature)


LOCAL_GLOBAL = Objective("local_global", LocalGlobal, ("crops",), _local_global)
MASKED = Objective("masked", Masked, ("hidden",), _masked)
