"""`Encoder`: a model with its tokenizer and preprocessing that encodes images and texts in batches of one shape."""

import contextlib
import copy
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool, Float

from vlc.config import Config, resolve_auto
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer
from vlc.errors import ConfigError
from vlc.inference.image_inputs import check_pixels
from vlc.interop import Imported
from vlc.models import DualEncoder, ImageEncoding, Scales, TextEncoding
from vlc.models.cached_decoder import unstack_layers
from vlc.models.regions import Found
from vlc.objectives import compared_by, one_way
from vlc.parallel import batch_sharding, data_shares, fetch, local_mesh, state_sharding
from vlc.train.restoring import array_checksums

_WIDTHS = (12, 16, 24, 32, 48)  # besides the full length, the widths that texts are cut to


class Encoder:
    """Parameters with the tokenizer and the preprocessing that they were trained with.

    Attributes:
        config: What it was trained with, or what describes an imported model.
        step: Updates done.
        notes: What an import left out, and why.
        path: Where it was loaded from; empty where it was not.
    """

    def __init__(
        self, graph: nnx.GraphDef[DualEncoder], params: Any, config: Config, tokenizer: Tokenizer | None,
        preprocess: Preprocess | None, batch_size: int = 64, mesh: Mesh | None = None,
    ):  # fmt: skip
        self.config, self.step = config, 0
        self.notes: tuple[str, ...] = ()
        self.path = ""
        self._tokenizer, self._preprocess = tokenizer, preprocess
        self._graph, self._params = graph, params
        self._mesh = mesh  # that the parameters are spread over
        self._shares = data_shares(mesh) if mesh is not None else 1
        self._batch = batch_size * self._shares

    def spread(self, mesh: Mesh) -> Self:
        """The same model on all devices of a mesh: parameters by the rules of training, batches shared among them."""
        other = copy.copy(self)
        other.__dict__.pop("caption_blocks", None)
        other._mesh, other._shares = mesh, data_shares(mesh)
        other._batch = self._batch // self._shares * other._shares
        other._params = jax.device_put(self._params, state_sharding(self._params, mesh))
        return other

    def spread_here(self) -> Self:
        """The same model on all devices of this process."""
        mesh = local_mesh()
        return self if mesh is None else self.spread(mesh)

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises `ConfigError` where the model has no text tower."""
        if self._tokenizer is None:
            raise ConfigError("This model has an image tower alone; it cannot read texts.")
        return self._tokenizer

    @property
    def preprocess(self) -> Preprocess:
        """Raises `ConfigError` where the model has no image tower."""
        if self._preprocess is None:
            raise ConfigError("This model has a text tower alone; it cannot see images.")
        return self._preprocess

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of the weights, the architecture, the tokenizer and the preprocessing: what embeddings depend on."""
        run = resolve_auto(self.config, jax.default_backend())
        words, pixels = (part.to_json() if part is not None else None for part in (self._tokenizer, self._preprocess))
        known = [run.model.to_json_best_effort(), words, pixels, array_checksums(self._params)]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    @property
    def batch_size(self) -> int:
        """Images or texts that are encoded at once."""
        return self._batch

    @property
    def compares(self) -> tuple[str, ...]:
        """What the model was trained to compare: `tokens`, `embed`, both, or nothing (a captioner alone)."""
        return compared_by(self.config.objectives)

    @property
    def one_way(self) -> bool:
        """Whether it was trained to compare tokens by the words of a text alone (`filip.scores=text`)."""
        return one_way(self.config.objectives)

    @property
    def params(self) -> Any:
        """The parameters, float32."""
        return self._params

    def as_imported(self) -> Imported:
        """The parts of the model, for export."""
        return Imported(self.config, self._params, self._tokenizer, self._preprocess, self.notes, self.step)

    # -- encoding

    def encode_pixels(self, pixels: np.ndarray) -> ImageEncoding:
        """Encodes images that are preprocessed already, `[B, *preprocess.shape]` uint8; see `encode_image`.

        Raises:
            DataError: They have another shape or type.
        """
        return self.run_batched(_encode_image, check_pixels(pixels, self.preprocess))

    def encode_masked(self, pixels: np.ndarray, inside: Bool[np.ndarray, "B P"]) -> ImageEncoding:
        """As `encode_pixels`, of pictures of which only some patches are what they are about; to a model without mask
        prompts they are as others."""
        if not self.config.model.image.mask_prompt:
            return self.encode_pixels(pixels)
        return self.run_batched(_encode_masked, (check_pixels(pixels, self.preprocess), inside))

    def encode_region_rows(self, image: ImageEncoding, cover: Float[np.ndarray, "B R P"]) -> Float[np.ndarray, "B R D"]:
        """Regions of encoded images; see `DualEncoder.encode_regions`."""
        return self.run_batched(_encode_regions, (image, cover))

    def attribute_score_rows(self, image: ImageEncoding, cover: Float[np.ndarray, "B R P"]) -> np.ndarray:
        """Cosines of regions of encoded images with the model's attributes, `[B, R, A]`."""
        return self.run_batched(_attribute_scores, (image, cover))

    def caption_attention(self, pixels: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Where the captioner looks when it writes the token after each of some captions, `[B, T, P]`; it sums to 1."""
        return self.run_batched(_caption_attention, (check_pixels(pixels, self.preprocess), ids))

    def find_region_rows(self, image: ImageEncoding) -> Found:
        """Boxes, as shares of what the model sees, and vectors that the model's queries find.

        Raises:
            ConfigError: It has no queries.
        """
        if not self.config.model.regions.queries:
            raise ConfigError(
                "This model has no queries of regions: it was trained with config.model.regions.queries=0."
            )
        return self.run_batched(_find_regions, image)

    def encode_text(self, texts: str | Iterable[str]) -> TextEncoding:
        """Encodes texts: `tokens` `[N, T, D]`, `embed` `[N, D]` and `mask` `[N, T]`, as NumPy arrays.

        Many texts are encoded in the order of their length and no longer than they are, where pads do not count.
        """
        ids = self.token_ids(texts)
        widths = self._widths(ids.shape[1])
        if len(ids) <= self._batch or len(widths) == 1:
            return self.encode_ids(ids)
        real = (ids != self.tokenizer.pad_id).sum(axis=1)
        order = np.argsort(real, kind="stable")
        parts = []
        for start in range(0, len(order), self._batch):
            rows = order[start : start + self._batch]
            width = widths[int(np.searchsorted(widths, real[rows[-1]]))]
            parts.append(_widened(self.run_batched(_encode_text, ids[rows, :width], full=True), ids.shape[1]))
        back = np.argsort(order)
        return jax.tree.map(lambda *arrays: np.concatenate(arrays)[back], *parts)

    def encode_ids(self, ids: np.ndarray) -> TextEncoding:
        """Encodes texts that are tokenized already, `[N, T]` as `token_ids` gives them."""
        return self.run_batched(_encode_text, ids)

    def _widths(self, length: int) -> list[int]:
        """Lengths to which texts may be cut where pads are not attended to; few, since each is a program to compile."""
        text = self.config.model.text
        inert = not (text.attend_pads or text.compare_pads) and text.pool in ("last", "mean", "first")
        return [width for width in _WIDTHS if width < length] + [length] if inert else [length]

    def token_ids(self, texts: str | Iterable[str]) -> np.ndarray:
        """Ids `[N, T]` int32 as the model takes them.

        Raises:
            DataError: A text is no string.
        """
        return self.tokenizer.encode(texts, self.config.model.text.length)

    def cut_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Which texts `[N]` are longer than the model reads."""
        length = self.config.model.text.length
        return self.tokenizer.encode(texts, length + 1)[:, -1] != self.tokenizer.pad_id

    @functools.cached_property
    def scales(self) -> Scales:
        """The learned multipliers and bias."""
        return jax.device_get(_scales(self._graph, self._params))

    @functools.cached_property
    def absent_region(self) -> np.ndarray:
        """The vector of a query that found nothing, `[D]` of unit length."""
        return np.asarray(_absent_region(self._graph, self._params))

    @property
    def grid(self) -> int:
        """Patches on a side of a square image."""
        return self.config.data.image.size // self.config.model.image.patch

    def check_patches(self) -> None:
        """Raises `ConfigError` where image tokens are no patches, so that there are no regions."""
        if self.config.model.image.pool == "queries":
            raise ConfigError("This model's image tokens are pooled queries (CoCa), not patches: it has no regions.")

    def grid_of(self, pixels: np.ndarray) -> tuple[int, int]:
        """Rows and columns of patches of an image that is preprocessed."""
        height, width, _ = self.preprocess.picture(pixels).shape
        return height // self.config.model.image.patch, width // self.config.model.image.patch

    # -- decoding

    @property
    def mesh(self) -> Mesh | None:
        """The devices that the model is spread over; `None`: it is on one."""
        return self._mesh

    @property
    def caption_length(self) -> int:
        """Tokens that a caption can have, its end mark included."""
        return (self.config.model.decoder.length or self.config.model.text.length) - 1

    @functools.cached_property
    def caption_blocks(self) -> Any:
        """The captioner's layers, unstacked for decoding."""
        return _unstacked(self._graph, self._params)

    @property
    def caption_parts(self) -> "CaptionerParts":
        """The captioner, for a compiled function."""
        return CaptionerParts(self._graph, self._params, self.caption_blocks)

    # -- batches

    def run_batched(self, function: Callable, inputs: Any, *, full: bool = False) -> Any:
        """Runs a function of structure, parameters and inputs in batches of one shape, so that it compiles once.

        The last batch is filled up and the results cut again. A few inputs make a small batch, unless `full`.

        Args:
            function: Compiled.
            inputs: An array, or several that belong together.
            full: Always the full batch.
        """
        count, mesh = len(jax.tree.leaves(inputs)[0]), self._mesh
        if not count:
            return self._nothing(function, inputs)
        sizes = [self._batch] if full else [self._shares, 8 * self._shares, self._batch]
        size = next((size for size in sizes if count <= size), self._batch)
        results = []
        with jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext():
            for start in range(0, count, size):
                filled = jax.tree.map(lambda x, start=start: _filled(x[start : start + size], size), inputs)
                placed = jax.device_put(filled, batch_sharding(mesh) if mesh is not None else None)
                results.append(fetch(function(self._graph, self._params, placed)))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)

    def _nothing(self, function: Callable, inputs: Any) -> Any:
        """What the function gives for no inputs: arrays of length 0."""
        rows = jax.tree.map(_one_row, inputs)
        shapes = jax.eval_shape(lambda params, rows: function(self._graph, params, rows), self._params, rows)
        return jax.tree.map(lambda x: np.zeros((0, *x.shape[1:]), x.dtype), shapes)


def _one_row(x: np.ndarray) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    """A batch with its last row again and again at the end."""
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])


def _widened(text: TextEncoding, length: int) -> TextEncoding:
    """With tokens of pads, which mean nothing, up to a length."""
    more = length - text.mask.shape[1]
    tokens, mask = np.pad(text.tokens, ((0, 0), (0, more), (0, 0))), np.pad(text.mask, ((0, 0), (0, more)))
    return TextEncoding(tokens, text.embed, mask, text.grammar)


@functools.partial(jax.jit, static_argnums=0)
def _scales(graph: Any, params: Any) -> Scales:
    return nnx.merge(graph, params).scales()


@functools.partial(jax.jit, static_argnums=0)
def _encode_image(graph: Any, params: Any, images: jax.Array) -> ImageEncoding:
    return nnx.merge(graph, params).encode_image(images)


@functools.partial(jax.jit, static_argnums=0)
def _encode_masked(graph: Any, params: Any, inputs: tuple[jax.Array, jax.Array]) -> ImageEncoding:
    pixels, inside = inputs
    return nnx.merge(graph, params).encode_image(pixels, inside=inside)


@functools.partial(jax.jit, static_argnums=0)
def _encode_regions(graph: Any, params: Any, inputs: tuple[ImageEncoding, jax.Array]) -> jax.Array:
    return nnx.merge(graph, params).encode_regions(*inputs)


@functools.partial(jax.jit, static_argnums=0)
def _caption_attention(graph: Any, params: Any, inputs: tuple[jax.Array, jax.Array]) -> jax.Array:
    model = nnx.merge(graph, params)
    pixels, ids = inputs
    return model.attention_maps(model.encode_image(pixels), ids)


@functools.partial(jax.jit, static_argnums=0)
def _attribute_scores(graph: Any, params: Any, inputs: tuple[ImageEncoding, jax.Array]) -> jax.Array:
    return nnx.merge(graph, params).attribute_scores(*inputs)


@functools.partial(jax.jit, static_argnums=0)
def _absent_region(graph: Any, params: Any) -> jax.Array:
    return nnx.merge(graph, params).absent_region()


@functools.partial(jax.jit, static_argnums=0)
def _find_regions(graph: Any, params: Any, image: ImageEncoding) -> Found:
    return nnx.merge(graph, params).find_regions(image)


@functools.partial(jax.jit, static_argnums=0)
def _encode_text(graph: Any, params: Any, ids: jax.Array) -> TextEncoding:
    return nnx.merge(graph, params).encode_text(ids)


@functools.partial(jax.jit, static_argnums=0)
def caption_logits(graph: Any, params: Any, images: jax.Array, ids: jax.Array) -> jax.Array:
    model = nnx.merge(graph, params)
    return model.caption_logits(model.encode_image(images), ids)


@functools.partial(jax.jit, static_argnums=0)
def _unstacked(graph: Any, params: Any) -> Any:
    return unstack_layers(nnx.merge(graph, params))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CaptionerParts:
    """A captioner as an argument of a compiled function."""

    graph: Any = field(metadata={"static": True})
    params: Any
    blocks: Any
