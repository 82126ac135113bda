"""Queries that find the regions of a picture and say which of the batch's texts is theirs (GRAIN)."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from vlc.data.boxes import box_iou
from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.settings import number

_FAR = 1e4  # the cost of a region that is not there: matched last


def match(cost: Float[Array, "B Q R"], there: Bool[Array, "B R"]) -> Int[Array, "B R"]:
    """The query of each region, so that no two have one and the sum of costs is least; -1 of regions without one.

    There are fewer queries than regions where an image has many: the cheapest are matched.
    """
    cost = jnp.where(there[:, None], jax.lax.stop_gradient(cost), _FAR)
    rows, columns = jax.vmap(optax.assignment.hungarian_algorithm)(cost)
    found = jnp.full(there.shape, -1, jnp.int32)
    found = found.at[jnp.arange(len(found))[:, None], columns].set(rows.astype(jnp.int32))
    return jnp.where(there, found, -1)


def query_loss(
    boxes: Float[Array, "B Q 4"],
    embeds: Float[Array, "B Q D"],
    nothing: Float[Array, " D"],
    truth: Float[Array, "B R 4"],
    texts: Float[Array, "B R D"],
    mask: Float[Array, "B R"],
    logit_scale: Float[Array, ""] | float,
    *,
    ids: Float[Array, "B R 3"],
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """L1 and 1 - GIoU of matched boxes, and the cross-entropy of the text that each query chooses.

    A query chooses among the texts of all regions of the batch, equal ones counted once, and `nothing`, which is right
    where it is not matched. Regions and queries are matched by `-p(text) + L1 + 1 - GIoU`, the least sum (Hungarian).

    Args:
        boxes: Of the queries, as shares.
        embeds: Unit length.
        nothing: Unit length.
        truth: Boxes of the regions.
        texts: Unit length; of the regions.
        mask: 1 for regions that there are.
        logit_scale: The multiplier, 1/temperature.
        ids: Equal for equal texts.

    Returns:
        The three terms: the first two are means over matched regions, the third over queries.
    """
    there, size = mask > 0, mask.size
    flat, flat_there = ids.reshape(size, -1), there.reshape(-1)
    equal = (flat[:, None] == flat[None]).all(axis=-1) & flat_there[:, None] & flat_there[None]
    first = jnp.argmax(equal, axis=1).reshape(mask.shape)  # the column that stands for a text
    kept = flat_there & (jnp.argmax(equal, axis=1) == jnp.arange(size))
    logits = logit_scale * jnp.einsum(
        "bqd,nd->bqn", embeds, texts.reshape(size, -1), preferred_element_type=jnp.float32, precision="highest"
    )
    logits = jnp.where(kept, logits, -jnp.inf)
    none = logit_scale * jnp.einsum("bqd,d->bq", embeds, nothing, precision="highest")
    log_share = jax.nn.log_softmax(jnp.concatenate([none[..., None], logits], axis=2), axis=2)

    rows = jnp.arange(len(mask))[:, None, None]
    own = log_share[rows, jnp.arange(boxes.shape[1])[None, :, None], 1 + first[:, None]]  # [B, Q, R]
    apart = jnp.abs(boxes[:, :, None] - truth[:, None]).sum(axis=-1)
    _, giou = box_iou(boxes[:, :, None], truth[:, None])
    query = match(-jnp.exp(own) + apart + 1 - giou, there)

    matched = query >= 0
    at = (jnp.arange(len(mask))[:, None], jnp.maximum(query, 0), jnp.arange(mask.shape[1])[None])
    count = jnp.maximum(matched.sum(), 1)
    right = jnp.where(matched, own[at] - log_share[at[0], at[1], 0], 0).sum() + log_share[:, :, 0].sum()
    return (
        jnp.where(matched, apart[at], 0).sum() / count,
        jnp.where(matched, 1 - giou[at], 0).sum() / count,
        -right / log_share[:, :, 0].size,
    )


class RegionBoxes(Weighted):
    """Queries find the boxes of regions, and their texts (GRAIN)."""

    l1 = number(1.0, "weight of the distance of corners, as shares (DETR: 5)", low=0)
    giou = number(1.0, "weight of 1 - GIoU (DETR: 2)", low=0)
    text = number(1.0, "weight of the cross-entropy of texts", low=0)


def _loss(encoded: Encoded, scales: Scales, options: Any) -> Array:
    l1, giou, text = query_loss(
        encoded.query_boxes, encoded.query_embed, encoded.query_nothing[0], encoded.region_boxes,
        encoded.region_text_embed, encoded.region_mask, scales.logit_scale, ids=encoded.region_id,
    )  # fmt: skip
    return options.l1 * l1 + options.giou * giou + options.text * text


REGION_BOXES = Objective("region_boxes", RegionBoxes, ("queries", "region_texts"), _loss)
