"""Rewards: functions of captions that were written, and their weighted sum."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vlc.errors import ConfigError, DataError, did_you_mean
from vlc.rewards.cider import Cider
from vlc.rewards.fluency import Fluency
from vlc.units import (
    Alike,
    Claim,
    by_references,
    claims_of_scene,
    distinct,
    find_claim_reader,
    find_synonyms,
    judge_by_scene,
    matched,
    own_function,
)


@dataclass(frozen=True)
class Written:
    """Captions of some images, and what they are judged by.

    Attributes:
        texts: Several of each image.
        image: Embeddings of the images by the judge.
        text: Embeddings of the captions, `[B, K, D]`.
        gallery: Embeddings of all images of the batch, those of other processes included.
        own: Which of them each image is.
        scale: The judge's multiplier of similarities.
        references: What is said of each image in the data; nothing where no reward asks.
        cider: With the document frequencies of the training data.
        fluency: Likewise, of its runs of words.
        scenes: The scene that each image was drawn from; `None` of other data.
        bags: The bag of each image of the gallery; `None`: there are none.
        grammar: Log-odds that captions are well formed, by the judge; `None`: it has no head for that.
    """

    texts: Sequence[Sequence[str]]
    image: Float[np.ndarray, "B D"]
    text: Float[np.ndarray, "B K D"]
    gallery: Float[np.ndarray, "G D"]
    own: Int[np.ndarray, " B"]
    scale: float
    references: Sequence[Sequence[str]]
    cider: Cider | None = None
    fluency: Fluency | None = None
    scenes: Sequence[Any] | None = None
    bags: Int[np.ndarray, " G"] | None = None
    grammar: Float[np.ndarray, "B K"] | None = None


Reward = Callable[[Written], Float[np.ndarray, "B K"]]


class Term(NamedTuple):
    """A reward, its name and its weight."""

    name: str
    weight: float
    reward: Reward


def cosine(written: Written) -> Float[np.ndarray, "B K"]:
    """The cosine of caption and image."""
    return np.einsum("bkd,bd->bk", written.text, written.image)


def clip_s(written: Written) -> Float[np.ndarray, "B K"]:
    """CLIPScore, `2.5 max(cos, 0)` (Hessel et al., EMNLP 2021, arXiv 2104.08718)."""
    return 2.5 * np.maximum(cosine(written), 0)


def self_retrieval(written: Written) -> Float[np.ndarray, "B K"]:
    """The log-probability of the own image among those of the batch, by the judge's own scale (DiscriTune).

    Without the scale, cosines of a unit sphere are all but alike, and so is the reward of all captions.
    """
    return _log_share(written, np.ones((len(written.own), len(written.gallery)), bool))


def bag_retrieval(written: Written) -> Float[np.ndarray, "B K"]:
    """The same among the images of its bag (No Detail Left Behind, arXiv 2409.03025)."""
    if written.bags is None:
        raise ConfigError("The reward bag_retrieval needs bags of look-alike images: set config.data.bags.")
    return _log_share(written, written.bags[written.own][:, None] == written.bags[None])


def _log_share(written: Written, among: np.ndarray) -> Float[np.ndarray, "B K"]:
    logits = written.scale * np.einsum("bkd,gd->bkg", written.text, written.gallery)
    logits = np.where(among[:, None], logits, -np.inf)
    top = logits.max(axis=2, keepdims=True)
    total = top[..., 0] + np.log(np.exp(logits - top).sum(axis=2))
    return np.take_along_axis(logits, written.own[:, None, None], axis=2)[..., 0] - total


def cider(written: Written) -> Float[np.ndarray, "B K"]:
    """CIDEr-D against what the data say of the image, with the document frequencies of the training data."""
    assert written.cider is not None
    known = [[text.lower().split() for text in some] for some in written.references]
    return np.array([
        [written.cider.score(text.lower().split(), references) for text in texts]
        for texts, references in zip(written.texts, known, strict=True)
    ])  # fmt: skip


def fluency(written: Written) -> Float[np.ndarray, "B K"]:
    """The share of the runs of three words that the training data have."""
    assert written.fluency is not None
    known = written.fluency
    return np.array([[known.score(text.lower().split()) for text in texts] for texts in written.texts])


def grammar(written: Written) -> Float[np.ndarray, "B K"]:
    """The probability that a caption is well formed, by the judge's head (CLIP Reward, arXiv 2205.13115)."""
    if written.grammar is None:
        raise ConfigError(
            "The reward grammar needs a judge with a head for it: one that was trained with config.model.text.grammar."
        )
    return 1 / (1 + np.exp(-np.asarray(written.grammar, np.float64)))


def length(written: Written) -> Float[np.ndarray, "B K"]:
    """Words."""
    return np.array([[float(len(text.split())) for text in texts] for texts in written.texts])


def repetition(written: Written) -> Float[np.ndarray, "B K"]:
    """Minus the share of pairs of words that came before in the caption: what a judge of meaning alone brings about."""

    def again(text: str) -> float:
        words = text.split()
        pairs = list(itertools.pairwise(words))
        return (len(pairs) - len(set(pairs))) / len(pairs) if pairs else 0.0

    return -np.array([[again(text) for text in texts] for texts in written.texts])


def precision(written: Written) -> Float[np.ndarray, "B K"]:
    """The share of what a caption claims that is so (DCScore, arXiv 2503.07906); 0 of one that claims nothing."""
    return np.nan_to_num(_units(written)[..., 0])


def recall(written: Written) -> Float[np.ndarray, "B K"]:
    """The share of what is so, or of what the references claim, that a caption claims."""
    return np.nan_to_num(_units(written)[..., 1])


def _units(written: Written) -> Float[np.ndarray, "B K 2"]:
    """Precision and recall, NaN of nothing: exactly by scenes, else by what the references claim."""
    if written.scenes is None and not any(written.references):
        raise ConfigError(
            "The rewards precision and recall compare claims with scenes or with captions of the data, and neither of "
            "these images has any."
        )
    read, same = find_claim_reader("rules" if written.scenes is None else "scenes").read, find_synonyms().same
    rows = []
    for number, texts in enumerate(written.texts):
        scene = None if written.scenes is None else written.scenes[number]
        told = (claim for text in written.references[number] for claim in read(text))
        meant = distinct(told) if scene is None else claims_of_scene(scene)
        said = [list(read(text)) for text in texts]
        true = [by_references(x, meant, same) if scene is None else judge_by_scene(scene, x)[0] for x in said]
        rows.append([_shares(x, verdicts == 1, meant, same) for x, verdicts in zip(said, true, strict=True)])
    return np.array(rows, np.float64)


def _shares(said: list[Claim], true: np.ndarray, meant: list[Claim], same: Alike) -> tuple[float, float]:
    """Of the claims those that are true, and of what is meant that which they cover."""
    covered = matched([claim for claim, one in zip(said, true, strict=True) if one], meant, same)[0].sum()
    return (float(true.mean()) if said else np.nan), (float(covered / len(meant)) if meant else np.nan)


REWARDS: dict[str, Reward] = {
    "cosine": cosine,
    "clip_s": clip_s,
    "self_retrieval": self_retrieval,
    "bag_retrieval": bag_retrieval,
    "cider": cider,
    "fluency": fluency,
    "grammar": grammar,
    "precision": precision,
    "recall": recall,
    "length": length,
    "repetition": repetition,
}
OF_JUDGE = ("cosine", "clip_s", "self_retrieval", "bag_retrieval", "grammar")  # that need its embeddings


def parse_terms(weights: Mapping[str, float]) -> tuple[Term, ...]:
    """Rewards by name; a name with dots is a function of one's own, `package.module.function`.

    Raises:
        ConfigError: A name is not known, or cannot be imported.
    """
    return tuple(Term(name, weight, _find(name)) for name, weight in weights.items())


def _find(name: str) -> Reward:
    if name in REWARDS:
        return REWARDS[name]
    if "." not in name:
        raise ConfigError(f'config.reward.terms: no reward is called "{name}".{did_you_mean(name, REWARDS)}')
    return own_function(name, "a reward")


def total_rewards(
    terms: Sequence[Term], written: Written
) -> tuple[Float[np.ndarray, "B K"], dict[str, Float[np.ndarray, "B K"]]]:
    """The weighted sum, and each term without its weight.

    Raises:
        DataError: A reward gives another number of values, or one that is not finite.
    """
    shape = len(written.texts), len(written.texts[0]) if len(written.texts) else 0
    found = {}
    for term in terms:
        values = np.asarray(term.reward(written), np.float64)
        if values.shape != shape:
            raise DataError(
                f"The reward {term.name} gives {list(values.shape)} values; one for each caption is meant, "
                f"{list(shape)}."
            )
        if not np.isfinite(values).all():
            row, place = np.argwhere(~np.isfinite(values))[0]
            text = written.texts[row][place]
            raise DataError(f'The reward {term.name} is {values[row, place]} for the caption "{text:.80}".')
        found[term.name] = values
    total = sum((term.weight * found[term.name] for term in terms), start=np.zeros(shape))
    return total, found
