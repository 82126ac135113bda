"""Captions that the model wrote itself, made likelier where a reward is above its baseline, and less likely below.

Self-critical training (SCST, Rennie et al., CVPR 2017, arXiv 1612.00563), as in CLIP Reward (Cho et al., 2022, arXiv
2205.13115); DiscriTune (Dessì et al., CVPR 2023, arXiv 2304.01662) with a running baseline; GRPO (Shao et al., 2024,
arXiv 2402.03300) with that of a group, clipped ratios, and a penalty of the divergence from where training began.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlc.errors import ConfigError
from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.settings import choice, number

BASELINES = ("greedy", "running", "group")
_LEAST = 1e-4  # added to the deviation of a group


def baseline_of(objectives: Any) -> str:
    """What the captions of a step are held against; empty where they are not."""
    return objectives.policy.baseline if objectives.policy.weight else ""


def needs_first(objectives: Any) -> bool:
    """Whether a loss asks what the model that training began with says."""
    return bool((objectives.policy.weight and objectives.policy.kl) or objectives.preference.weight)


def advantages(
    rewards: Float[Array, "B K"], baseline: str, value: Float[Array, " B"] | None = None
) -> Float[Array, "B K"]:
    """How much better each caption is than what it is held against.

    Args:
        rewards: Of K captions of each image.
        baseline: `greedy` and `running`: the reward less `value`, that of the greedy caption (SCST), or a mean of past
            ones (DiscriTune). `group`: less the mean of the image's captions, by their deviation plus 1e-4 (GRPO); all
            alike have none.
        value: Of each image.

    Raises:
        ConfigError: `baseline` is unknown.
    """
    if baseline not in BASELINES:
        raise ConfigError(f'advantages: baseline is "{baseline}"; it must be one of {BASELINES}.')
    if baseline == "group":
        centred = rewards - rewards.mean(axis=1, keepdims=True)
        return centred / (rewards.std(axis=1, keepdims=True) + _LEAST)
    assert value is not None
    return rewards - value[:, None]


def token_log_probs(
    logits: Float[Array, "... T V"], labels: Int[Array, "... T"]
) -> tuple[Float[Array, "... T"], Float[Array, "... T"]]:
    """Log-probabilities of the tokens that were written, 0 of pads, and 1 for those that count: all up to the end mark,
    that included."""
    there = labels < logits.shape[-1]
    at = jnp.where(there, labels, 0)[..., None]
    found = jnp.take_along_axis(jax.nn.log_softmax(logits.astype(jnp.float32)), at, axis=-1)[..., 0]
    return jnp.where(there, found, 0), there.astype(jnp.float32)


def token_divergence(logits: Float[Array, "... T V"], reference: Float[Array, "... T V"]) -> Float[Array, "... T"]:
    """`KL(p || q)` of the next token, exactly: summed over the vocabulary, at every place."""
    ours, theirs = (jax.nn.log_softmax(x.astype(jnp.float32)) for x in (logits, reference))
    return (jnp.exp(ours) * (ours - theirs)).sum(axis=-1)


def policy_loss(
    log_prob: Float[Array, "B K T"],
    old: Float[Array, "B K T"] | None,
    mask: Float[Array, "B K T"],
    advantage: Float[Array, "B K"],
    *,
    clip: float = 0.2,
    average: str = "token",
) -> Float[Array, ""]:
    """`-mean over captions of mean over tokens of min(r A, clip(r, 1 - c, 1 + c) A)`, `r = exp(log_prob - old)`.

    Where the captions were written by these very parameters (`old` is `None`), its gradient is that of REINFORCE, `-A`
    times the mean gradient of the log-probabilities. No gradient is taken of `A` and `old`.

    Args:
        log_prob: Of each token of K captions of each image.
        old: The same by the parameters that wrote them.
        mask: 1 for tokens up to the end mark, that included.
        advantage: Of each caption.
        clip: How far a probability may move for its own good.
        average: `token`: the mean over a caption's tokens, so that a long one weighs as much as a short one;
            `sequence`: their sum, the gradient of the expected reward itself.

    Raises:
        ConfigError: `average` is unknown.
    """
    if average not in ("token", "sequence"):
        raise ConfigError(f'policy_loss: average is "{average}"; it must be "token" or "sequence".')
    before = jax.lax.stop_gradient(log_prob if old is None else old)
    ratio = jnp.exp(log_prob - before)
    gain = jax.lax.stop_gradient(advantage)[..., None]
    kept = jnp.minimum(ratio * gain, jnp.clip(ratio, 1 - clip, 1 + clip) * gain)
    return -of_captions(kept, mask, average).mean()


def of_captions(values: Float[Array, "B K T"], mask: Float[Array, "B K T"], average: str) -> Float[Array, "B K"]:
    """The mean over the tokens of each caption (`token`), or their sum (`sequence`)."""
    total = (values * mask).sum(axis=2)
    return total if average == "sequence" else total / jnp.maximum(mask.sum(axis=2), 1)


class Policy(Weighted):
    """Policy gradient of captions that the model writes itself (`config.reward`)."""

    baseline = choice("greedy", BASELINES, "SCST's greedy caption, DiscriTune's running mean, or GRPO's group")
    clip = number(0.2, "how far a token's probability may move, as a ratio, with several updates a writing", above=0)
    kl = number(0.0, "weight of the divergence from the model that training began with; 0: none (GRPO: 0.04)", low=0)
    average = choice("token", ("token", "sequence"), "of a caption's tokens: their mean, or their sum")


def _loss(encoded: Encoded, _: Scales, options: Any) -> Array:
    advantage = advantages(encoded.reward, options.baseline, encoded.reward_baseline)
    lost = policy_loss(
        encoded.sampled_log_prob, encoded.sampled_old, encoded.sampled_mask, advantage, clip=options.clip,
        average=options.average,
    )  # fmt: skip
    if options.kl:
        lost += options.kl * of_captions(encoded.sampled_kl, encoded.sampled_mask, options.average).mean()
    return lost


POLICY = Objective("policy", Policy, ("written",), _loss)
