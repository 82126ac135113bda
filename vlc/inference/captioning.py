"""Captions of images: decoding, guidance, control and reranking as one compiled program."""

import functools
import logging
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int

from vlc.data.controls import Controls
from vlc.data.tokenizers import Tokenizer
from vlc.errors import ConfigError
from vlc.generate import (
    DecodingOptions,
    GenerateOutput,
    GuidanceWeights,
    NextToken,
    UnconditionalCaptioner,
    beam_search,
    sample,
    sampling_keys,
)
from vlc.inference.comparison import compared_by, pair_scores
from vlc.inference.encoder import CaptionerParts, Encoder
from vlc.inference.region_inputs import Places
from vlc.models import ImageEncoding
from vlc.models.cached_decoder import CachedDecoder
from vlc.settings import is_number

log = logging.getLogger("vlc")
_warned: weakref.WeakSet[Encoder] = weakref.WeakSet()  # of what guidance lacks; once is enough

Images = np.ndarray | ImageEncoding
# Images and their captions `[B][S]` to scores `[B, S]`, higher is better.
Scorer = Callable[[np.ndarray, Sequence[Sequence[str]]], np.ndarray]


@dataclass(frozen=True)
class Caption:
    """A caption.

    Attributes:
        text: Its words.
        log_prob: The sum of log-probabilities of its tokens, as guided; those of a prompt count for nothing.
        image_log_prob: The same given the image, without guidance.
        tokens: How many were chosen, the end mark included.
        score: What it was ranked by, where it was; else NaN.
    """

    text: str
    log_prob: float
    image_log_prob: float
    tokens: int
    score: float = float("nan")


@dataclass(frozen=True)
class CaptionRequest:
    """What captions are asked for.

    Attributes:
        guidance_scale: 1 writes the likeliest caption; above 1 the more specific, at the price of likelihood.
        decoding: How they are decoded.
        prompt: Words that each begins with.
        control: What each should be, see `vlc.data.controls`.
        language_model: A model whose captioner, without an image, is `q` of language-model guidance; the captioner
            itself may be named.
        language_weights: `a` and `b` of `log q(x) + a log p(x|y) - b log p(x)`.
    """

    guidance_scale: float = 1.0
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    prompt: str = ""
    control: Mapping[str, Any] = field(default_factory=dict)
    language_model: Encoder | None = None
    language_weights: tuple[float, float] = (1.0, 1.0)

    def factors(self, captioner: Encoder) -> GuidanceWeights:
        """Exponents of the image's, the null image's and the language model's log-probabilities."""
        if self.language_model is None:
            return GuidanceWeights(self.guidance_scale, 1 - self.guidance_scale)
        a, b = self.language_weights
        own = self.language_model.fingerprint == captioner.fingerprint
        return GuidanceWeights(a, 1 - b) if own else GuidanceWeights(a, -b, 1.0)

    def to_json(self) -> dict[str, Any]:
        """All that captions depend on, beside the captioner."""
        other = self.language_model.fingerprint if self.language_model else None
        control = {kind: str(value) for kind, value in self.control.items()}
        return {
            "guidance_scale": self.guidance_scale, "decoding": asdict(self.decoding), "prompt": self.prompt,
            "control": control, "language_model": other, "language_weights": list(self.language_weights),
        }  # fmt: skip

    def check(self, model: Encoder) -> None:
        """Raises `ConfigError` where the model cannot do what is asked; warns where it was not trained for it."""
        if not model.config.model.decoder.layers:
            raise ConfigError("This model has no captioner: it was trained with config.model.decoder.layers=0.")
        if not (is_number(self.guidance_scale) and self.guidance_scale >= 0):
            raise ConfigError(f"guidance_scale is {self.guidance_scale!r}; it must be a finite number, 0 or more.")
        if not isinstance(self.prompt, str):
            raise ConfigError(f"prompt is {self.prompt!r}; it must be a string.")
        if not isinstance(self.control, Mapping):
            raise ConfigError(f'control is {self.control!r}; it must be a mapping such as {{"length": 8}}.')
        weights = self.language_weights
        if not (isinstance(weights, Sequence) and len(weights) == 2 and all(is_number(w) and w >= 0 for w in weights)):
            raise ConfigError(f"language_weights is {weights!r}; it must be two finite numbers, 0 or more.")
        if self.language_model is None and tuple(weights) != (1.0, 1.0):
            raise ConfigError("language_weights are set, but there is no language_model that they would weigh.")
        self.decoding.check(model.caption_length)
        if self.language_model is not None:
            self._check_language_model(model)
        Controls.of(model.config).encode(self.control)
        unconditional = self.factors(model).unconditional
        if unconditional and not model.config.objectives.caption.null_rate and model not in _warned:
            _warned.add(model)
            log.warning(
                "This captioner never saw a hidden image in training (config.objectives.caption.null_rate=0), so what "
                "guidance takes away is not its p(text). Fine-tune with null_rate=0.5 (configs/captioner_finetune.py)."
            )

    def _check_language_model(self, model: Encoder) -> None:
        other = self.language_model
        assert other is not None
        if self.guidance_scale != 1:
            raise ConfigError("Guidance by a language model has weights of its own: leave guidance_scale at 1.")
        if not other.config.model.decoder.layers:
            raise ConfigError("The guiding language model has no caption decoder (config.model.decoder.layers=0).")
        if other.tokenizer.to_json() != model.tokenizer.to_json():
            raise ConfigError(
                f"The guiding language model has another vocabulary ({other.tokenizer.vocab_size} tokens) than the "
                f"captioner ({model.tokenizer.vocab_size}). Train it with --config.data.tokenizer=FILE of the "
                "captioner's (its tokenizer.model)."
            )
        longest = self.decoding.max_new_tokens or model.caption_length
        if other.caption_length < longest:
            raise ConfigError(
                f"The guiding language model reads {other.caption_length} tokens, the captioner writes {longest}. Set "
                f"max_new_tokens={other.caption_length}, or less."
            )


def generate_captions(
    model: Encoder, images: Images, request: CaptionRequest, *, indices: Int[np.ndarray, " B"] | None = None,
    regions: Places | None = None, prompts: Sequence[str] | None = None,
) -> list[list[Caption]]:  # fmt: skip
    """Captions of images, several of each, in the search's order; see `generate_ids`."""
    written = generate_ids(model, images, request, indices=indices, regions=regions, prompts=prompts)
    found = []
    for ids, *numbers in zip(*written, strict=True):
        rows = zip(ids, *numbers, strict=True)
        found.append([Caption(model.tokenizer.decode(row), float(a), float(b), int(n)) for row, a, b, n in rows])
    return found


def generate_ids(
    model: Encoder, images: Images, request: CaptionRequest, *, indices: Int[np.ndarray, " B"] | None = None,
    regions: Places | None = None, prompts: Sequence[str] | None = None,
) -> GenerateOutput:  # fmt: skip
    """Captions as ids, with their probabilities, as NumPy arrays.

    Args:
        model: With a captioner.
        images: Pixels `[B, S, S, 3]` uint8 that are preprocessed already, or images that are encoded.
        request: What captions are asked for.
        indices: Numbers of the images, for drawing; by default their places.
        regions: One of each image, that its captions are about; `None`: the whole image.
        prompts: Words that the captions of each image begin with, in place of the request's.

    Raises:
        ConfigError: The model cannot do what is asked.
    """
    request.check(model)
    told = _told_regions(model, regions)
    numbers = np.arange(len(jax.tree.leaves(images)[0])) if indices is None else np.asarray(indices)
    weights = request.factors(model)
    tokenizer = model.tokenizer
    run = functools.partial(
        _generate,
        model.caption_blocks,
        control=jnp.asarray(Controls.of(model.config).encode(request.control)),
        weights=GuidanceWeights(*(jnp.float32(weight) for weight in weights)),
        seed=jnp.uint32(request.decoding.seed),
        language=_beside(model, request.language_model) if request.language_model and weights.language else None,
        branches=("conditional", "unconditional") if weights.unconditional else ("conditional",),
        decoding=replace(request.decoding, seed=0),
        marks=(tokenizer.begin_id, tokenizer.end_id),
    )
    begun = [request.prompt] * len(numbers) if prompts is None else list(prompts)
    ids = {text: _prompt_ids(tokenizer, text, request, model.caption_length) for text in dict.fromkeys([*begun, ""])}
    told["prompt"] = np.stack([ids[text] for text in begun]) if begun else ids[""][None][:0]
    return model.run_batched(run, (images, numbers.astype(np.uint32), told))


def _told_regions(model: Encoder, regions: Places | None) -> dict[str, np.ndarray]:
    """What the captioner is told of regions: their boxes, the patches that they cover, or both, as it was trained.

    Raises:
        ConfigError: It was not trained to caption regions.
    """
    if regions is None:
        return {}
    control = model.config.model.decoder.control
    if not (control.box or control.mask):
        raise ConfigError(
            "This captioner was not trained to caption regions (config.model.decoder.control.box and .mask are off): "
            "docs/regions.md."
        )
    told = {"boxes": regions.boxes} if control.box else {}
    return told | ({"cover": regions.cover} if control.mask else {})


def _beside(model: Encoder, other: Encoder) -> CaptionerParts:
    """Another captioner, on the devices of the first."""
    return (other if model.mesh is None else other.spread(model.mesh)).caption_parts


def _prompt_ids(tokenizer: Tokenizer, prompt: str, request: CaptionRequest, length: int) -> np.ndarray:
    """The prompt's ids without marks, then pads, `[length]`; always of one shape."""
    ids = np.full(length, tokenizer.pad_id, np.int32)
    if prompt:
        marks = (tokenizer.begin_id, tokenizer.end_id)
        found = [token for token in tokenizer.ids(tokenizer.clean(prompt), 1 << 16) if token not in marks]
        limit = (request.decoding.max_new_tokens or length) - 1
        if len(found) >= limit:
            raise ConfigError(f'prompt "{prompt}" has {len(found)} tokens; captions have at most {limit}.')
        ids[: len(found)] = found
    return ids


@functools.partial(jax.jit, static_argnums=1, static_argnames=("branches", "decoding", "marks"))
def _generate(
    blocks: Any,
    graph: Any,
    params: Any,
    inputs: tuple[Any, jax.Array, dict[str, jax.Array]],
    *,
    control: jax.Array,
    weights: GuidanceWeights,
    seed: jax.Array,
    language: Any,
    branches: tuple[Any, ...],
    decoding: DecodingOptions,
    marks: tuple[int, int],
) -> GenerateOutput:
    """Images to captions; weights, seed, prompts and control are arguments of the compiled program."""
    model = nnx.merge(graph, params)
    image, numbers, told = inputs
    regions = {name: x for name, x in told.items() if name != "prompt"}
    image, images = image if isinstance(image, ImageEncoding) else model.encode_image(image), len(numbers)
    request = jnp.broadcast_to(control, (images, *control.shape)) if control.size else None
    cached = CachedDecoder(model, image, branches=branches, control=request, blocks=blocks, **regions)
    language_model = None
    if language is not None:
        other = nnx.merge(language.graph, language.params)
        language_model = UnconditionalCaptioner(
            CachedDecoder(other, None, branches=("unconditional",), blocks=language.blocks)
        )
    next_token = NextToken(cached, weights, language_model)
    given = told["prompt"]
    begin_id, end_id = marks
    if decoding.num_beams > 1:
        return beam_search(next_token, images, decoding, begin_id=begin_id, end_id=end_id, prompt=given)
    keys = sampling_keys(seed, numbers, decoding.num_return_sequences) if decoding.samples else None
    return sample(next_token, images, decoding, begin_id=begin_id, end_id=end_id, keys=keys, prompt=given)


def model_scorer(reranker: Encoder) -> Scorer:
    """Ranks captions by how well they fit the image, as any dual encoder was trained to compare."""
    compared_by(reranker)

    def score(images: np.ndarray, captions: Sequence[Sequence[str]]) -> Float[np.ndarray, "B S"]:
        text = reranker.encode_text([caption for some in captions for caption in some])
        owner = np.repeat(np.arange(len(captions)), [len(some) for some in captions])
        return pair_scores(reranker, reranker.encode_pixels(images), text, owner).reshape(len(captions), -1)

    return score


def reranked(captions: list[list[Caption]], scores: Float[np.ndarray, "B S"]) -> list[list[Caption]]:
    """Captions with their scores, the best of each image first; those that draw keep their order."""
    scored = [
        [replace(caption, score=float(s)) for caption, s in zip(some, row, strict=True)]
        for some, row in zip(captions, scores, strict=True)
    ]
    return [sorted(some, key=_order) for some in scored]


def _order(caption: Caption) -> float:
    """The highest score first; what has none, NaN, last."""
    return math.inf if math.isnan(caption.score) else -caption.score
