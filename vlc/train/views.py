"""What a step sees beside the batch: what is hidden or dropped of it, crops, and what a teacher says of it."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from vlc.config import Config
from vlc.models import DualEncoder
from vlc.objectives import parts_used
from vlc.train.patches import random_patches

Batch = dict[str, jax.Array]


def add_views(config: Config, batch: Batch, key: jax.Array) -> Batch:
    """The batch with all that is drawn for it; what is drawn depends on the key alone."""
    rows = batch["image"].shape[:1]
    image = config.model.image
    batch = batch | {"null": jax.random.bernoulli(key, config.objectives.caption.null_rate, rows)}
    if rate := config.model.decoder.parallel:
        batch["parallel"] = jax.random.bernoulli(jax.random.fold_in(key, 1), rate, rows)
    if image.drop_patches:
        batch["kept"] = random_patches(batch["image"], image.patch, image.drop_patches, jax.random.fold_in(key, 2))
    uses = parts_used(config.objectives)
    if (points := config.objectives.region_caption.points) and "region_captions" in uses:
        told = some_as_points(batch["boxes"], batch["cover"], points, jax.random.fold_in(key, 5))
        batch["told_boxes"], batch["told_cover"] = told
    if image.mask_prompt:
        batch["inside"] = batch["cover"][:, 0] > 0
    if "hidden" in uses:
        seen = 1 - config.objectives.masked.share
        batch["hidden"] = random_patches(batch["image"], image.patch, seen, jax.random.fold_in(key, 3))
    if "crops" in uses:
        local = config.objectives.local_global
        size = local.size or max(1, config.data.image.size // (2 * image.patch)) * image.patch
        area = (local.area[0], local.area[1])
        batch["crops"] = random_crops(batch["image"], size, local.crops, area, jax.random.fold_in(key, 4))
    return batch


def some_as_points(
    boxes: Float[Array, "B R 4"], cover: Float[Array, "B R P"], share: float, key: jax.Array
) -> tuple[Float[Array, "B R 4"], Float[Array, "B R P"]]:
    """Regions as the captioner is told them, some by a point in the middle half of their box: a box of no size, and the
    one patch there, as `Model.caption(points=)` tells them.

    Args:
        boxes: Of the regions.
        cover: Likewise, of a square of patches, row by row.
        share: Of the regions that are told by a point.
        key: All randomness comes from here.
    """
    of_choice, of_place = jax.random.split(key)
    place = jax.random.uniform(of_place, (*boxes.shape[:2], 2), minval=0.25, maxval=0.75)
    points = boxes[..., :2] + place * (boxes[..., 2:] - boxes[..., :2])
    chosen = jax.random.bernoulli(of_choice, share, boxes.shape[:2])
    grid = math.isqrt(cover.shape[2])
    across, down = jnp.moveaxis(jnp.clip((points * grid).astype(jnp.int32), 0, grid - 1), -1, 0)
    patch = jax.nn.one_hot(down * grid + across, grid * grid, dtype=cover.dtype)
    there = chosen & (cover > 0).any(axis=-1)
    return (
        jnp.where(there[..., None], jnp.concatenate([points, points], axis=-1), boxes),
        jnp.where(there[..., None], patch, cover),
    )


def random_crops(
    images: UInt8[Array, "B S S 3"], size: int, count: int, area: tuple[float, float], key: jax.Array
) -> UInt8[Array, "B N s s 3"]:
    """Square crops of a random share of each picture, resampled without aliasing."""
    rows, side = images.shape[0], images.shape[1]
    of_area, of_place = jax.random.split(key)
    length = side * jnp.sqrt(jax.random.uniform(of_area, (rows, count), minval=area[0], maxval=area[1]))
    start = jax.random.uniform(of_place, (rows, count, 2)) * (side - length)[..., None]

    def crop(image: Array, length: Array, start: Array) -> Array:
        scale = jnp.full(2, size / length)
        made = jax.image.scale_and_translate(
            image.astype(jnp.float32), (size, size, 3), (0, 1), scale, -start * scale, "linear", antialias=True
        )
        return jnp.clip(jnp.round(made), 0, 255).astype(jnp.uint8)

    return jax.vmap(jax.vmap(crop, (None, 0, 0)))(images, length, start)


def needs_average(config: Config) -> bool:
    """Whether the moving average of the parameters teaches."""
    uses = parts_used(config.objectives)
    return bool(uses & {"crops", "hidden"}) or ("teacher" in uses and not config.objectives.distill.teacher)


def taught(
    config: Config, batch: Batch, average: DualEncoder | None, teacher: Callable[[Batch], Batch] | None
) -> Batch:
    """What the teachers of a run say of a batch, image by image; no gradient is taken of it.

    Args:
        config: Of the run.
        batch: With its views.
        average: The model with the moving average of the parameters, where it teaches.
        teacher: Gives `teacher_*` of a batch, by another model.
    """
    uses, says = parts_used(config.objectives), {}
    if average is not None and uses & {"crops", "hidden"}:
        whole, patches = average.encode_view(batch["image"], at=batch.get("hidden"))
        if "crops" in uses:
            says["teacher_whole"] = whole
        if "hidden" in uses:
            says["teacher_hidden"] = patches
    if "teacher" in uses:
        says |= (teacher or embeddings_of(average))(batch)
    return jax.lax.stop_gradient(says)


def embeddings_of(model: DualEncoder | None, size: int = 0) -> Callable[[Batch], Batch]:
    """What a model says of a batch.

    Args:
        model: The teacher.
        size: Pixels on a side of its images; 0: those of the batch.
    """
    assert model is not None

    def says(batch: Batch) -> Batch:
        image = model.encode_image(resized(batch["image"], size) if size else batch["image"]).embed
        text = model.encode_text(batch["text"]).embed
        scale = jnp.broadcast_to(model.scales().logit_scale, image.shape[:1])
        return {"teacher_image": image, "teacher_text": text, "teacher_scale": scale}

    return says


def resized(images: UInt8[Array, "B S S 3"], size: int) -> UInt8[Array, "B s s 3"]:
    """The pictures as another model takes them."""
    if images.shape[1] == size:
        return images
    made = jax.image.resize(images.astype(jnp.float32), (len(images), size, size, 3), "linear", antialias=True)
    return jnp.clip(jnp.round(made), 0, 255).astype(jnp.uint8)
