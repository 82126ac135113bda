"""Which words go with an image on this visit: mixing by source, sentences of long captions, sub-caption sampling."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import numpy as np

from vlc.errors import ConfigError

FIRST = ("main", "pool")
OF_REGION = "/"  # between the kind of a region and the source of its caption
SPLITS = {
    "sentences": re.compile(
        r"\n|</s>|(?<=[\u3002\uff01\uff1f])|"  # the full stop and its kin of Chinese and Japanese
        r"(?<!\bMr\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bNo\.)(?<!\bvs\.)(?<!\bMrs\.)(?<!\bProf\.)"
        r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bapprox\.)(?<!\bU\.S\.)(?<=[.!?])(?=\s|$)"
    ),
    "stops": re.compile(r"\n|</s>|[.]"),  # DreamLIP's released rule, which cuts "1.5 m" in two
}


def split_sentences(text: str, rule: str = "sentences") -> list[str]:
    """The sentences of a caption, the last one included (DreamLIP, arXiv 2403.17007, section 3.1).

    By the rule `sentences` a full stop ends one only before a space or the end, so `1.5 m` stays whole, and not after
    the usual abbreviations (`Mr.`, `e.g.`); Chinese and Japanese full stops always do. By `stops` every full stop does,
    and is dropped.
    """
    return [part.strip() for part in SPLITS[rule].split(text) if part.strip(" .!?\u3002\uff01\uff1f\n\t")]


def sample_sub_captions(
    rng: np.random.Generator, captions: Sequence[str], count: int, *, merge: int = 1, rule: str = "sentences"
) -> list[str]:
    """Draws sub-captions from all sentences of an image's captions.

    Without replacement when there are enough, with replacement otherwise, so one-sentence captions are safe.

    Args:
        rng: All randomness comes from here.
        captions: The captions of one image, at least one.
        count: How many to draw (`num_text` of DreamLIP).
        merge: Joins this many consecutive sentences of a caption (`merged_num` of DreamLIP).
        rule: How captions are split, one of `SPLITS`.
    """
    pool = []
    for caption in captions:
        sentences = split_sentences(caption, rule) or [caption]
        starts = range(max(1, len(sentences) - merge + 1))
        pool += [" ".join(sentences[start : start + merge]) for start in starts]
    chosen = rng.choice(len(pool), size=count, replace=len(pool) < count)
    return [pool[i] for i in chosen]


def matching(sources: Iterable[str], pattern: str) -> list[str]:
    """The caption sources that a name stands for; `long*` stands for all that begin so."""
    return [source for source in sources if fnmatchcase(source, pattern)]


@dataclass(frozen=True)
class Mix:
    """Weights of the caption sources, fixed or moving during training.

    VeCLIP (arXiv 2310.07699) and "Revisit" (arXiv 2410.02740) train on alt-text and synthetic captions together; one
    caption source is drawn at each visit.

    Attributes:
        start: Weight by caption source. A name may stand for several (`long*`), which then share its weight. Empty:
            every caption is equally likely.
        end: Weights at the end of the move; empty: they stay.
        move: The shares of training between which the weights move from `start` to `end`, in a straight line.
    """

    start: Mapping[str, float]
    end: Mapping[str, float] = field(default_factory=dict)
    move: tuple[float, float] = (0.0, 1.0)

    def at(self, progress: float) -> dict[str, float]:
        """Weights, which add up to 1, after this share of training."""
        start = _normalise(self.start)
        if not self.end:
            return start
        first, last = self.move
        share = float(np.clip((progress - first) / (last - first), 0, 1)) if last > first else float(progress >= last)
        end = _normalise(self.end)
        return {name: (1 - share) * start.get(name, 0.0) + share * end.get(name, 0.0) for name in {**start, **end}}

    def names(self) -> tuple[str, ...]:
        """All names that ever have weight."""
        return tuple({**self.start, **self.end})

    def draw(
        self, captions: Mapping[str, Sequence[str]], rng: np.random.Generator, progress: float = 0.0
    ) -> tuple[str, int]:
        """Source and place of one caption: a name by its weight, then a source that it stands for, then one of its.

        Names without a source among these captions are passed over.
        """
        weights = {
            name: weight for name, weight in self.at(progress).items() if weight > 0 and matching(captions, name)
        }
        if not weights:
            pool = [(source, place) for source, texts in captions.items() for place in range(len(texts))]
            return pool[rng.integers(len(pool))]
        names, values = list(weights), np.array(list(weights.values()))
        sources = matching(captions, names[rng.choice(len(names), p=values / values.sum())])
        source = sources[int(rng.integers(len(sources)))]
        return source, int(rng.integers(len(captions[source])))


def _normalise(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def of_sources(captions: Mapping[str, Sequence[str]], sources: str) -> tuple[str, ...]:
    """The captions of these sources, with commas, whose names may end in `*`; empty means all of them."""
    patterns = [part.strip() for part in sources.split(",") if part.strip()]
    names = dict.fromkeys(name for pattern in patterns for name in matching(captions, pattern))
    return tuple(text for name in (names if patterns else captions) for text in captions[name])


def different(wrong: Iterable[str], right: Iterable[str], count: int, rng: np.random.Generator) -> list[str]:
    """At most so many different wrong texts, in random order, none of which is right."""
    known = set(right)
    some = [text for text in dict.fromkeys(wrong) if text not in known]
    return [some[int(number)] for number in rng.permutation(len(some))[:count]]


@dataclass(frozen=True)
class CaptionChoice:
    """Chooses the captions of one visit to an image.

    Attributes:
        mix: Of the main caption.
        sub_captions: Sub-captions drawn after the main one.
        sub_sources: Caption sources whose sentences are drawn from; names may end in `*`. Empty: all.
        slots: For each sub-caption the source that it is drawn from, so that a slot means the same in all images (the
            negatives of DreamLIP's loss are of the same slot); `*` is any. Empty: all slots draw from one pool.
        first: `main`: slot 0 is the main caption, as DreamLIP's code has it (the raw caption always first). `pool`: it
            is drawn from the sentences too, as its paper says.
        merge: Consecutive sentences joined into one sub-caption.
        split: How captions are split into sentences, one of `SPLITS`.
        target: Of the captioner's target; `None`: the main caption.
        negatives: Wrong texts drawn from those of the main caption.
        negatives_share: Share of the visits at which they are.
    """

    mix: Mix
    sub_captions: int = 0
    sub_sources: tuple[str, ...] = ()
    slots: tuple[str, ...] = ()
    first: str = "main"
    merge: int = 1
    split: str = "sentences"
    target: Mix | None = None
    negatives: int = 0
    negatives_share: float = 1.0

    def __post_init__(self) -> None:
        if self.first not in FIRST:
            raise ConfigError(f"config.data.captions.first is {self.first!r}; it must be one of {FIRST}.")
        if self.split not in SPLITS:
            raise ConfigError(f"config.data.captions.split is {self.split!r}; it must be one of {tuple(SPLITS)}.")
        if self.slots and self.first == "pool":
            raise ConfigError(
                'config.data.captions.slots says what each slot draws, and first="pool" that all draw alike.'
            )
        if self.slots and len(self.slots) != self.sub_captions:
            raise ConfigError(
                f"config.data.captions.slots names {len(self.slots)} slots, but sub_captions is {self.sub_captions}."
            )

    def choose(
        self,
        captions: Mapping[str, Sequence[str]],
        rng: np.random.Generator,
        progress: float = 0.0,
        *,
        regions: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[list[str], tuple[str, int]]:
        """The `1 + sub_captions` texts for the contrastive objectives, and source and place of the captioner's target.

        Args:
            captions: Captions of one image by source.
            rng: All randomness comes from here.
            progress: The share of training that is done, for mixes that move.
            regions: Captions of its regions, by kind and source with a slash between them; sub-captions may name them.
        """
        more = regions or {}
        drawn_main = self.main(captions, rng, progress)
        target = self.target.draw(captions, rng, progress) if self.target else drawn_main
        main = captions[drawn_main[0]][drawn_main[1]]
        if self.first == "pool":
            return self._sub_captions(captions, more, self.sub_sources, 1 + self.sub_captions, rng), target
        if not self.slots:
            subs = self._sub_captions(captions, more, self.sub_sources, self.sub_captions, rng)
            return [main, *subs], target
        drawn: dict[str, list[str]] = {}
        for slot in dict.fromkeys(self.slots):  # slots of one name share one draw, so that they do not repeat
            drawn[slot] = self._sub_captions(captions, more, (slot,), self.slots.count(slot), rng)
        return [main, *(drawn[slot].pop() for slot in self.slots)], target

    def main(
        self, captions: Mapping[str, Sequence[str]], rng: np.random.Generator, progress: float = 0.0
    ) -> tuple[str, int]:
        """Source and place of the main caption that `choose` takes with the same generator."""
        return self.mix.draw(captions, rng, progress)

    def draw_negatives(self, wrong: Iterable[str], right: Iterable[str], rng: np.random.Generator) -> list[str]:
        """Some different wrong texts in random order, none of which is a caption of the image; fewer where there are
        not so many, and none at the visits that have none."""
        if self.negatives_share < 1 and rng.random() >= self.negatives_share:
            return []
        return different(wrong, right, self.negatives, rng)

    def _sub_captions(
        self,
        captions: Mapping[str, Sequence[str]],
        regions: Mapping[str, Sequence[str]],
        wanted: tuple[str, ...],
        count: int,
        rng: np.random.Generator,
    ) -> list[str]:
        if not count:
            return []
        every = {**captions, **regions}
        named = {name: None for one in wanted for name in matching(every if OF_REGION in one else captions, one)}
        pool = [text for source in named or captions for text in every[source]]
        return sample_sub_captions(rng, pool, count, merge=self.merge, rule=self.split)

    def check(self, captions: Mapping[str, Sequence[str]], where: str) -> None:
        """Raises `ConfigError` when a mix names no source that the first record has."""
        for key, mix in (("mix", self.mix), ("target", self.target)):
            if mix and mix.names() and not any(matching(captions, name) for name in mix.names()):
                raise ConfigError(
                    f"config.data.captions.{key} gives weight to {', '.join(mix.names())}, but {where} has captions "
                    f"from {', '.join(captions)}. Name one of those, or leave the mix empty to use all."
                )
