"""Bags of images that look alike, mined by a model's own embeddings (No Detail Left Behind, arXiv 2409.03025)."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vlc.data.record import Source
from vlc.errors import DataError
from vlc.inference.comparison import compared_by
from vlc.inference.model import Model

_BLOCK = 2048  # images that are compared with all others at once


def mine_bags(embed: Float[np.ndarray, "N D"], size: int, *, neighbours: int = 64) -> Int[np.ndarray, "M S"]:
    """Bags of `size` images, none of which is in two.

    The image whose nearest is nearest of all begins, and takes its nearest that are still free; then the next. One of
    whose neighbours too few are free begins none.

    Args:
        embed: Of unit length.
        size: Of a bag.
        neighbours: The nearest of an image that are looked at.

    Returns:
        Numbers of images: who begins, and then by how alike they are.

    Raises:
        DataError: There are fewer images than a bag has.
    """
    if len(embed) < size:
        raise DataError(f"{len(embed)} images make no bag of {size}.")
    count = min(max(neighbours, size), len(embed) - 1)
    scores, places = (np.concatenate(parts) for parts in zip(*_nearest(embed, count), strict=True))
    free, bags = np.ones(len(embed), bool), []
    for first in np.argsort(-scores[:, 0], kind="stable"):
        if not free[first]:
            continue
        others = places[first][free[places[first]]][: size - 1]
        if len(others) == size - 1:
            bags.append([int(first), *others.tolist()])
            free[[first, *others]] = False
    return np.asarray(bags, np.int64).reshape(-1, size)


def embedded(
    model: Model, source: Source, most: int
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, "N D"], dict[str, int]]:
    """Numbers and embeddings of evenly spaced records whose images can be read, and how many cannot be, by reason.

    Args:
        model: A dual encoder.
        source: Of images.
        most: How many; 0: all.

    Raises:
        ConfigError: The model was not trained to compare embeddings.
    """
    compared_by(model, "embed")
    count = min(most or len(source), len(source))
    numbers: list[int] = []
    skipped: Counter[str] = Counter()

    def images() -> Iterator[Any]:
        for place in range(count):
            index = place * len(source) // count
            try:
                image = source[index].image
                model.preprocess(image)
            except DataError as error:
                skipped[error.reason] += 1
                continue
            numbers.append(index)
            yield image

    found = [seen.embed for seen in model.encode_image_batches(images())]
    embed = np.concatenate(found) if found else np.zeros((0, model.config.model.embed_dim), np.float32)
    return np.asarray(numbers, np.int64), embed, dict(skipped)


def _nearest(embed: Float[np.ndarray, "N D"], count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cosines and numbers of the nearest of each image but itself, some images at a time."""
    everything = jnp.asarray(embed, jnp.float32)

    @jax.jit
    def of_block(rows: jax.Array, first: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = rows @ everything.T
        own = first + jnp.arange(len(rows))
        return jax.lax.top_k(jnp.where(own[:, None] == jnp.arange(len(everything)), -jnp.inf, scores), count)

    for start in range(0, len(embed), _BLOCK):
        yield jax.device_get(of_block(everything[start : start + _BLOCK], jnp.int32(start)))
