"""What makes the next word likely: the image, more than the words alone do, and a language model.

Classifier-free guidance and language-model guidance for captions (Kornblith et al., ICCV 2023, arXiv 2307.16686,
sections 3.1 and 3.2).
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlc.models.stepper import Past, Stepper

Number = Float[Array, ""] | float


def guided_log_probs(
    conditional: Float[Array, "N V"], unconditional: Float[Array, "N V"], scale: Number
) -> Float[Array, "N V"]:
    """Next-token log-probabilities under `p(x) (p(x|y) / p(x))^scale`, normalised at this step (eq. 2-3).

    Args:
        conditional: Logits given the image.
        unconditional: Logits given the null image.
        scale: 1 is ordinary decoding, 0 ignores the image, above 1 prefers what only this image explains.
    """
    return weighted_log_probs([(conditional, scale), (unconditional, 1 - scale)])


def weighted_log_probs(parts: list[tuple[Float[Array, "N V"], Number]]) -> Float[Array, "N V"]:
    """Next-token log-probabilities of a product of powers, normalised at this step.

    Args:
        parts: Logits of each factor, and its exponent.
    """
    return jax.nn.log_softmax(sum(weight * jax.nn.log_softmax(logits) for logits, weight in parts))


class LanguageModel(Protocol):
    """A causal text model of the captioner's vocabulary.

    `start` gives its state for as many captions after whatever prompt it has; `step` the logits `[R, V]` after the
    words at a position; `take` the state of other captions (row `i` goes on from row `parents[i]`). The first words are
    the tokenizer's begin mark.
    """

    def start(self, rows: int) -> Any: ...

    def step(self, ids: Int[Array, " R"], position: Int[Array, ""], past: Any) -> tuple[Float[Array, "R V"], Any]: ...

    def take(self, past: Any, parents: Int[Array, " R"]) -> Any: ...


class NullCaptioner:
    """A captioner that sees no image is a causal text model: `p(x)` of what it was trained on."""

    def __init__(self, stepper: Stepper):
        """Takes a stepper with the one branch `null`."""
        assert stepper.branches == ("null",)
        self.stepper = stepper

    def start(self, rows: int) -> Past:
        return self.stepper.start(rows)

    def step(self, ids: Int[Array, " R"], position: Int[Array, ""], past: Past) -> tuple[Float[Array, "R V"], Past]:
        logits, past = self.stepper.step(ids, position, past)
        return logits[0], past

    def take(self, past: Past, parents: Int[Array, " R"]) -> Past:
        return self.stepper.take(past, parents)


class StopAt:
    """A language model that ends a caption with another token, as a newline: its mass moves to the end mark.

    `score[end] = logsumexp(score[end], score[stop])`, and the other is never written (section 3.2).
    """

    def __init__(self, model: LanguageModel, *, stop_id: int, end_id: int):
        self.model, self.stop_id, self.end_id = model, stop_id, end_id
        self.start, self.take = model.start, model.take

    def step(self, ids: Int[Array, " R"], position: Int[Array, ""], past: Any) -> tuple[Float[Array, "R V"], Any]:
        logits, past = self.model.step(ids, position, past)
        end = jnp.logaddexp(logits[:, self.end_id], logits[:, self.stop_id])
        never = jnp.finfo(logits.dtype).min
        return logits.at[:, self.end_id].set(end).at[:, self.stop_id].set(never), past


class Guided(NamedTuple):
    """Exponents of the factors of the next word's probability.

    Classifier-free guidance with scale `g` is `Guided(g, 1 - g)`; guidance by a language model `q` with `a` and `b` is
    `Guided(a, -b, 1)`, and by the captioner's own `p(x)` in its place `Guided(a, 1 - b)`.
    """

    image: Number = 1.0
    null: Number = 0.0
    language: Number = 0.0


class NextWord:
    """Scores of the next word under guidance; what every search asks."""

    def __init__(self, stepper: Stepper, weights: Guided, language: LanguageModel | None = None):
        """Puts the factors together.

        Args:
            stepper: With a branch for the image, and one for the null image where it has a weight.
            weights: May be traced, so that a sweep compiles once.
            language: A text model.
        """
        self.stepper, self.language = stepper, language
        by_branch = {"image": weights.image, "null": weights.null}
        self.weights = [by_branch[branch] for branch in stepper.branches]
        self.language_weight = weights.language

    def start(self, rows: int) -> Any:
        """The state before the first word of as many captions."""
        return self.stepper.start(rows), self.language.start(rows) if self.language is not None else None

    def step(
        self, ids: Int[Array, " R"], position: Int[Array, ""], state: Any
    ) -> tuple[Float[Array, "R V"], Float[Array, "R V"], Any]:
        """Log-probabilities of the next word, guided and given the image alone, and the state."""
        past, spoken = state
        logits, past = self.stepper.step(ids, position, past)
        plain = jax.nn.log_softmax(logits[0])
        if len(self.weights) == 1 and self.language is None:
            return plain, plain, (past, None)
        parts = list(zip(logits, self.weights, strict=True))
        if self.language is not None:
            said, spoken = self.language.step(ids, position, spoken)
            parts.append((said, self.language_weight))
        return weighted_log_probs(parts), plain, (past, spoken)

    def take(self, state: Any, parents: Int[Array, " R"]) -> Any:
        """The state of other captions: row `i` goes on from row `parents[i]`."""
        past, spoken = state
        return self.stepper.take(past, parents), self.language and self.language.take(spoken, parents)
