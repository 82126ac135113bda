"""FILIP's loss: both softmaxes over token-wise similarities."""

import functools
from typing import Any

from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError
from vlc.models import Scales
from vlc.models.layers import batch_shares
from vlc.objectives.base import Encoded, Exchanged, Objective
from vlc.objectives.contrastive import cross_entropy_of_pairs, refuse_same, same_of
from vlc.objectives.duplicates import without, without_wide
from vlc.objectives.further_texts import Further, check_weight, further_texts, with_further
from vlc.settings import choice, number, numbers
from vlc.similarity import late_interaction
from vlc.similarity.ragged import mark_images, mark_texts, of_marked
from vlc.similarity.ring import Ring, ring_axes, ring_softmax_loss, weigh_further
from vlc.similarity.selection import select_tokens

SCORES = ("both", "text")


def filip_loss(
    image_tokens: Float[Array, "B P D"],
    text_tokens: Float[Array, "B T D"],
    text_mask: Bool[Array, "B T"],
    logit_scale: Float[Array, ""] | float,
    *,
    implementation: str = "auto",
    smoothing: float = 0.0,
    exchange: str = "gather",
    keep_tokens: float = 1.0,
    buckets: tuple[int, ...] = (),
    scores: str = "both",
    same: Bool[Array, "B B"] | None = None,
    further: Further | None = None,
    further_weight: float = 1.0,
    image_mask: Bool[Array, "B P"] | None = None,
) -> Float[Array, ""]:
    """Token-wise contrastive loss (FILIP, arXiv 2111.07783, eq. 2-5).

    `L = 1/2 [CE over texts of s i2t + CE over images of s t2i]`, with `i2t` and `t2i` from `vlc.late_interaction`. Pads
    enter neither the maxima nor the means.

    Args:
        image_tokens: `[B, P, D]`, unit length.
        text_tokens: `[B, T, D]`, unit length; row i belongs to image i.
        text_mask: `[B, T]`, true for real tokens (begin and end marks included).
        logit_scale: The multiplier s, 1/temperature.
        implementation: Of `vlc.late_interaction`.
        smoothing: Of `vlc.late_interaction`.
        exchange: How devices compare their shares of the batch. `gather`: each scores its images against all texts.
            `ring`: texts travel from device to device, so memory does not grow with their number.
        keep_tokens: Share of the tokens that take part, those most similar to anything in the local batch
            (section 3.1; the paper keeps 0.25); 1 is all.
        buckets: Of `vlc.late_interaction`.
        scores: `both` as above. `text`: the images too choose among the texts by `t2i`, the mean over the words of a
            text of the best patch of each (MaxSim of ColBERT, arXiv 2004.12832, section 3.3). No patch then has to
            resemble a word.
        same: Pairs that are no negatives, off the diagonal (`objectives.duplicates`).
        further: Tokens `[B, H, T, D]` of wrong texts, which all images choose from too (NegCLIP, arXiv 2210.01936), and
            1 `[B, H, T]` for real ones; a text of none is not there.
        further_weight: How much each of these texts counts in the softmax.
        image_mask: Of `vlc.late_interaction`.

    Raises:
        ConfigError: An option is unknown or out of range, or `ring` is to leave pairs out, or tokens are to be left out
            where there are wrong texts, whose tokens are not chosen.
    """
    check_weight(further_weight, further, keep_tokens=keep_tokens < 1)
    if not 0 < keep_tokens <= 1:
        raise ConfigError(f"filip_loss: keep_tokens is {keep_tokens}; it is a share, above 0 and at most 1.")
    if image_mask is not None:
        image_tokens, text_tokens = mark_images(image_tokens, image_mask, smoothing=smoothing), mark_texts(text_tokens)
        further = further and (mark_texts(further[0]), further[1])
    if keep_tokens < 1:
        image_tokens, text_tokens, text_mask = select_tokens(
            image_tokens, text_tokens, text_mask, keep=keep_tokens, groups=batch_shares(len(image_tokens))
        )
    if scores not in SCORES:
        raise ConfigError(f"filip_loss: scores is {scores!r}; it must be one of {SCORES}.")
    score = functools.partial(_score, implementation, smoothing, tuple(buckets))
    score = score if image_mask is None else of_marked(score, smoothing=smoothing)
    score = functools.partial(_one_way, score) if scores == "text" else score
    texts: Any = text_tokens
    mask: Any = text_mask
    if further is not None:
        score, texts, mask = with_further(score), (text_tokens, further[0]), (text_mask, further[1])
    if axes := ring_axes(exchange, len(image_tokens)):
        refuse_same(same)
        ring = Ring(score, axes, len(image_tokens), further=further_weight)
        i2t, t2i = ring_softmax_loss(ring, image_tokens, texts, mask, logit_scale)
        return 0.5 * (i2t + t2i)
    i2t, t2i = (logit_scale * x for x in score(image_tokens, texts, mask))
    i2t = weigh_further(i2t, len(image_tokens), further_weight)
    return 0.5 * (cross_entropy_of_pairs(without_wide(i2t, same), 1) + cross_entropy_of_pairs(without(t2i, same), 0))


def _score(
    implementation: str, smoothing: float, buckets: tuple[int, ...], images: Array, texts: Array, mask: Array
) -> tuple[Array, Array]:
    return late_interaction(images, texts, mask, implementation=implementation, smoothing=smoothing, buckets=buckets)


def _one_way(score: Any, images: Array, texts: Array, mask: Array) -> tuple[Array, Array]:
    _, t2i = score(images, texts, mask)
    return t2i, t2i


class Filip(Exchanged):
    """Softmax contrastive loss of token-wise late interaction (FILIP)."""

    implementation = choice(
        "auto", ("auto", "xla", "pallas_tpu", "pallas_gpu", "reference"), "of late interaction (docs/kernels.md)"
    )
    dtype = choice("auto", ("auto", "float32", "bfloat16"), "of the tokens that are compared, as `model.dtype`")
    smoothing = number(0.0, "temperature of soft maxima; 0: maxima", low=0)
    keep_tokens = number(1.0, "share of tokens that take part; FILIP keeps 0.25", above=0, high=1)
    scores = choice("both", SCORES, "of patches and of words, or of words alone, for both softmaxes (ColBERT's MaxSim)")
    buckets = numbers(
        (), "widths that captions of similar length are cut to, (16, 32, 48); the loss is the same", low=1, rising=True
    )


def _filip(encoded: Encoded, scales: Scales, options: Any) -> Array:
    def compared(tokens: Array) -> Array:
        """In the type that tokens are compared in: the kernels are made for bfloat16."""
        return tokens if options.dtype == "auto" else tokens.astype(options.dtype)

    further = further_texts(encoded, options, tokens=True)
    return filip_loss(
        compared(encoded.image_tokens), compared(encoded.text_tokens), encoded.text_mask > 0, scales.token_logit_scale,
        implementation=options.implementation, smoothing=options.smoothing, exchange=options.exchange,
        keep_tokens=options.keep_tokens, buckets=tuple(options.buckets), scores=options.scores,
        same=same_of(encoded, options),
        further=further and (compared(further[0]), further[1] > 0), further_weight=options.hard_texts,
        image_mask=None if encoded.image_mask is None else encoded.image_mask > 0,
    )  # fmt: skip


FILIP = Objective("filip", Filip, ("image_tokens", "text_tokens"), _filip, compares="tokens")
