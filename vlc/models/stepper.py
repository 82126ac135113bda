"""Captions written a token at a time: the keys and values of what is written, and of the images, are kept."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vlc.models.captioner import CaptionDecoder
from vlc.models.coca import TextReadingDecoder
from vlc.models.dual_encoder import DualEncoder, ImageEncoding
from vlc.models.layers import KeyValue

Branch = Literal["image", "null"]


class Blocks(NamedTuple):
    """The layers of a captioner one by one: of the text tower, where the decoder reads it, and of the decoder."""

    text: list[Any]
    decoder: list[Any]


def take_apart(model: DualEncoder) -> Blocks:
    """The layers that decoding runs. Made once, they save cutting the stacked parameters at every call."""
    decoder, text = model.captioner(), model.text_tower
    read = text.stack.apart() if isinstance(decoder, TextReadingDecoder) and text is not None else []
    return Blocks(read, decoder.stack.apart())


class Past(NamedTuple):
    """Keys and values of what is written, by layer; of the decoder for the rows of all branches after each other."""

    text: tuple[KeyValue, ...]
    decoder: tuple[KeyValue, ...]


class Stepper:
    """The next token of several captions of each image of a batch, by one or two branches that run as one batch.

    Both branches read the same words. In the `null` branch the decoder sees no image.
    """

    def __init__(
        self, model: DualEncoder, image: ImageEncoding | None, *, branches: Sequence[Branch] = ("image",),
        control: Int[Array, "B S"] | None = None, blocks: Blocks | None = None,
    ):  # fmt: skip
        """Looks at the images once.

        Args:
            model: With a captioner.
            image: The images; `None` where no branch sees them.
            branches: What is computed.
            control: What is asked of the captions of each image; `None`: nothing.
            blocks: From `take_apart`.
        """
        self.model, self.decoder, self.branches = model, model.captioner(), tuple(branches)
        self.blocks = take_apart(model) if blocks is None else blocks
        self.control = control
        memory = None if image is None else self.decoder.memory(image.features, image.embed)
        self.looks = [block.look(memory) for block in self.blocks.decoder]

    @property
    def length(self) -> int:
        """Words that a caption can have, its end mark included."""
        return self.decoder.length - 1

    def start(self, rows: int) -> Past:
        """Nothing written yet, but what is asked for said.

        Args:
            rows: Captions; a multiple of the images.
        """
        slots = self.decoder.slots if isinstance(self.decoder, CaptionDecoder) else 0
        length = self.decoder.length + slots
        text = tuple(block.attention.empty(rows, length) for block in self.blocks.text)
        past = Past(text, tuple(block.past(rows * len(self.branches), length) for block in self.blocks.decoder))
        if isinstance(self.decoder, CaptionDecoder) and slots:
            asked = None if self.control is None else jnp.repeat(self.control, rows // len(self.control), axis=0)
            x = self.decoder.control_tokens(asked, rows)
            _, past = self._advance(self._to_branches(x), past, jnp.int32(0))
        return past

    def step(self, ids: Int[Array, " R"], position: Int[Array, ""], past: Past) -> tuple[Float[Array, "N R V"], Past]:
        """Logits by branch after the words at `position`, and the past with them in it."""
        if isinstance(self.decoder, CaptionDecoder):
            x, place = self.decoder.embed(ids[:, None], position), position + self.decoder.slots
        else:
            assert self.model.text_tower is not None
            x, place, read = self.model.text_tower.embed(ids[:, None], position), position, []
            for block, kept in zip(self.blocks.text, past.text, strict=True):
                x, kept = block.step(x, kept, position)
                read.append(kept)
            past = past._replace(text=tuple(read))
        x, past = self._advance(self._to_branches(x), past, place)
        return self.decoder.logits(x).reshape(len(self.branches), len(ids), -1), past

    def _to_branches(self, x: Float[Array, "R T W"]) -> Float[Array, "N T W"]:
        return jnp.concatenate([x] * len(self.branches)) if len(self.branches) > 1 else x

    def _advance(self, x: Float[Array, "N T W"], past: Past, place: Array) -> tuple[Array, Past]:
        hidden = len(x) // len(self.branches) * self.branches.count("null")
        written = []
        for block, kept, look in zip(self.blocks.decoder, past.decoder, self.looks, strict=True):
            x, kept = block.step(x, kept, look, place, hidden)
            written.append(kept)
        return x, past._replace(decoder=tuple(written))

    def take(self, past: Past, parents: Int[Array, " R"]) -> Past:
        """The past of other captions: row `i` goes on from what row `parents[i]` had written."""
        rows = len(parents)
        all_branches = jnp.concatenate([parents + branch * rows for branch in range(len(self.branches))])
        text = jax.tree.map(lambda x: x[parents], past.text)
        return Past(text, jax.tree.map(lambda x: x[all_branches], past.decoder))
