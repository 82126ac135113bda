"""Retrieval from a gallery of any size: it streams by in blocks, and only the best k of each query stay on the device.

The gallery is any iterable of blocks, such as slices of memory-mapped arrays. While a block is scored, the next one is
read and sent; at most three are on the device at a time.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vlc.errors import ConfigError
from vlc.similarity.core import late_interaction
from vlc.similarity.padding import pad_axis

_AHEAD = 2  # blocks that may wait behind the one that is scored

Tokens = Float[Array, "N T D"] | Float[np.ndarray, "N T D"]
Mask = Bool[Array, "N T"] | Bool[np.ndarray, "N T"]


class Found(NamedTuple):
    """What each query finds, the best first, and of equals the one that came first.

    Attributes:
        scores: `[Q, k]` float32; -inf where the gallery held fewer than k.
        places: `[Q, k]`, numbers of gallery items counted over all blocks; -1 where the gallery held fewer than k.
    """

    scores: Float[np.ndarray, "Q k"]
    places: Int[np.ndarray, "Q k"]


def find_texts(image_tokens: Tokens, gallery: Iterable[tuple[Tokens, Mask]], k: int, **options: Any) -> Found:
    """The k texts that each image likes best, by the image-to-text scores of `vlc.late_interaction`.

    Args:
        image_tokens: `[Q, P, D]`, the queries.
        gallery: Blocks of text tokens `[n, T, D]` and their mask `[n, T]`; T may differ from block to block.
        k: How many to find.
        **options: Of `vlc.late_interaction`.

    Raises:
        ConfigError: k is not positive, the gallery is empty, or shapes do not belong together.
    """

    def score(queries: Array, block: tuple[Array, Array]) -> Array:
        return late_interaction(queries, *block, **options)[0]

    return _find(score, jnp.asarray(image_tokens), gallery, len(image_tokens), k)


def find_images(text_tokens: Tokens, text_mask: Mask, gallery: Iterable[Tokens], k: int, **options: Any) -> Found:
    """The k images that each text likes best, by the text-to-image scores of `vlc.late_interaction`.

    Args:
        text_tokens: `[Q, T, D]`, the queries.
        text_mask: `[Q, T]`.
        gallery: Blocks of image tokens `[n, P, D]`.
        k: How many to find.
        **options: Of `vlc.late_interaction`.

    Raises:
        ConfigError: k is not positive, the gallery is empty, or shapes do not belong together.
    """

    def score(queries: tuple[Array, Array], block: Array) -> Array:
        return late_interaction(block, *queries, **options)[1].T

    queries = jnp.asarray(text_tokens), jnp.asarray(text_mask)
    return _find(score, queries, gallery, len(text_tokens), k)


def _find(score: Callable[[Any, Any], Array], queries: Any, gallery: Iterable[Any], count: int, k: int) -> Found:
    if k < 1:
        raise ConfigError(f"k is {k}; at least one is to be found.")
    visit = jax.jit(functools.partial(_visit, score))
    best = jnp.full((count, k), -jnp.inf, jnp.float32), jnp.full((count, k), -1, jnp.int32)
    waiting: deque[Array] = deque()
    seen = rows = 0
    for block in gallery:
        size = len(jax.tree.leaves(block)[0])
        rows = max(rows, size)  # so that a last, shorter block needs no program of its own
        best = visit(best, queries, jax.tree.map(functools.partial(_filled, rows), block), size, seen)
        seen += size
        waiting.append(best[0])
        if len(waiting) > _AHEAD:
            waiting.popleft().block_until_ready()
    if not seen:
        raise ConfigError("The gallery is empty: there is nothing to find.")
    return Found(*jax.device_get(best))


def _filled(rows: int, x: Any) -> Array:
    return pad_axis(jnp.asarray(x), 0, rows)


def _visit(score: Callable, best: tuple[Array, Array], queries: Any, block: Any, size: Array, first: Array):
    """The best of what was known and of a block of `size` items, of which the first has the number `first`."""
    scores = score(queries, block)
    places = jnp.arange(scores.shape[1])
    scores = jnp.where((places < size) & jnp.isfinite(scores), scores, -jnp.inf)  # a damaged item is never found
    k = best[0].shape[1]
    top, where = jax.lax.top_k(scores, min(k, scores.shape[1]))
    known = jnp.concatenate([best[0], top], axis=1)
    numbers = jnp.concatenate([best[1], jnp.where(where < size, first + where, -1)], axis=1)
    scores, chosen = jax.lax.top_k(known, k)
    return scores, jnp.take_along_axis(numbers, chosen, axis=1)


def in_blocks(size: int, *arrays: Any) -> Iterator[Any]:
    """Slices of `size` rows of one array, or tuples of slices of several, e.g. of memory-mapped files."""
    for start in range(0, len(arrays[0]), size):
        parts = tuple(array[start : start + size] for array in arrays)
        yield parts if len(arrays) > 1 else parts[0]
