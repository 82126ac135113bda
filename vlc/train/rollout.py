"""Captions that the current model writes of a batch, and what they are worth: between reading it and the step.

What is written is a function of the parameters, the seed, the batch's number and the row, so a run that is killed and
started again writes the same. Captions are scored on the hosts, each process those of its own rows.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Int

from vlc.config import Config
from vlc.config.checks import parse_weights
from vlc.data.bags import Bags
from vlc.data.captions import of_sources
from vlc.data.record import Source
from vlc.data.sources import Scenes
from vlc.data.tokenizers import Tokenizer
from vlc.errors import ConfigError, DataError
from vlc.generate import DecodingOptions, GuidanceWeights, NextToken, sample, sampling_keys
from vlc.models import DualEncoder
from vlc.models.cached_decoder import CachedDecoder
from vlc.objectives.policy import baseline_of, token_log_probs
from vlc.parallel import Share, batch_sharding, compiler_options, fetch
from vlc.rewards import Cider, Fluency, Judge, Written, parse_terms, total_rewards
from vlc.rewards.terms import OF_JUDGE
from vlc.train.inputs import coming, evenly
from vlc.train.lowering import writes

Batch = dict[str, jax.Array]


def make_writer(graph: nnx.GraphDef[DualEncoder], config: Config, tokenizer: Tokenizer) -> Callable[..., Any]:
    """The function to compile: parameters, images and their numbers to ids `[B, K, T]`, after the begin mark; with
    greedy captions as the last of each image where they are the baseline; and the log-probabilities of the tokens."""
    reward, greedy = config.reward, baseline_of(config.objectives) == "greedy"
    most = reward.max_tokens
    scale = reward.guidance_scale
    branches = ("conditional",) if scale == 1 else ("conditional", "unconditional")
    begin_id, end_id = tokenizer.begin_id, tokenizer.end_id
    drawn_by = DecodingOptions(num_return_sequences=reward.samples, temperature=reward.temperature, max_new_tokens=most)
    greedy_by = DecodingOptions(max_new_tokens=most)

    def write(params: Any, images: jax.Array, numbers: jax.Array) -> dict[str, jax.Array]:
        model = nnx.merge(graph, params)
        image, count = model.encode_image(images), len(numbers)
        cached = CachedDecoder(model, image, branches=branches)
        next_token = NextToken(cached, GuidanceWeights(scale, 1 - scale))
        keys = sampling_keys(config.seed + 2, numbers, reward.samples)
        ids = sample(next_token, count, drawn_by, keys=keys, begin_id=begin_id, end_id=end_id).ids.reshape(
            count, reward.samples, -1
        )
        if greedy:
            best = sample(next_token, count, greedy_by, begin_id=begin_id, end_id=end_id).ids.reshape(count, 1, -1)
            ids = jnp.concatenate([ids, best], axis=1)
        begin = jnp.full((*ids.shape[:2], 1), tokenizer.begin_id, jnp.int32)
        made = {"ids": jnp.concatenate([begin, ids], axis=2)}
        if reward.updates > 1:
            some = made["ids"][:, : reward.samples]
            made["log_probs"], _ = token_log_probs(model.sampled_logits(image, some[..., :-1]), some[..., 1:])
        return made

    return write


class Rollout:
    """Writes and judges."""

    def __init__(
        self, config: Config, graph: nnx.GraphDef[DualEncoder], mesh: Mesh, share: Share, tokenizer: Tokenizer,
        source: Source, judge: Judge | None, sharding: Any, bags: Bags | None = None,
    ):  # fmt: skip
        """
        Args:
            config: Resolved.
            graph: The model.
            mesh: Of the run.
            share: This process's rows.
            tokenizer: The run's.
            source: Of the batches.
            judge: The dual encoder of rewards that need one.
            sharding: Of the parameters.
            bags: Whose records stand side by side in a batch.

        Raises:
            ConfigError: A reward is not known, or needs a judge or scenes that are not there.
        """
        self._config, self._mesh, self._share = config, mesh, share
        self._tokenizer, self._source, self._judge = tokenizer, source, judge
        self._terms = parse_terms(parse_weights(config.reward.terms, "reward.terms", signed=True))
        self._bags = bags
        self._check()
        self._named = {term.name for term in self._terms}
        words = self._corpus
        self._cider = Cider(words()) if "cider" in self._named else None
        self._fluency = Fluency(text for texts in words() for text in texts) if "fluency" in self._named else None
        rows = batch_sharding(mesh)
        self._write = jax.jit(
            make_writer(graph, config, tokenizer), in_shardings=(sharding, rows, rows), out_shardings=rows,
            compiler_options=compiler_options("step"),
        )  # fmt: skip
        self._seconds = {"writing": 0.0, "scoring": 0.0}
        self._numbers: dict[str, float] = {}

    def __call__(self, number: int, params: Any, host: Mapping[str, np.ndarray], batch: Batch) -> Batch:
        """What is added to a batch.

        Args:
            number: Of the batch; that of the step, but after a run went on with batches of another size.
            params: That write.
            host: This process's rows of the batch, with `index`.
            batch: On the devices.

        Raises:
            DataError: A reward is not finite, or of another length.
        """
        begun = time.perf_counter()
        size, most = self._config.batch_size, self._config.reward.samples
        places = number * size + self._share.rows
        numbers = self._share.to_devices({"n": places.astype(np.uint32)})["n"]
        with jax.set_mesh(self._mesh):
            written = self._write(params, batch["image"], numbers)
        ids = self._here(written["ids"])
        texts = [[self._tokenizer.decode(row) for row in some] for some in ids]
        wrote = time.perf_counter()
        total, by_term = self._judged(texts, host, places, number)
        extra = {"sampled": ids[:, :most], "reward": total[:, :most].astype(np.float32)}
        if total.shape[1] > most:
            extra["reward_baseline"] = total[:, most].astype(np.float32)
        made = self._share.to_devices(extra)
        if "log_probs" in written:
            made["sampled_old"] = written["log_probs"]
        self._numbers = self._count(ids[:, :most], total[:, :most], {name: x[:, :most] for name, x in by_term.items()})
        self._seconds["writing"] += wrote - begun
        self._seconds["scoring"] += time.perf_counter() - wrote
        return made

    def report(self, elapsed: float) -> dict[str, float]:
        """Figures of the last writing of this process's rows, and the shares of the time since the last report that
        writing (the steps before it included, which it waits for) and scoring took."""
        found = self._numbers | {f"rollout/{part}": spent / elapsed for part, spent in self._seconds.items()}
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return found

    def _judged(
        self, texts: list[list[str]], host: Mapping[str, np.ndarray], places: np.ndarray, number: int
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The weighted sum, and each reward, of captions of the records at some places of the sequence of examples."""
        count, most = len(texts), len(texts[0])
        image, text, gallery, scale = np.zeros((count, 1)), np.zeros((count, most, 1)), np.zeros((count, 1)), 1.0
        grammar = None
        if self._judge is not None:
            image = self._judge.encode_pixels(_resized(host["image"], self._judge.preprocess.size)).embed
            flat = self._judge.encode_text([one for some in texts for one in some])
            text, scale = flat.embed.reshape(count, most, -1), float(self._judge.scales.logit_scale)
            grammar = None if flat.grammar is None else np.asarray(flat.grammar).reshape(count, most)
            gallery = fetch(self._share.to_devices({"embed": np.asarray(image, np.float32)})["embed"])
        draws = self._config.steps * self._config.batch_size
        records = [(self._source.at(min(place / draws, 1.0)), index)
                   for place, index in zip(places.tolist(), host["index"].tolist(), strict=True)]  # fmt: skip
        units = bool(self._named & {"precision", "recall"})
        scenes = _scenes(records) if units else None
        compared = self._cider is not None or (units and scenes is None)
        written = Written(
            texts, image, text, np.asarray(gallery), scale=scale, cider=self._cider, fluency=self._fluency,
            own=self._share.rows if self._judge is not None else np.arange(count),
            references=[self._references(*record) if compared else () for record in records],
            bags=None if self._bags is None else np.arange(len(gallery)) // self._bags.size_at(number),
            grammar=grammar, scenes=scenes,
        )  # fmt: skip
        return total_rewards(self._terms, written)

    def _references(self, source: Source, index: int) -> tuple[str, ...]:
        return of_sources(source.captions(index), self._config.reward.references)

    def _corpus(self) -> Iterator[list[list[str]]]:
        """The references of evenly spaced records of the training data, as words; damaged ones are passed over."""
        records = evenly(self._source, self._config.data.tokenizer_samples)
        for number in coming(self._source, records, images=False):
            with contextlib.suppress(DataError):
                yield [text.lower().split() for text in self._references(self._source, number)]

    def _count(self, ids: Int[np.ndarray, "B K T"], total: np.ndarray, terms: Mapping[str, np.ndarray]) -> dict:
        """For the log: means over this process's rows."""
        ended = (ids == self._tokenizer.end_id).any(axis=2)
        words = (ids[..., 1:] < self._tokenizer.vocab_size).sum(axis=2)
        alike = (total.std(axis=1) < 1e-6).mean() if total.shape[1] > 1 else 0.0
        made = {"reward": total.mean(), "reward/tokens": words.mean(), "reward/cut": 1 - ended.mean(),
                "reward/alike": alike}  # fmt: skip
        return {name: float(x) for name, x in (made | {f"reward/{k}": v.mean() for k, v in terms.items()}).items()}

    def _here(self, array: jax.Array) -> np.ndarray:
        """This process's rows of a global array."""
        parts = {shard.index[0].indices(len(array))[0]: shard.data for shard in array.addressable_shards}
        return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])

    def _check(self) -> None:
        if not self._terms:
            raise ConfigError("Captions are written, and config.reward.terms names no reward.")
        of_judge = [term.name for term in self._terms if term.name in OF_JUDGE]
        if of_judge and self._judge is None:
            raise ConfigError(
                f"The reward {of_judge[0]} needs a dual encoder that judges: set config.reward.judge to a model."
            )
        if self._judge is not None and "embed" not in self._judge.compares:
            raise ConfigError(
                f"config.reward.judge={self._config.reward.judge} was not trained to compare embeddings, and no loss "
                "ever saw those that it gives."
            )


def _scenes(records: Sequence[tuple[Source, int]]) -> list[Any] | None:
    """The scenes that images were drawn from; `None` of other data."""
    scenes = [source.scene(index)[0] for source, index in records if isinstance(source, Scenes)]
    return scenes if len(scenes) == len(records) else None


def load_judge(config: Config, load: Callable[[str], Judge] | None) -> Judge | None:
    """The model of `config.reward.judge`, where captions are judged by one.

    Raises:
        ConfigError: The caller cannot load any.
        CheckpointError: It is missing or damaged.
    """
    if not writes(config) or not config.reward.judge:
        return None
    if load is None:
        raise ConfigError("config.reward.judge is set: call train(..., load_judge=vlc.load).")
    return load(config.reward.judge)


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    """The pictures as the judge takes them."""
    if images.ndim != 4 or images.shape[1] != images.shape[2]:
        raise DataError("Captions are judged by pictures, and data.image.resize=naflex gives patches: use squares.")
    if images.shape[1] == size:
        return images
    how = cv2.INTER_AREA if images.shape[1] > size else cv2.INTER_LINEAR
    return np.stack([cv2.resize(image, (size, size), interpolation=how) for image in images])
