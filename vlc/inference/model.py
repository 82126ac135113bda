"""`Model`: what a user has of a trained model: loading, encoding, scores and captions."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vlc.config import resolve_auto
from vlc.data.masks import Box
from vlc.errors import ConfigError, DataError, did_you_mean
from vlc.generate import DecodingOptions
from vlc.inference import region_captions, regions, word_maps
from vlc.inference.captioning import Caption, CaptionRequest, Scorer, generate_captions, model_scorer, reranked
from vlc.inference.closer import Closer, look_closer
from vlc.inference.comparison import all_scores, compared_by, logits_of
from vlc.inference.encoder import Encoder, caption_logits
from vlc.inference.image_inputs import AnyImage, Images, check_pixels, image_chunks, is_one, picture_of, read_images
from vlc.inference.regions import Detected
from vlc.inference.stored import read_stored
from vlc.interop import Imported, at_size, merge_lora
from vlc.interop.late_interaction import Role
from vlc.interop.load import rows_of
from vlc.models import ImageEncoding
from vlc.settings import is_whole
from vlc.storage import is_hub, place
from vlc.train.initial import Initial
from vlc.train.state import count_parameters, make_graph


class Model(Encoder):
    """A trained model: `vlc.load` makes it.

    Images are given as paths, encoded bytes, open files, PIL images, or arrays `[height, width, 3]` (uint8, or floats
    from 0 to 1; grey and RGBA too), one or several: a picture has one embedding, however it is handed over. A generator
    is read a batch at a time, so it may give more images than fit into memory. No image gives arrays of length 0.
    """

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        step: int | Literal["last", "best"] = "last",
        tokenizer: str | Path = "",
        image_size: int = 0,
        role: Role = "",
    ) -> "Model":
        """Loads a model with its tokenizer and preprocessing.

        Args:
            path: The workdir of a run, a folder that `vlc import` or `vlc export` wrote (of LoRA with the model
                that it was made for), one of transformers (CLIP, SigLIP, BERT) or open_clip (CLIP, SigLIP, CoCa), or a
                `.npz` of big_vision; on the disk, in a bucket (`gs://`, `s3://`), or on the Hugging Face hub
                (`hf://ORG/NAME@REVISION`).
            step: Which checkpoint of a run: the newest, the one with the best dev score, or a number.
            tokenizer: Of another library's model, where it does not lie beside the weights.
            image_size: Pixels on a side, where other than the model's own; position embeddings are then resampled.
            role: `query` or `document`, of a text model that reads them in two ways; see `vlc.interop.import_model`.

        Raises:
            ConfigError: `step` or `image_size` is of another type.
            CheckpointError: There is none, it is damaged, a weight is missing or not expected, or the tokenizer or the
                preprocessing is missing.
        """
        if not is_whole(image_size) or image_size < 0:
            raise ConfigError(f"image_size is {image_size!r}; it must be a whole number of pixels.")
        imported = merge_lora(read_stored(path, step, tokenizer, role))
        model = cls.of(at_size(imported, image_size) if image_size else imported)
        model.path = str(path if is_hub(path) else place(path))
        return model

    @classmethod
    def of(cls, imported: Imported) -> "Model":
        """A model of arrays that are in memory."""
        config, tokenizer = imported.config, imported.tokenizer
        graph = make_graph(resolve_auto(config, jax.default_backend()), rows_of(tokenizer))
        made = cls(graph, imported.params, config, tokenizer, imported.preprocess)
        made.step, made.notes = imported.step, imported.notes
        return made

    # -- what a user does

    def encode_image(self, images: Images, *, closer: Closer | None = None) -> ImageEncoding:
        """Encodes images.

        Args:
            images: One or several; see `Model`.
            closer: Looks at them again, closer: small things in large pictures (GLSim, Dragonfly). There are more
                tokens then.

        Returns:
            `tokens` `[B, P, D]` and `embed` `[B, D]` of unit length, and `features` `[B, P, W]`, as NumPy arrays.

        Raises:
            DataError: An image is missing or damaged, or of a type, shape or range that is none of a picture.
        """
        parts = list(self._encoded(images, closer))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    def encode_image_batches(self, images: Images, *, closer: Closer | None = None) -> Iterator[ImageEncoding]:
        """As `encode_image`, a batch at a time: neither the images nor the encodings are ever all in memory."""
        done = 0
        for chunk in image_chunks(images, self.batch_size):
            if closer is None:
                yield self.encode_pixels(self._pixels(chunk, first=done))
            else:
                named = enumerate(chunk, done)
                yield look_closer(self, [picture_of(one, self.preprocess, f"image {i}") for i, one in named], closer)
            done += len(chunk)

    def score(
        self,
        images: Images,
        texts: str | Iterable[str],
        *,
        by: Literal["auto", "embed", "tokens"] = "auto",
        closer: Closer | None = None,
    ) -> np.ndarray:
        """Similarity of every image with every text, `[B, N]`.

        Args:
            images: One or several; see `Model`.
            texts: One or several.
            by: `embed`: the cosine of the embeddings. `tokens`: the mean of both directions of `late_interaction`.
                `auto`: what the model was trained by, the embeddings where it was by both.
            closer: As of `encode_image`.

        Raises:
            ConfigError: `by` is none of these, or not what the model was trained to compare.
        """
        how, text = compared_by(self, by), self.encode_text(texts)
        seen = self._encoded(images, closer)
        return np.concatenate([np.add(*all_scores(self, image, text, how)) / 2 for image in seen])

    def logits(self, images: Images, texts: str | Iterable[str]) -> np.ndarray:
        """Scores as the loss sees them, `[B, N]`: times the learned scale, with the learned bias where there is one.

        The softmax over texts of a CLIP model, and the sigmoid of a SigLIP model, are its probabilities. Of a model
        trained by FILIP alone these are the token-wise similarities of an image with the texts, times their scale.

        Raises:
            ConfigError: The model was not trained to compare images with texts.
        """
        text = self.encode_text(texts)
        return np.concatenate([logits_of(self, image, text) for image in self._encoded(images)])

    def encode_regions(
        self, images: Images, *, boxes: Any = None, masks: Any = None, points: Any = None, crop: bool = False
    ) -> Any:
        """Encodes regions of images in the space of the embeddings.

        Args:
            images: One or several; see `Model`.
            boxes: Left, top, right, bottom as shares of the image; a list of them, for several images a list of lists.
            masks: Likewise, `[height, width]` of true and false.
            points: Likewise, across and down as shares: the patch there.
            crop: Cuts each box or mask out and looks at it as at a picture of its own (OVSeg), at the price of one;
                else the patches of the whole picture are pooled.

        Returns:
            `[N, D]` of unit length; for several images a list of such arrays.

        Raises:
            ConfigError: Not one of the three is given, or the model has no patches.
            DataError: An image is damaged; a region is none, or lies outside of what the model sees.
        """
        return regions.encode_regions(self, images, boxes=boxes, masks=masks, points=points, crop=crop)

    def attribute_scores(self, images: Images, boxes: Any) -> Any:
        """Cosines of regions with the attributes that the model knows (`config.data.regions.attributes`), `[N, A]`; for
        several images a list of such arrays.

        Raises:
            ConfigError: It knows none.
            DataError: As `encode_regions`.
        """
        return regions.attribute_scores(self, images, boxes)

    def locate(self, images: Images, texts: Sequence[str]) -> list[Box | None]:
        """Where what a text names is, as the captioner writes it (`config.data.captions.places`): a box of each image,
        as shares of it, `None` where it writes none.

        Args:
            images: Several.
            texts: One for each.

        Raises:
            ConfigError: The captioner has no words for places.
            DataError: An image is damaged, or there are not as many texts.
        """
        return regions.locate(self, images, texts)

    def detect(self, images: Images, texts: Sequence[str], *, least: float = 0.0) -> list[list[Detected]]:
        """Finds what texts name, by the model's queries (GRAIN).

        Args:
            images: One or several; see `Model`.
            texts: What is looked for.
            least: The least share, of a query's choice among the texts and nothing, that counts.

        Returns:
            For each image what its queries found, the surest first, with boxes as shares of the image.

        Raises:
            ConfigError: The model has no queries.
        """
        return regions.detect(self, images, texts, least)

    def caption(self, images: Images, guidance_scale: float = 1.0, **options: Any) -> Any:
        """Writes a caption for each image: the text of the first of `captions`, whose options it takes.

        With `boxes`, `masks` or `points`, as of `encode_regions`, a caption for each region: a list, for several images
        a list of lists. With `unique=True` it is, of the several that `num_return_sequences` asks for, the one that
        fits its own region better than the others of the image (URECA), and no two are equal where that can be had.
        """
        named = {kind: options.pop(kind) for kind in ("boxes", "masks", "points") if options.get(kind) is not None}
        unique = options.pop("unique", False)
        if not named:
            if unique:
                raise ConfigError("unique=True is about captions of regions: name them by boxes, masks or points.")
            return [found[0].text for found in self.captions(images, guidance_scale, **options)]
        request = self._request(guidance_scale, **options)
        written = region_captions.caption_regions(self, images, request, unique=unique, **named)
        texts = [[caption.text for caption in some] for some in written]
        return texts[0] if is_one(images) else texts

    def dense_captions(
        self, images: Images, guidance_scale: float = 1.0, *, least: float = 0.5, overlap: float = 0.5, **options: Any
    ) -> list[list[Detected]]:
        """Finds regions by the model's queries (GRAIN) and captions each.

        Args:
            images: One or several; see `Model`.
            guidance_scale: As of `caption`, whose other options it takes.
            least: The least score that counts: a query's choice between its caption and nothing.
            overlap: A box whose IoU with a surer one is above this is left out.

        Returns:
            For each image its captions with their boxes, the surest first.

        Raises:
            ConfigError: The model has no queries, no captioner of regions, or was not trained to compare embeddings.
        """
        request = self._request(guidance_scale, **options)
        return region_captions.dense_captions(self, images, request, least=least, overlap=overlap)

    def captions(
        self,
        images: Images,
        guidance_scale: float = 1.0,
        *,
        prompt: str = "",
        control: Mapping[str, Any] | None = None,
        language_model: "Model | None" = None,
        language_weights: tuple[float, float] = (1.0, 1.0),
        reranker: "Model | Scorer | None" = None,
        **decoding: Any,
    ) -> list[list[Caption]]:
        """Writes captions for each image, greedily by default.

        Args:
            images: One or several; see `Model`.
            guidance_scale: 1 writes the likeliest caption; above 1 the more specific, at the price of likelihood.
            prompt: Words that each caption begins with.
            control: What each should be: `{"length": 8}`, `{"alignment": "best", "source": "long"}`.
            language_model: Guidance by a text model, see `CaptionRequest`.
            language_weights: Its `a` and `b`.
            reranker: Orders several captions of an image: a dual encoder, by the cosine of embeddings, or a
                function of the pixels `[B, S, S, 3]` and the captions `[B][S]` that gives scores.
            **decoding: `num_beams`, `num_return_sequences`, `temperature`, `top_k`, `top_p`, `seed`, ... of
                `vlc.generate.DecodingOptions`.

        Returns:
            For each image its captions, the best first where beam search or a reranker ranks them.

        Raises:
            ConfigError: The model has no captioner or no such control, a setting makes no sense, or the language model
                has another vocabulary.
            DataError: An image is missing or damaged.
        """
        request = self._request(
            guidance_scale, prompt=prompt, control=control, language_model=language_model,
            language_weights=language_weights, **decoding,
        )  # fmt: skip
        return self.generate(images, request, reranker=reranker)

    def generate(
        self, images: Images, request: CaptionRequest, *, reranker: "Model | Scorer | None" = None
    ) -> list[list[Caption]]:
        """As `captions`, of a `CaptionRequest`."""
        found: list[list[Caption]] = []
        for chunk in image_chunks(images, self.batch_size):
            indices = np.arange(len(found), len(found) + len(chunk))
            written = generate_captions(self, self._pixels(chunk, first=len(found)), request, indices=indices)
            found += written if reranker is None else self._reranked(chunk, written, reranker)
        return found

    def _reranked(
        self, images: list[AnyImage], captions: list[list[Caption]], reranker: "Model | Scorer"
    ) -> list[list[Caption]]:
        model = reranker if isinstance(reranker, Model) else None
        scorer: Scorer = model_scorer(model) if model is not None else reranker  # pyright: ignore[reportAssignmentType]
        pixels = (model or self)._pixels(images)
        return reranked(captions, scorer(pixels, [[caption.text for caption in group] for group in captions]))

    def caption_logits(self, pixels: np.ndarray, texts: Iterable[str]) -> np.ndarray:
        """Logits `[B, T, V]` of the token after each of a text, one text an image."""
        CaptionRequest().check(self)
        ids, seen = self.token_ids(texts), check_pixels(pixels, self.preprocess)
        if len(ids) != len(seen):
            raise DataError(f"caption_logits: {len(seen)} images and {len(ids)} texts; one text an image is meant.")
        return np.asarray(caption_logits(self._graph, self._params, seen, ids))

    def word_maps(self, image: AnyImage, text: str) -> tuple[list[str], np.ndarray]:
        """Where each token of a text is found in an image.

        Returns:
            The pieces of the text, and the similarity of each with every patch, `[pieces, rows, columns]`.
        """
        return word_maps.similarity_maps(self, self._pixels([image])[0], text)

    def written_maps(self, image: AnyImage, text: str = "") -> tuple[list[str], np.ndarray]:
        """Where the captioner looks when it writes each word of a caption: the mean over heads, layers and the word's
        tokens.

        Args:
            image: One; see `Model`.
            text: The caption; empty: the one that it writes itself.

        Returns:
            The words, and how much of the attention lies on each patch, `[words, rows, columns]`.

        Raises:
            ConfigError: There is no captioner that attends to patches.
        """
        if not text and word_maps.attends_to_patches(self):
            text = self.caption(image)[0]
        return word_maps.written_maps(self, self._pixels([image])[0], text)

    def __repr__(self) -> str:
        return describe_model(self)

    # -- helpers

    def _encoded(self, images: Images, closer: Closer | None = None) -> Iterator[ImageEncoding]:
        """Batches of encodings, at least one; of no image it is empty."""
        batches = self.encode_image_batches(images, closer=closer)
        first = next(batches, None)
        yield self.encode_pixels(np.zeros((0, *self.preprocess.shape), np.uint8)) if first is None else first
        yield from batches

    @staticmethod
    def _request(
        guidance_scale: float,
        *,
        prompt: str = "",
        control: Mapping[str, Any] | None = None,
        language_model: "Model | None" = None,
        language_weights: tuple[float, float] = (1.0, 1.0),
        **decoding: Any,
    ) -> CaptionRequest:
        known = {field.name for field in dataclasses.fields(DecodingOptions)}
        for name in decoding:
            if name not in known:
                raise ConfigError(f'caption: no setting is called "{name}".{did_you_mean(name, known)}')
        return CaptionRequest(
            guidance_scale, DecodingOptions(**decoding), prompt, control or {}, language_model, language_weights
        )

    def _pixels(self, images: list[AnyImage], *, first: int = 0) -> np.ndarray:
        return read_images(images, self.preprocess, first=first)


def describe_model(model: Model) -> str:
    """What a model is: towers and sizes, tokenizer, objectives, captioner, parameters, and where it is from."""
    parts, config = [], model.config.model
    if config.image.layers:
        image = config.image
        size = f"{model.preprocess.size} px in patches of {image.patch}"
        parts.append(f"image tower: {image.layers} layers of width {image.width}, {size}, pool {image.pool}")
    if config.text.layers:
        text, tokenizer = config.text, model.tokenizer
        parts.append(f"text tower: {text.layers} layers of width {text.width}, {text.length} tokens, pool {text.pool}")
        parts.append(f"tokenizer: {type(tokenizer).__name__}, {tokenizer.vocab_size:,} pieces")
    if config.decoder.layers:
        parts.append(f"captioner: {config.decoder.layers} layers of width {config.decoder.width}")
    trained = [name for name, objective in model.config.objectives.items() if objective.weight]
    parts += [f"embeddings of {config.embed_dim} numbers, trained by {', '.join(trained) or 'no objective'}"]
    parts += [f"{count_parameters(model.params):,} parameters" + (f", step {model.step:,}" if model.step else "")]
    parts += [f"from {model.path}"] if model.path else []
    return "vlc.Model(\n  " + "\n  ".join(parts) + "\n)"


def load_initial(path: str) -> Initial:
    """The model that a training run starts from; one tower alone will do."""
    parts = Model.load(path).as_imported()
    return Initial(parts.config, parts.params, parts.tokenizer, parts.preprocess)


def load(path: str | Path, **options: Any) -> Model:
    """Loads a workdir, an exported folder, or another library's model; see `Model.load`."""
    return Model.load(path, **options)
