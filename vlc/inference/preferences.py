"""`vlc data preferences`: of several captions of each image the best and the worst, by any reward, as a data set.

What FeedQuill does with units of captions (Ye et al., 2025, arXiv 2503.07906, section 4): the pairs are stored once,
and `config.data.captions.preferred` learns from them by DPO.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlc.curate.build import Plan, encode_image
from vlc.data.captions import of_sources
from vlc.data.record import Record, Source
from vlc.errors import ConfigError, DataError
from vlc.inference.derived_data import decodable, in_chunks, write_derived
from vlc.inference.model import Model
from vlc.rewards import Cider, Fluency, Term, Written, parse_terms, total_rewards
from vlc.rewards.terms import OF_JUDGE

_CHUNK = 128  # images in memory, among which self-retrieval compares
_CORPUS = 10_000  # records whose words CIDEr and fluency know


@dataclass(frozen=True)
class Preferences:
    """What the data set is a function of, beside the judge.

    Attributes:
        source: What the data is called.
        captions: The caption source with several captions of an image.
        terms: Weights of rewards by name.
        columns: How columns of the data are read.
        references: Caption sources that rewards compare with; empty: all but `captions`.
        name: The caption source of those that are preferred.
        margin: By how much the best is better than the worst at least, and more than nothing.
        shard_records: Images to a shard.
    """

    source: str
    captions: str
    terms: Mapping[str, float]
    columns: str = ""
    references: str = ""
    name: str = "preferred"
    margin: float = 0.0
    shard_records: int = 4096


def write_preferences(source: Source, settings: Preferences, judge: Model | None, out: str | Path) -> dict[str, Any]:
    """Writes a data set with a pair of each image that has one: the better caption, and the worse as its wrong text;
    other images are left out and counted. Stopped and called again it goes on.

    Raises:
        ConfigError: A reward is not known, or needs a judge.
        DataError: The folder holds another data set, no pair is left, or the disk is full.
    """
    terms = parse_terms(settings.terms)
    of_judge = [term.name for term in terms if term.name in OF_JUDGE]
    if not terms:
        raise ConfigError('Name what decides: --by "precision:1,recall:0.5".')
    if of_judge and judge is None:
        raise ConfigError(f"The reward {of_judge[0]} needs a dual encoder that judges: --judge MODEL.")
    if settings.margin < 0:
        raise ConfigError("--margin must be 0 or more.")
    scorer = _Scorer(source, settings, terms, judge)
    plan = asdict(settings) | {"judge": judge.fingerprint if judge else "", "records in the source": len(source)}
    return write_derived(
        source, out, plan, lambda images, left_out: _pairs(source, images, settings, scorer, judge, left_out),
        made_by=f"`vlc data preferences` from {settings.source}",
        nothing="no image has captions of which one is better than another",
    )  # fmt: skip


class _Scorer:
    """Rewards of the captions of records."""

    def __init__(self, source: Source, settings: Preferences, terms: Sequence[Term], judge: Model | None):
        self._settings, self._terms, self._judge = settings, terms, judge
        named = {term.name for term in terms}
        words = [[text.lower().split() for text in texts] for texts in self._corpus(source)] if named & {
            "cider", "fluency"} else []  # fmt: skip
        self._cider = Cider(words) if "cider" in named else None
        self._fluency = Fluency(text for texts in words for text in texts) if "fluency" in named else None

    def _corpus(self, source: Source) -> Iterator[Sequence[str]]:
        for number in range(0, len(source), -(-len(source) // _CORPUS)):
            try:
                yield self.references(source[number])
            except DataError:
                continue

    def references(self, record: Record) -> tuple[str, ...]:
        others = {name: texts for name, texts in record.captions.items() if name != self._settings.captions}
        return of_sources(others, self._settings.references)

    def __call__(self, records: Sequence[Record]) -> list[np.ndarray]:
        """Of each record, those of its captions."""
        texts = [record.captions[self._settings.captions] for record in records]
        most = max(map(len, texts))
        filled = [[*some, *[some[-1]] * (most - len(some))] for some in texts]
        image, text = np.zeros((len(records), 1)), np.zeros((len(records), most, 1))
        scale, grammar = 1.0, None
        if self._judge is not None:
            image = self._judge.encode_image([record.image for record in records]).embed
            read = self._judge.encode_text([one for some in filled for one in some])
            text, scale = read.embed.reshape(len(records), most, -1), float(self._judge.scales.logit_scale)
            grammar = None if read.grammar is None else np.asarray(read.grammar).reshape(len(records), most)
        scenes = [record.extra.get("scene") for record in records]
        written = Written(
            filled, image, text, image, np.arange(len(records)), scale, [self.references(one) for one in records],
            self._cider, self._fluency, None if any(scene is None for scene in scenes) else scenes, grammar=grammar,
        )  # fmt: skip
        total, _ = total_rewards(self._terms, written)
        return [row[: len(some)] for row, some in zip(total, texts, strict=True)]


def _pairs(
    source: Source,
    images: range,
    settings: Preferences,
    scorer: _Scorer,
    judge: Model | None,
    left_out: dict[str, int],
) -> Iterator[tuple[Record, bytes]]:
    plan = Plan(settings.source)
    for some in in_chunks(source, images, _CHUNK, left_out):
        some = decodable(judge, some, left_out) if judge else some
        records = [record for record in some if len(record.captions.get(settings.captions, ())) > 1]
        if fewer := len(some) - len(records):
            left_out["one caption or none"] = left_out.get("one caption or none", 0) + fewer
        for record, scores in zip(records, scorer(records) if records else (), strict=True):
            texts = record.captions[settings.captions]
            best, worst = texts[int(scores.argmax())], texts[int(scores.argmin())]
            if (gap := scores.max() - scores.min()) <= 0 or gap < settings.margin or best == worst:
                left_out["worth the same"] = left_out.get("worth the same", 0) + 1
                continue
            captions = {**record.captions, settings.name: (best,)}
            negatives = {**record.negatives, best: (worst, *record.negatives.get(best, ()))}
            yield replace(record, captions=captions, negatives=negatives), encode_image(record, plan)
