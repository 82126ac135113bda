"""`Model`: a trained model with its tokenizer and preprocessing, ready for images and texts."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from vlc.config import Config, config_from_json, resolve_auto
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer
from vlc.errors import CheckpointError, ConfigError, DataError
from vlc.generate import greedy
from vlc.models import DualEncoder, ImageEncoding, TextEncoding
from vlc.similarity import late_interaction
from vlc.train.checkpoint import Checkpoints, read_meta
from vlc.train.state import build_model, make_graph

AnyImage = str | Path | bytes | np.ndarray | Image.Image


class Model:
    """A trained model.

    Attributes:
        config: What it was trained with.
        tokenizer: As in training.
        preprocess: As in training.
        step: Updates done.
    """

    def __init__(
        self, graph: nnx.GraphDef[DualEncoder], params: Any, config: Config, tokenizer: Tokenizer,
        preprocess: Preprocess, step: int = 0, batch_size: int = 64,
    ):  # fmt: skip
        self.config, self.tokenizer, self.preprocess, self.step = config, tokenizer, preprocess, step
        self._graph, self._params, self._batch = graph, params, batch_size

    @classmethod
    def load(cls, path: str | Path, *, step: int | Literal["last", "best"] = "last") -> "Model":
        """Loads a training workdir.

        Args:
            path: The `--workdir` of a run.
            step: Which checkpoint: the newest, the one with the best dev score, or a number.

        Raises:
            CheckpointError: There is none, all are damaged, or the tokenizer or preprocessing is missing.
        """
        checkpoints = Checkpoints(path, read_only=True)
        loaded: dict[str, Any] = {}

        def abstract(meta: dict) -> dict[str, Any]:
            saved, tokenizer, preprocess = read_meta(meta, str(path))
            config = config_from_json(saved)
            run = resolve_auto(config, jax.default_backend())
            loaded.update(
                config=config, tokenizer=tokenizer, preprocess=preprocess, graph=make_graph(run, tokenizer.vocab_size)
            )
            shapes = jax.eval_shape(
                lambda: nnx.state(build_model(run, tokenizer.vocab_size, jax.random.key(0)), nnx.Param)
            )
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
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
        return cls(params=next(iter(state.values())), step=meta["step"], **loaded)

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
        return self._batched(_encode_image, self._pixels(images))

    def encode_text(self, texts: str | Iterable[str]) -> TextEncoding:
        """Encodes texts: `tokens` `[N, T, D]`, `embed` `[N, D]` and `mask` `[N, T]`, as NumPy arrays."""
        return self._batched(_encode_text, self.token_ids(texts))

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

    def caption(self, images: AnyImage | Iterable[AnyImage], guidance_scale: float = 1.0) -> list[str]:
        """Writes a caption for each image.

        Args:
            images: See `encode_image`.
            guidance_scale: 1 writes the likeliest caption; above 1 the more specific, at the price of likelihood.

        Raises:
            ConfigError: The model has no captioner, or the scale is negative.
        """
        if not self.config.model.decoder.layers:
            raise ConfigError("This model has no captioner: it was trained with config.model.decoder.layers=0.")
        if not guidance_scale >= 0:
            raise ConfigError(f"guidance_scale is {guidance_scale}; it must be 0 or more.")
        run = functools.partial(_caption, scale=jnp.float32(guidance_scale), guided=guidance_scale != 1)
        ids = self._batched(run, self._pixels(images))
        return [self.tokenizer.decode(row) for row in ids]

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
        single = isinstance(images, (str, Path, bytes, np.ndarray, Image.Image))
        if isinstance(images, np.ndarray) and images.ndim == 4:
            single = False
        pixels = [self._read(image) for image in ([images] if single else images)]
        if not pixels:
            raise DataError("No image was given.")
        return np.stack(pixels)

    def _read(self, image: AnyImage) -> np.ndarray:
        if isinstance(image, (str, Path)):
            try:
                return self.preprocess(Path(image).read_bytes(), where=str(image))
            except OSError as error:
                raise DataError(f"{image}: cannot be read ({error.strerror}).") from error
        if isinstance(image, Image.Image):
            image = np.asarray(image.convert("RGB"))
        return self.preprocess(image)

    def _batched(self, function: Callable, inputs: np.ndarray) -> Any:
        """Runs in batches of one shape, so that it compiles once; the last is filled up and cut again."""
        size = self._batch if len(inputs) > 8 else 8
        results = []
        for start in range(0, len(inputs), size):
            part = inputs[start : start + size]
            filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            results.append(jax.device_get(function(self._graph, self._params, jnp.asarray(filled))))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(inputs)], *results)


@functools.partial(jax.jit, static_argnums=0)
def _encode_image(graph: Any, params: Any, images: jax.Array) -> ImageEncoding:
    return nnx.merge(graph, params).encode_image(images)


@functools.partial(jax.jit, static_argnums=0)
def _encode_text(graph: Any, params: Any, ids: jax.Array) -> TextEncoding:
    return nnx.merge(graph, params).encode_text(ids)


@functools.partial(jax.jit, static_argnums=0, static_argnames="guided")
def _caption(graph: Any, params: Any, images: jax.Array, *, scale: jax.Array, guided: bool) -> jax.Array:
    model = nnx.merge(graph, params)
    return greedy(model, model.encode_image(images), scale, guided=guided)[0]


def load(path: str | Path, *, step: int | Literal["last", "best"] = "last") -> Model:
    """Loads a training workdir; see `Model.load`."""
    return Model.load(path, step=step)
