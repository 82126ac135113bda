"""Decoding a token at a time, with cached keys and values of the tokens so far and of the images."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlc.models.captioner import CaptionDecoder
from vlc.models.coca import TextReadingDecoder
from vlc.models.dual_encoder import DualEncoder, ImageEncoding
from vlc.models.layers import KeyValue

Branch = Literal["conditional", "unconditional"]


class Blocks(NamedTuple):
    """The layers of a captioner one by one: of the text tower, where the decoder reads it, and of the decoder."""

    text: list[Any]
    decoder: list[Any]


def unstack_layers(model: DualEncoder) -> Blocks:
    """The layers that decoding runs. Made once, they save slicing the stacked parameters at every call."""
    decoder, text = model.captioner(), model.text_tower
    read = text.stack.unstack() if isinstance(decoder, TextReadingDecoder) and text is not None else []
    return Blocks(read, decoder.stack.unstack())


class DecodeCache(NamedTuple):
    """Keys and values of the tokens so far, by layer; the decoder's hold the rows of one branch after the other."""

    text: tuple[KeyValue, ...]
    decoder: tuple[KeyValue, ...]


class CachedDecoder:
    """The next token of several captions of each image of a batch, by one or two branches that run as one batch.

    Both branches read the same tokens. In the unconditional branch the decoder sees no image.
    """

    def __init__(
        self, model: DualEncoder, image: ImageEncoding | None, *, branches: Sequence[Branch] = ("conditional",),
        control: Int[Array, "B S"] | None = None, boxes: Float[Array, "B 4"] | None = None,
        cover: Float[Array, "B P"] | None = None, blocks: Blocks | None = None,
    ):  # fmt: skip
        """Projects the images once.

        Args:
            model: With a captioner.
            image: The images; `None` where no branch sees them.
            branches: What is computed.
            control: The controls of each image's captions; `None` leaves all of them out.
            boxes: What of each image its captions are about; `None`: all of it.
            cover: Likewise, the share of each patch.
            blocks: From `unstack_layers`.
        """
        self.model, self.decoder, self.branches = model, model.captioner(), tuple(branches)
        self.blocks = unstack_layers(model) if blocks is None else blocks
        self.control, self.boxes, self.places = control, boxes, model.place_vectors()
        memory = None
        if image is not None:
            more = {} if cover is None else {"cover": cover[:, None]}
            memory = self.decoder.memory(image.features, image.embed, mask=image.mask, **more)
        self.cross_caches = [block.cross_cache(memory) for block in self.blocks.decoder]

    @property
    def length(self) -> int:
        """The most tokens of a caption, its end mark included."""
        return self.decoder.length - 1

    def start(self, rows: int) -> DecodeCache:
        """The cache before the first token, with the control tokens in it.

        Args:
            rows: Captions; a multiple of the images.
        """
        slots = self.decoder.slots if isinstance(self.decoder, CaptionDecoder) else 0
        length = self.decoder.length + slots
        text = tuple(block.attention.empty_cache(rows, length) for block in self.blocks.text)
        cache = DecodeCache(
            text, tuple(block.cache(rows * len(self.branches), length) for block in self.blocks.decoder)
        )
        if isinstance(self.decoder, CaptionDecoder) and slots:
            asked, boxes = (
                None if x is None else jnp.repeat(x, rows // len(x), axis=0) for x in (self.control, self.boxes)
            )
            x = self.decoder.prefix(asked, boxes, rows)
            _, cache = self._advance(self._to_branches(x), cache, jnp.int32(0))
        return cache

    def step(
        self, ids: Int[Array, " R"], position: Int[Array, ""], cache: DecodeCache
    ) -> tuple[Float[Array, "N R V"], DecodeCache]:
        """Logits by branch after the tokens at `position`, and the cache with them in it."""
        if isinstance(self.decoder, CaptionDecoder):
            x = self.decoder.words(ids[:, None], self.places, position)
            place = position + self.decoder.slots
        else:
            assert self.model.text_tower is not None
            x, place, read = self.model.text_tower.embed(ids[:, None], position), position, []
            for block, kept in zip(self.blocks.text, cache.text, strict=True):
                x, kept = block.step(x, kept, position)
                read.append(kept)
            cache = cache._replace(text=tuple(read))
        x, cache = self._advance(self._to_branches(x), cache, place)
        return self.decoder.logits(x).reshape(len(self.branches), len(ids), -1), cache

    def _to_branches(self, x: Float[Array, "R T W"]) -> Float[Array, "N T W"]:
        return jnp.concatenate([x] * len(self.branches)) if len(self.branches) > 1 else x

    def _advance(self, x: Float[Array, "N T W"], cache: DecodeCache, place: Array) -> tuple[Array, DecodeCache]:
        hidden = len(x) // len(self.branches) * self.branches.count("unconditional")
        written = []
        for block, kept, cross_cache in zip(self.blocks.decoder, cache.decoder, self.cross_caches, strict=True):
            x, kept = block.step(x, kept, cross_cache, place, hidden)
            written.append(kept)
        return x, cache._replace(decoder=tuple(written))

    def reorder(self, cache: DecodeCache, parents: Int[Array, " R"]) -> DecodeCache:
        """The cache after beams were chosen: row `i` continues row `parents[i]`."""
        rows = len(parents)
        all_branches = jnp.concatenate([parents + branch * rows for branch in range(len(self.branches))])
        text = jax.tree.map(lambda x: x[parents], cache.text)
        return DecodeCache(text, jax.tree.map(lambda x: x[all_branches], cache.decoder))
