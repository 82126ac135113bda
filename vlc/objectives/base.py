"""What an objective is to a config and to the train step, and the encodings that objectives compare."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
from jaxtyping import Array

from vlc.models import Scales
from vlc.settings import Section, choice, number

DUPLICATES = "duplicates"
Part = Literal[
    "text_embed", "text_tokens", "sub_captions", "hard_texts", "image_tokens", "caption", "teacher", "crops", "hidden",
    "regions", "region_texts", "region_hard", "region_captions", "queries", "attributes", "classes",
    "region_classes", "cycle", "written", "grammar",
]  # fmt: skip


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
    image_mask: Any = None  # [B, P], 1 for patches that there are; where images have grids of their own
    distinct: Any = None  # [B, K], 1 for captions that are not again one of the same image
    text_id: Any = None  # [B, K, 3], equal for equal captions; where a loss ignores duplicates
    image_id: Any = None  # [B, 3]
    classes: Any = None  # [B, 3], equal for equal classes; -1 of none
    hard_embed: Any = None  # [B, H, D], of wrong texts of each image
    hard_tokens: Any = None  # [B, H, T, D]
    hard_mask: Any = None  # [B, H, T], 1 for real tokens; a text that is not there has none
    grammar: Any = None  # [B], log-odds that the main caption is well formed
    grammar_of_broken: Any = None  # [B], likewise of its broken copy
    broken_there: Any = None  # [B], 1 for copies that there are
    teacher_image: Any = None  # [B, E], of another model, or of the moving average
    teacher_text: Any = None  # [B, E], of the main caption
    teacher_scale: Any = None  # [B], its multiplier of similarities
    sampled_log_prob: Any = None  # [B, K, T], of captions that were written, a token at a time
    sampled_old: Any = None  # [B, K, T], by the parameters that wrote them; where others do by now
    sampled_mask: Any = None  # [B, K, T], 1 up to the end mark, that included
    sampled_first: Any = None  # [B, K, T], by the model that training began with
    sampled_kl: Any = None  # [B, K, T], the divergence from the reference
    reward: Any = None  # [B, K]
    reward_baseline: Any = None  # [B]
    cycle_nll: Any = None  # [B], of captions that are reconstructed
    crops: Any = None  # [B, N, K], what crops of each image choose among K prototypes
    teacher_whole: Any = None  # [B, K], what the average chooses for the whole image
    hidden: Any = None  # [B, M, K], what hidden patches choose
    teacher_hidden: Any = None  # [B, M, K], what the average chooses there, where it sees them
    region_embed: Any = None  # [B, R, D]
    region_text_embed: Any = None  # [B, R, D]
    region_mask: Any = None  # [B, R], 1 for regions that there are
    region_id: Any = None  # [B, R, 3], equal for equal texts
    region_hard_embed: Any = None  # [B, R, H, D], of wrong texts of each region
    region_hard_mask: Any = None  # [B, R, H], 1 for those that there are
    region_classes: Any = None  # [B, R, 3], equal for equal classes; -1 of none
    region_boxes: Any = None  # [B, R, 4]
    region_nll: Any = None  # [B, R], of their captions
    region_count: Any = None  # [B, R]
    attribute_score: Any = None  # [B, A], of the best region for each attribute
    attribute_present: Any = None  # [B, A], 1 for attributes that captions name
    query_boxes: Any = None  # [B, Q, 4], what queries found
    query_embed: Any = None  # [B, Q, D]
    query_nothing: Any = None  # [B, D], the vector of nothing, again for each image


class Weighted(Section):
    """Settings that every objective has."""

    weight = number(0.0, "weight in the total loss; 0: left out", low=0)


class Contrastive(Weighted):
    """Settings of an objective that compares the records of a batch."""

    duplicates = choice(
        "negatives", ("negatives", "ignored"), "equal captions or images of other records: negatives, as in the papers"
    )


class Exchanged(Contrastive):
    """Settings of an objective that compares all pairs of a batch."""

    exchange = choice("gather", ("gather", "ring"), "over several devices; the memory of `ring` stays flat")
    hard_texts = number(
        0.0, "weight of the wrong texts of the batch among those that an image chooses from (NegCLIP: 1); 0: left out",
        low=0,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss term. One in `OBJECTIVES` can be given a weight in any config; nothing else need know of it.

    Attributes:
        name: Under `config.objectives`.
        settings: Its section, a subclass of `Weighted`.
        uses: Parts of `Encoded` that it reads, beside `image_embed`.
        loss: The term, from the encoded batch, the learned scales, and its own settings.
        compares: Whether it trains images and texts to be compared by `embed` or by `tokens`; empty: by neither.
    """

    name: str
    settings: type[Weighted]
    uses: tuple[Part, ...]
    loss: Callable[[Encoded, Scales, Any], Array]
    compares: Literal["", "embed", "tokens"] = ""
