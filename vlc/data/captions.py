"""Which words go with an image on this visit: mixing by source, sentences of long captions, sub-caption sampling."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlc.errors import ConfigError

_SENTENCE_END = re.compile(r"\n|</s>|(?<=[.!?])(?=\s|$)")


def split_sentences(text: str) -> list[str]:
    """The sentences of a caption, the last one included (DreamLIP, arXiv 2403.17007, section 3.1).

    A full stop ends a sentence only before a space or the end, so `1.5 m` stays whole.
    """
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip(" .!?\n\t")]


def sample_sub_captions(rng: np.random.Generator, captions: Sequence[str], count: int, *, merge: int = 1) -> list[str]:
    """Draws sub-captions from all sentences of an image's captions.

    Without replacement when there are enough, with replacement otherwise, so one-sentence captions are safe.

    Args:
        rng: All randomness comes from here.
        captions: The captions of one image, at least one.
        count: How many to draw (`num_text` of DreamLIP).
        merge: Joins this many consecutive sentences of a caption (`merged_num` of DreamLIP).
    """
    pool = []
    for caption in captions:
        sentences = split_sentences(caption) or [caption]
        starts = range(max(1, len(sentences) - merge + 1))
        pool += [" ".join(sentences[start : start + merge]) for start in starts]
    chosen = rng.choice(len(pool), size=count, replace=len(pool) < count)
    return [pool[i] for i in chosen]


@dataclass(frozen=True)
class CaptionChoice:
    """Chooses the captions of one visit to an image.

    Attributes:
        mix: Weight by caption source for the main caption (slot 0); sources that a record lacks are passed over.
            Empty: every caption is equally likely.
        sub_captions: Sub-captions drawn after the main one.
        sub_sources: Caption sources whose sentences are drawn from. Empty: all.
        merge: Consecutive sentences joined into one sub-caption.
        target: Weight by source for the captioner's target. Empty: the main caption.
    """

    mix: Mapping[str, float]
    sub_captions: int = 0
    sub_sources: tuple[str, ...] = ()
    merge: int = 1
    target: Mapping[str, float] | None = None

    def choose(self, captions: Mapping[str, Sequence[str]], rng: np.random.Generator) -> tuple[list[str], str]:
        """Returns the `1 + sub_captions` texts for the contrastive objectives, and the captioner's target."""
        main = draw_caption(captions, self.mix, rng)
        texts = [main]
        if self.sub_captions:
            sources = [source for source in captions if not self.sub_sources or source in self.sub_sources]
            pool = [text for source in sources or captions for text in captions[source]]
            texts += sample_sub_captions(rng, pool, self.sub_captions, merge=self.merge)
        return texts, draw_caption(captions, self.target, rng) if self.target else main

    def check(self, captions: Mapping[str, Sequence[str]], where: str) -> None:
        """Raises `ConfigError` when a mix names no source that the first record has."""
        for key, mix in (("mix", self.mix), ("target", self.target)):
            if mix and not any(mix.get(source, 0) > 0 for source in captions):
                raise ConfigError(
                    f"config.data.captions.{key} gives weight to {', '.join(mix)}, but {where} has captions from "
                    f"{', '.join(captions)}. Name one of those, or leave the mix empty to use all."
                )


def draw_caption(
    captions: Mapping[str, Sequence[str]], mix: Mapping[str, float] | None, rng: np.random.Generator
) -> str:
    """One caption: first a source by its weight, then one of its captions uniformly."""
    sources = [source for source in captions if mix and mix.get(source, 0) > 0]
    if not (mix and sources):
        pool = [text for texts in captions.values() for text in texts]
        return pool[rng.integers(len(pool))]
    weights = np.array([mix[source] for source in sources], float)
    texts = captions[sources[rng.choice(len(sources), p=weights / weights.sum())]]
    return texts[int(rng.integers(len(texts)))]
