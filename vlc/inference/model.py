"""`Model`: a trained model with its tokenizer and preprocessing, ready for images and texts."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image

from vlc.config import Config, config_from_json, resolve_auto
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer
from vlc.errors import CheckpointError, ConfigError, DataError, did_you_mean
from vlc.generate import Search
from vlc.inference.captioning import (
    Asked,
    Caption,
    Parts,
    Scorer,
    blocks_of,
    embedding_scorer,
    reranked,
    write_captions,
)
from vlc.interop import Imported, at_size, import_model, is_native, read_native
from vlc.interop.load import abstract_params, rows_of
from vlc.models import DualEncoder, ImageEncoding, Scales, TextEncoding
from vlc.parallel import batch_sharding, data_shares, fetch, local_mesh, state_sharding
from vlc.similarity import late_interaction
from vlc.train.checkpoint import Checkpoints, array_checksums, read_meta
from vlc.train.initial import Initial
from vlc.train.state import make_graph

_WIDTHS = (12, 16, 24, 32, 48)  # besides the full length, that many texts are cut to
AnyImage = str | Path | bytes | np.ndarray | Image.Image


class Model:
    """A trained model.

    Attributes:
        config: What it was trained with, or what describes it in our words.
        tokenizer: As in training; `None` where there is no text tower.
        preprocess: As in training; `None` where there is no image tower.
        step: Updates done.
        notes: What an import left out, and why.
    """

    def __init__(
        self, graph: nnx.GraphDef[DualEncoder], params: Any, config: Config, tokenizer: Tokenizer | None,
        preprocess: Preprocess | None, batch_size: int = 64, mesh: Mesh | None = None,
    ):  # fmt: skip
        self.config, self.step = config, 0
        self.notes: tuple[str, ...] = ()
        self._tokenizer, self._preprocess = tokenizer, preprocess
        self._graph, self._params = graph, params
        self._mesh = mesh  # that the parameters are spread over
        self._shares = data_shares(mesh) if mesh is not None else 1
        self._batch = batch_size * self._shares

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        step: int | Literal["last", "best"] = "last",
        tokenizer: str | Path = "",
        image_size: int = 0,
    ) -> "Model":
        """Loads a model with its tokenizer and preprocessing.

        Args:
            path: The workdir of a run, a folder that `vlc import` or `vlc export` wrote, a folder of transformers
                (CLIP, SigLIP, BERT) or open_clip (CLIP, SigLIP, CoCa), or a `.npz` of big_vision.
            step: Which checkpoint of a run: the newest, the one with the best dev score, or a number.
            tokenizer: Of another library's model, where it does not lie beside the weights.
            image_size: Pixels on a side, where other than the model's own; position embeddings are then resampled.

        Raises:
            CheckpointError: There is none, it is damaged, a weight is missing or not expected, or the tokenizer or the
                preprocessing is missing.
        """
        path = Path(path)
        is_run = (path / "checkpoints").is_dir()
        if not path.exists():
            raise CheckpointError(
                f"{path}: no such file or folder. A run's workdir is meant (train first), or another library's model; "
                "vlc downloads nothing (hf download NAME --local-dir DIR does)."
            )
        if step != "last" and not is_run:
            raise CheckpointError(f"{path}: --step chooses among the checkpoints of a run, and this is none.")
        if tokenizer and (is_run or is_native(path)):
            raise CheckpointError(f"{path}: has its tokenizer; another cannot be named.")
        if is_run:
            model = cls._load_run(path, step)
            return cls.of(at_size(model.as_imported(), image_size)) if image_size else model
        imported = read_native(path) if is_native(path) else import_model(path, tokenizer=tokenizer)
        return cls.of(at_size(imported, image_size) if image_size else imported)

    @classmethod
    def of(cls, imported: Imported) -> "Model":
        """A model of arrays that are in memory."""
        config, tokenizer = imported.config, imported.tokenizer
        graph = make_graph(resolve_auto(config, jax.default_backend()), rows_of(tokenizer))
        made = cls(graph, imported.params, config, tokenizer, imported.preprocess)
        made.step, made.notes = imported.step, imported.notes
        return made

    @classmethod
    def _load_run(cls, path: Path, step: int | Literal["last", "best"]) -> "Model":
        checkpoints = Checkpoints(path, read_only=True)
        loaded: dict[str, Any] = {}

        def abstract(meta: dict) -> dict[str, Any]:
            saved, tokenizer, preprocess = read_meta(meta, str(path))
            config = config_from_json(saved)
            loaded.update(config=config, tokenizer=tokenizer, preprocess=preprocess)
            here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
            shapes = abstract_params(config, tokenizer)
            shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), shapes)
            return {"ema" if config.optimizer.ema else "params": shapes}

        if step == "best":
            step = checkpoints.best_step() or "last"
        try:
            restored = checkpoints.restore(abstract, step=None if step == "last" else int(step))
        finally:
            checkpoints.close()
        if restored is None:
            raise CheckpointError(f"{path}: no finished checkpoint there yet.")
        state, meta = restored
        return cls.of(Imported(params=next(iter(state.values())), step=meta["step"], **loaded))

    def spread(self, mesh: Mesh) -> "Model":
        """The same model on all devices of a mesh: parameters by the rules of training, batches shared among them."""
        other = copy.copy(self)
        other.__dict__.pop("caption_blocks", None)
        other._mesh, other._shares = mesh, data_shares(mesh)
        other._batch = self._batch // self._shares * other._shares
        other._params = jax.device_put(self._params, state_sharding(self._params, mesh))
        return other

    def spread_here(self) -> "Model":
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
    def compares(self) -> tuple[str, ...]:
        """What the model was trained to compare: `tokens`, `embed`, both, or nothing (a captioner alone)."""
        weights = {name: self.config.objectives[name].weight for name in ("clip", "siglip", "multi_positive", "filip")}
        of = (("tokens", ("filip",)), ("embed", ("clip", "siglip", "multi_positive")))
        return tuple(how for how, names in of if any(weights[name] for name in names))

    @property
    def params(self) -> Any:
        """The parameters, float32."""
        return self._params

    def as_imported(self) -> Imported:
        """The parts of the model, for export."""
        return Imported(self.config, self._params, self._tokenizer, self._preprocess, self.notes, self.step)

    # -- the four things that a user does

    def encode_image(self, images: AnyImage | Iterable[AnyImage]) -> ImageEncoding:
        """Encodes images.

        Args:
            images: Paths, encoded bytes, PIL pictures or uint8 arrays `[height, width, 3]`; one or several.

        Returns:
            `tokens` `[B, P, D]` and `embed` `[B, D]` of unit length, and `features`, as NumPy arrays.

        Raises:
            DataError: An image is missing or damaged.
        """
        return self.encode_pixels(self._pixels(images))

    def encode_pixels(self, pixels: np.ndarray) -> ImageEncoding:
        """Encodes images that are preprocessed already, `[B, S, S, 3]` uint8; see `encode_image`."""
        return self.run_batched(_encode_image, pixels)

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
        """Lengths to which texts may be cut where nobody sees their pads; few, since each is a program to compile."""
        text = self.config.model.text
        inert = not text.attend_pads and text.pool in ("last", "mean", "first")
        return [width for width in _WIDTHS if width < length] + [length] if inert else [length]

    def score(
        self,
        images: AnyImage | Iterable[AnyImage],
        texts: str | Iterable[str],
        *,
        by: Literal["embed", "tokens"] = "embed",
    ) -> np.ndarray:
        """Similarity of every image with every text, `[B, N]`.

        Args:
            images: See `encode_image`.
            texts: One or several.
            by: `embed`: the cosine of the embeddings. `tokens`: the mean of both directions of `late_interaction`.
        """
        image, text = self.encode_image(images), self.encode_text(texts)
        if by == "embed":
            return image.embed @ text.embed.T
        i2t, t2i = late_interaction(jnp.asarray(image.tokens), jnp.asarray(text.tokens), jnp.asarray(text.mask))
        return np.asarray(i2t + t2i) / 2

    def logits(self, images: AnyImage | Iterable[AnyImage], texts: str | Iterable[str]) -> np.ndarray:
        """Scores as the loss sees them, `[B, N]`: times the learned scale, with the learned bias where there is one.

        The softmax over texts of a CLIP model, and the sigmoid of a SigLIP model, are its probabilities.
        """
        return self.logits_of(self.encode_image(images), self.encode_text(texts))

    def logits_of(self, image: ImageEncoding, text: TextEncoding) -> np.ndarray:
        """As `logits`, of what is encoded already."""
        scales = jax.device_get(_scales(self._graph, self._params))
        bias = scales.logit_bias if self.config.objectives.siglip.weight else 0.0
        return image.embed @ text.embed.T * scales.logit_scale + bias

    def caption(self, images: AnyImage | Iterable[AnyImage], guidance_scale: float = 1.0, **options: Any) -> list[str]:
        """Writes a caption for each image: the text of the first of `captions`, whose options it takes."""
        return [some[0].text for some in self.captions(images, guidance_scale, **options)]

    def captions(
        self,
        images: AnyImage | Iterable[AnyImage],
        guidance_scale: float = 1.0,
        *,
        prompt: str = "",
        control: Mapping[str, Any] | None = None,
        language_model: "Model | None" = None,
        language_weights: tuple[float, float] = (1.0, 1.0),
        judge: "Model | Scorer | None" = None,
        **search: Any,
    ) -> list[list[Caption]]:
        """Writes captions for each image, greedily where nothing else is asked for.

        Args:
            images: See `encode_image`.
            guidance_scale: 1 writes the likeliest caption; above 1 the more specific, at the price of likelihood.
            prompt: Words that each caption begins with.
            control: What each should be: `{"length": 8}`, `{"alignment": "best", "source": "long"}`.
            language_model: Guidance by a text model, see `Asked`.
            language_weights: Its `a` and `b`.
            judge: What puts several captions of an image in order: a dual encoder, by the cosine of embeddings, or a
                function of the pixels `[B, S, S, 3]` and the captions `[B][S]` that gives scores.
            **search: See `vlc.generate.Search`: `beams`, `samples`, `temperature`, `top_k`, `top_p`, `seed`, ...

        Returns:
            For each image its captions, the best first where a search or a judge ranks them.

        Raises:
            ConfigError: The model has no captioner or no such control, a setting makes no sense, or the language model
                has another vocabulary.
            DataError: An image is missing or damaged.
        """
        known = {field.name for field in dataclasses.fields(Search)}
        for name in search:
            if name not in known:
                raise ConfigError(f'caption: no setting is called "{name}".{did_you_mean(name, known)}')
        asked = Asked(guidance_scale, Search(**search), prompt, control or {}, language_model, language_weights)
        return self.write(images, asked, judge=judge)

    def write(
        self, images: AnyImage | Iterable[AnyImage], asked: Asked, *, judge: "Model | Scorer | None" = None
    ) -> list[list[Caption]]:
        """As `captions`, of what is asked in one piece."""
        if judge is None:
            return write_captions(self, self._pixels(images), asked)
        images = self._listed(images)
        written = write_captions(self, self._pixels(images), asked)
        scorer = embedding_scorer(judge) if isinstance(judge, Model) else judge
        seen = judge._pixels(images) if isinstance(judge, Model) else self._pixels(images)
        return reranked(written, scorer(seen, [[caption.text for caption in some] for some in written]))

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
        """The captioner's layers one by one, for decoding."""
        return blocks_of(self._graph, self._params)

    @property
    def caption_parts(self) -> Parts:
        """The captioner, for a compiled function."""
        return Parts(self._graph, self._params, self.caption_blocks)

    def caption_logits(self, pixels: np.ndarray, texts: Iterable[str]) -> np.ndarray:
        """Logits `[B, T, V]` of the token after each of a text, one text an image."""
        Asked().check(self)
        return np.asarray(_caption_logits(self._graph, self._params, pixels, self.token_ids(texts)))

    def word_maps(self, image: AnyImage, text: str) -> tuple[list[str], np.ndarray]:
        """Where each token of a text is found in an image.

        Returns:
            The pieces of the text, and the similarity of each with every patch, `[pieces, rows, columns]`.
        """
        encoded, words = self.encode_image(image), self.encode_text(text)
        count = int(words.mask[0].sum())
        grid = round(encoded.tokens.shape[1] ** 0.5)
        maps = words.tokens[0, :count] @ encoded.tokens[0].T
        return self.tokenizer.pieces(self.token_ids(text)[0, :count]), maps.reshape(count, grid, grid)

    # -- helpers

    @property
    def grid(self) -> int:
        """Patches on a side."""
        return self.config.data.image.size // self.config.model.image.patch

    def token_ids(self, texts: str | Iterable[str]) -> np.ndarray:
        """Ids `[N, T]` int32 as the model takes them."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self.tokenizer.encode(texts, self.config.model.text.length)

    def _pixels(self, images: Any) -> np.ndarray:
        pixels = [self._read(image) for image in self._listed(images)]
        if not pixels:
            raise DataError("No image was given.")
        return np.stack(pixels)

    @staticmethod
    def _listed(images: Any) -> Iterable[AnyImage]:
        single = isinstance(images, (str, Path, bytes, np.ndarray, Image.Image))
        if isinstance(images, np.ndarray) and images.ndim == 4:
            single = False
        return [images] if single else list(images)

    def _read(self, image: AnyImage) -> np.ndarray:
        if isinstance(image, (str, Path)):
            try:
                return self.preprocess(Path(image).read_bytes(), where=str(image))
            except OSError as error:
                raise DataError(f"{image}: cannot be read ({error.strerror}).") from error
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        return self.preprocess(image)

    def run_batched(self, function: Callable, inputs: Any, *, full: bool = False) -> Any:
        """Runs a function of structure, parameters and inputs in batches of one shape, so that it compiles once.

        The last batch is filled up and the results cut again. A few inputs make a small batch, unless `full`.

        Args:
            function: Compiled.
            inputs: An array, or several that belong together.
            full: Always the full batch.
        """
        count, mesh = len(jax.tree.leaves(inputs)[0]), self._mesh
        sizes = [self._batch] if full else [self._shares, 8 * self._shares, self._batch]
        size = next((size for size in sizes if count <= size), self._batch)
        results = []
        with jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext():
            for start in range(0, count, size):
                filled = jax.tree.map(lambda x, start=start: _filled(x[start : start + size], size), inputs)
                placed = jax.device_put(filled, batch_sharding(mesh) if mesh is not None else None)
                results.append(fetch(function(self._graph, self._params, placed)))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


def _filled(x: np.ndarray, size: int) -> np.ndarray:
    """A batch with its last row again and again at the end."""
    return np.concatenate([x, np.repeat(x[-1:], size - len(x), axis=0)])


def _widened(text: TextEncoding, length: int) -> TextEncoding:
    """With tokens of pads, which mean nothing, up to a length."""
    more = length - text.mask.shape[1]
    tokens, mask = np.pad(text.tokens, ((0, 0), (0, more), (0, 0))), np.pad(text.mask, ((0, 0), (0, more)))
    return TextEncoding(tokens, text.embed, mask)


@functools.partial(jax.jit, static_argnums=0)
def _scales(graph: Any, params: Any) -> Scales:
    return nnx.merge(graph, params).scales()


@functools.partial(jax.jit, static_argnums=0)
def _encode_image(graph: Any, params: Any, images: jax.Array) -> ImageEncoding:
    return nnx.merge(graph, params).encode_image(images)


@functools.partial(jax.jit, static_argnums=0)
def _encode_text(graph: Any, params: Any, ids: jax.Array) -> TextEncoding:
    return nnx.merge(graph, params).encode_text(ids)


@functools.partial(jax.jit, static_argnums=0)
def _caption_logits(graph: Any, params: Any, images: jax.Array, ids: jax.Array) -> jax.Array:
    model = nnx.merge(graph, params)
    return model.caption_logits(model.encode_image(images), ids)


def load_initial(path: str) -> Initial:
    """The model that a training run starts from.

    Raises:
        ConfigError: It lacks a tower.
    """
    model = Model.load(path)
    return Initial(model.config, model.params, model.tokenizer, model.preprocess)


def load(path: str | Path, **options: Any) -> Model:
    """Loads a workdir, an exported folder, or another library's model; see `Model.load`."""
    return Model.load(path, **options)
