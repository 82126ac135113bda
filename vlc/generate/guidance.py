"""Guidance: the next token's probability from the image, from the text alone, and from a language model.

Classifier-free guidance and language-model guidance for captions (Kornblith et al., ICCV 2023, arXiv 2307.16686,
sections 3.1 and 3.2).
"""

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlc.models.cached_decoder import CachedDecoder, DecodeCache

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

    `start` gives the state of a number of captions, after the prompt where there is one. `step` gives the logits
    `[R, V]` after the tokens at a position. `reorder` gives the state after beams were chosen: row `i` continues row
    `parents[i]`. The first token is the tokenizer's begin mark.
    """

    def start(self, rows: int) -> Any: ...

    def step(self, ids: Int[Array, " R"], position: Int[Array, ""], cache: Any) -> tuple[Float[Array, "R V"], Any]: ...

    def reorder(self, cache: Any, parents: Int[Array, " R"]) -> Any: ...


class UnconditionalCaptioner:
    """A captioner that sees no image is a causal text model: `p(x)` of what it was trained on."""

    def __init__(self, cached: CachedDecoder):
        """Takes a `CachedDecoder` with the unconditional branch alone."""
        assert cached.branches == ("unconditional",)
        self.cached = cached

    def start(self, rows: int) -> DecodeCache:
        return self.cached.start(rows)

    def step(
        self, ids: Int[Array, " R"], position: Int[Array, ""], cache: DecodeCache
    ) -> tuple[Float[Array, "R V"], DecodeCache]:
        logits, cache = self.cached.step(ids, position, cache)
        return logits[0], cache

    def reorder(self, cache: DecodeCache, parents: Int[Array, " R"]) -> DecodeCache:
        return self.cached.reorder(cache, parents)


class StopAt:
    """A language model that ends a caption with another token, as a newline: its mass moves to the end mark.

    `score[end] = logsumexp(score[end], score[stop])`, and the other is never written (section 3.2).
    """

    def __init__(self, model: LanguageModel, *, stop_id: int, end_id: int):
        self.model, self.stop_id, self.end_id = model, stop_id, end_id
        self.start, self.reorder = model.start, model.reorder

    def step(self, ids: Int[Array, " R"], position: Int[Array, ""], cache: Any) -> tuple[Float[Array, "R V"], Any]:
        logits, cache = self.model.step(ids, position, cache)
        end = jnp.logaddexp(logits[:, self.end_id], logits[:, self.stop_id])
        never = jnp.finfo(logits.dtype).min
        return logits.at[:, self.end_id].set(end).at[:, self.stop_id].set(never), cache


class GuidanceWeights(NamedTuple):
    """Exponents of the factors of the next token's probability.

    Classifier-free guidance with scale `g` is `GuidanceWeights(g, 1 - g)`. Guidance by a language model `q` with `a`
    and `b` is `GuidanceWeights(a, -b, 1)`; with the captioner's own `p(x)` as `q`, `GuidanceWeights(a, 1 - b)`.
    """

    conditional: Number = 1.0
    unconditional: Number = 0.0
    language: Number = 0.0


class NextToken:
    """Log-probabilities of the next token under guidance, for every decoding strategy."""

    def __init__(self, cached: CachedDecoder, weights: GuidanceWeights, language: LanguageModel | None = None):
        """Combines the factors.

        Args:
            cached: With a conditional branch, and an unconditional one where that has a weight.
            weights: May be traced, so that a sweep compiles once.
            language: A text model.
        """
        self.cached, self.language = cached, language
        by_branch = {"conditional": weights.conditional, "unconditional": weights.unconditional}
        self.weights = [by_branch[branch] for branch in cached.branches]
        self.language_weight = weights.language

    def start(self, rows: int) -> Any:
        """The state before the first token of this many captions."""
        return self.cached.start(rows), self.language.start(rows) if self.language is not None else None

    def step(
        self, ids: Int[Array, " R"], position: Int[Array, ""], state: Any
    ) -> tuple[Float[Array, "R V"], Float[Array, "R V"], Any]:
        """Log-probabilities of the next token, guided and given the image alone, and the new state."""
        cache, language_state = state
        logits, cache = self.cached.step(ids, position, cache)
        plain = jax.nn.log_softmax(logits[0])
        if len(self.weights) == 1 and self.language is None:
            return plain, plain, (cache, None)
        parts = list(zip(logits, self.weights, strict=True))
        if self.language is not None:
            language_logits, language_state = self.language.step(ids, position, language_state)
            parts.append((language_logits, self.language_weight))
        return weighted_log_probs(parts), plain, (cache, language_state)

    def reorder(self, state: Any, parents: Int[Array, " R"]) -> Any:
        """The state after beams were chosen: row `i` continues row `parents[i]`."""
        cache, language_state = state
        language = self.language
        return self.cached.reorder(cache, parents), language and language.reorder(language_state, parents)
