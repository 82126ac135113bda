"""Image-text retrieval both ways, with any number of captions an image."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from vlc.evaluate.embeddings import Embedded
from vlc.evaluate.metrics.ranking import Block, block_ranks, recall
from vlc.models import ImageEncoding, TextEncoding
from vlc.similarity import late_interaction

_TEXTS = 256  # scored at once by late interaction
_IMAGES = 4096  # of which embeddings are compared with as many texts at once
_HELD = 1 << 26  # scores that are kept for the second look; more are computed again


def token_scores(
    image_tokens: Float[np.ndarray, "B P D"], text: TextEncoding, *, one_way: bool = False, block: int = _TEXTS
) -> tuple[Float[np.ndarray, "B N"], Float[np.ndarray, "B N"]]:
    """`late_interaction` of all images with all texts, in blocks of texts, so that device memory stays bounded.

    Args:
        image_tokens: Of the images; those of pads are zeros.
        text: The texts.
        one_way: Whether images rank texts as texts rank images, as the model was trained (`Encoder.one_way`).
        block: Texts at once.
    """
    images, there = jnp.asarray(image_tokens), mask_of_stored(image_tokens)
    columns = []
    count = len(text.mask)
    for start in range(0, count, block):
        part = slice(start, start + block)
        fill = ((0, block - len(text.mask[part])), (0, 0))
        tokens, mask = np.pad(text.tokens[part], (*fill, (0, 0))), np.pad(text.mask[part], fill)
        columns.append(jax.device_get(_late_interaction(images, tokens, mask, image_mask=there)))
    i2t, t2i = (np.concatenate(matrices, axis=1)[:, :count] for matrices in zip(*columns, strict=True))
    return (t2i, t2i) if one_way else (i2t, t2i)


def mask_of_stored(image_tokens: Float[np.ndarray, "B P D"]) -> np.ndarray | None:
    """Which patches there are: tokens have unit length, and those of pads are zeros. `None`: all of them."""
    there = image_tokens.any(axis=-1)
    return None if there.all() else there


_late_interaction = jax.jit(late_interaction)


@jax.jit
def _cosines(images: jax.Array, texts: jax.Array) -> jax.Array:
    return jnp.matmul(images, texts.T, precision="highest")


def cosines(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Of rows of unit length, on the device and in full precision."""
    return np.asarray(_cosines(images, texts))


def embed_blocks(images: np.ndarray, texts: np.ndarray) -> Iterator[Block]:
    """Cosines of all pairs."""
    for i in range(0, len(images), _IMAGES):
        for t in range(0, len(texts), _IMAGES):
            rows, columns = images[i : i + _IMAGES], texts[t : t + _IMAGES]
            scores = cosines(rows, columns)
            yield Block(slice(i, i + len(rows)), slice(t, t + len(columns)), scores, scores)


def token_blocks(
    images: Iterable[np.ndarray], texts: Callable[[], Iterable[TextEncoding]], *, one_way: bool
) -> Iterator[Block]:
    """Late interaction of all pairs, a part of the images with a part of the texts at a time."""
    row = 0
    for tokens in images:
        column = 0
        for text in texts():
            scores = token_scores(tokens, text, one_way=one_way)
            yield Block(slice(row, row + len(tokens)), slice(column, column + len(text.mask)), *scores)
            column += len(text.mask)
        row += len(tokens)


def recalls(make_blocks: Callable[[], Iterable[Block]], owner: Int[np.ndarray, " N"], images: int) -> dict[str, float]:
    """Recall both ways: an image finds any of its captions, a caption finds its image.

    Args:
        make_blocks: Scores, each time from the start; few are kept between the two looks that ranking takes.
        owner: The image of each text.
        images: How many there are.
    """
    if images * len(owner) <= _HELD:
        kept = list(make_blocks())
        image_rank, text_rank = block_ranks(lambda: kept, owner, images)
    else:
        image_rank, text_rank = block_ranks(make_blocks, owner, images)
    return recall(image_rank, "i2t") | recall(text_rank, "t2i")


def both_retrievals(
    image: ImageEncoding,
    text: TextEncoding,
    owner: Sequence[int],
    *,
    by: Sequence[str] = ("embed", "tokens"),
    one_way: bool = False,
) -> dict[str, dict[str, float]]:
    """Recall by embedding (`embed`) and by late interaction (`tokens`: images rank with i2t, texts with t2i)."""
    index, count = np.asarray(owner), len(image.embed)
    blocks: dict[str, Callable[[], Iterable[Block]]] = {
        "embed": lambda: embed_blocks(image.embed, text.embed),
        "tokens": lambda: token_blocks([image.tokens], lambda: [text], one_way=one_way),
    }
    return {how: recalls(blocks[how], index, count) for how in ("embed", "tokens") if how in by}


def stored_recalls(image: Embedded, text: Embedded, owner: np.ndarray, by: str, *, one_way: bool) -> dict[str, float]:
    """Recall of embeddings on disk, by `embed` or `tokens`.

    Args:
        image: Images.
        text: The texts of those images that can be read.
        owner: The image of each text, among those that can be read.
        by: What is compared.
        one_way: Of `token_scores`.
    """
    count = len(image.kept)
    if by == "tokens":

        def texts() -> Iterator[TextEncoding]:
            return (TextEncoding(tokens, tokens[:, 0], mask) for tokens, mask in text.blocks("tokens", "mask"))

        return recalls(lambda: token_blocks(image.token_blocks(), texts, one_way=one_way), owner, count)
    return recalls(lambda: embed_blocks(image.embed, text.embed), owner, count)
