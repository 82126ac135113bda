"""`Record`, the one thing that every source gives, and the checks that it must pass."""

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vlc.data.regions import Edge, Region
from vlc.errors import DataError

_AHEAD = 64  # records
# Why a record cannot be used. Where it is replaced while training, the position in this list is the code in the batch.
REASONS = ("ok", "file", "image", "image too large", "captions", "encoding", "row", "region")


@dataclass(frozen=True)
class Record:
    """One image with its captions.

    Attributes:
        key: A name that is unique in its source (file name, tar member, scene number).
        image: Encoded bytes (JPEG, PNG, WebP) or decoded pixels `[height, width, 3]` uint8.
        captions: Captions by source, e.g. `{"alt": ("a photo",), "long": ("A red ball. ...",)}`.
        regions: Parts of the image, where known.
        graph: How captions and regions hang together, where known.
        extra: What only some sources know, e.g. the `scene` behind a generated picture.
        scores: Similarity of captions with the image, by source and in the same order, where known; NaN where not.
        negatives: By caption, texts that are almost it and wrong of the image.
    """

    key: str
    image: bytes | np.ndarray
    captions: Mapping[str, tuple[str, ...]]
    regions: tuple[Region, ...] = ()
    graph: tuple[Edge, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    negatives: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def boxes(self) -> np.ndarray:
        """Left, top, right and bottom of the regions `[N, 4]` float32, as shares of width and height."""
        return np.asarray([region.box for region in self.regions], np.float32).reshape(-1, 4)

    def score(self, source: str, place: int) -> float:
        """Of one caption; NaN where it is not known."""
        scores = self.scores.get(source, ())
        return scores[place] if place < len(scores) else float("nan")

    def flat_scores(self) -> list[float]:
        """Of every caption, in the order of `all_captions`."""
        return [self.score(source, place) for source, texts in self.captions.items() for place in range(len(texts))]

    def all_captions(self) -> tuple[str, ...]:
        """Every caption, in the order of the caption sources."""
        return tuple(text for texts in self.captions.values() for text in texts)


class Source(ABC):
    """Records with random access: what every kind of data set is read as.

    `source[i]` raises `DataError` for a damaged record, never anything else. A subclass gives `__len__` and
    `__getitem__`, and whatever else it can tell without reading images.
    """

    @abstractmethod
    def __len__(self) -> int:
        """How many records there are."""

    @abstractmethod
    def __getitem__(self, index: int) -> Record:
        """One record; `DataError` where it is damaged."""

    @property
    def skipped(self) -> dict[str, int]:
        """Records left out when the source was indexed, by reason."""
        return {}

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the first of them."""
        return ()

    @property
    def dropped(self) -> Sequence[Mapping[str, Any]]:
        """What filters dropped: `step`, `images` and `captions` of each."""
        return ()

    def names(self, index: int) -> tuple[str, str]:
        """Key and URL of a record; the URL is empty where there is none."""
        record = self[index]
        return record.key, str(record.extra.get("url") or "")

    def captions(self, index: int) -> Mapping[str, tuple[str, ...]]:
        """Captions of a record by source."""
        return self[index].captions

    def twin(self, index: int, caption: tuple[str, int], rng: np.random.Generator) -> Record | None:
        """A record that differs from this one in one thing, where one is known.

        Args:
            index: Of the record.
            caption: Source and place of the caption that is to tell them apart: it is wrong of the twin's image, and
                the twin's caption at the same place is wrong of this image.
            rng: Chooses what is different.
        """
        del index, caption, rng
        return None

    def at(self, progress: float) -> "Source":
        """The source as it is after this share of training, for one that changes: it has as many records."""
        del progress
        return self

    @property
    def prefetches(self) -> bool:
        """Whether `prefetch` is of any use: records lie where they have to be waited for."""
        return False

    def prefetch(self, indices: Sequence[int], *, images: bool = True) -> None:
        """Begins to read what some records are made of, or their captions alone, which will be asked for soon."""
        del indices, images


class Wrapper(Source):
    """A source made from another, which says the same of what was left out."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def _place(self, index: int) -> int:
        """Of a record in the other source."""
        return index

    def twin(self, index: int, caption: tuple[str, int], rng: np.random.Generator) -> Record | None:
        return self.source.twin(self._place(index), caption, rng)

    @property
    def prefetches(self) -> bool:
        return self.source.prefetches

    def prefetch(self, indices: Sequence[int], *, images: bool = True) -> None:
        self.source.prefetch([self._place(index) for index in indices], images=images)

    @property
    def skipped(self) -> dict[str, int]:
        return self.source.skipped

    @property
    def problems(self) -> tuple[str, ...]:
        return self.source.problems

    @property
    def dropped(self) -> Sequence[Mapping[str, Any]]:
        return self.source.dropped


def coming(source: Source, indices: Iterable[int], *, images: bool = True) -> Iterator[int]:
    """The indices, while their records, or captions alone, are already being read."""
    for some in itertools.batched(indices, _AHEAD):
        if source.prefetches:
            source.prefetch(some, images=images)
        yield from some


class CaptionTypeError(DataError):
    """One string where a list of captions is meant: a mistake in how the data was written, not a damaged record."""


WORDS = {
    "file": "cannot be read",
    "image": "not a readable image",
    "image too large": "image too large",
    "captions": "no caption",
    "encoding": "not UTF-8",
    "row": "row of another form",
    "region": "region of another form",
    "crowd": "regions that are crowds",
    "outside": "regions outside of what the model sees",
    "no area": "boxes without an area",
    "second image": "a second image of one name, such as a mask",
}  # what the reasons mean, for people


def describe_skipped(source: Source) -> list[str]:
    """What was left out of a source and why, a line each, for whoever counts its records."""
    lines = [f"{count:,} left out: {WORDS.get(reason, reason)}" for reason, count in source.skipped.items() if count]
    return lines + [f"the first: {problem}" for problem in source.problems[:1] if lines]


def add_counts(*counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by reason, added up."""
    return dict(sum((Counter(count) for count in counts), Counter()))


def flatten_captions(captions: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Source and text of every caption, in order."""
    return [(source, text) for source, texts in captions.items() for text in texts]


def group_captions[T](pairs: Iterable[tuple[str, T]]) -> dict[str, tuple[T, ...]]:
    """Captions (or their scores) by source, from sources and texts."""
    captions: dict[str, tuple[T, ...]] = {}
    for source, text in pairs:
        captions[source] = (*captions.get(source, ()), text)
    return captions


def mend_text(text: str) -> str:
    """Text that can be written: halves of a surrogate pair, which JSON lets through, are joined, or marked as lost."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def clean_captions(captions: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """Checks the types of captions by source, and drops empty and missing ones.

    A caption source holds a *list of strings*. A bare string where a list is meant would later be sampled letter by
    letter, so it is refused here.

    Args:
        captions: Captions by source, each a list or tuple of strings.
        where: The file and record, for messages.

    Raises:
        DataError: A value is not a list of strings, or no caption is left.
    """
    cleaned = {}
    for source, texts in captions.items():
        if isinstance(texts, str):
            raise CaptionTypeError(
                f"{where}: the captions of {source!r} are one string, but a list of strings is meant. "
                f'Write ["{texts[:40]}"] instead.',
                "captions",
            )
        texts = [text for text in texts if not _is_missing(text)] if isinstance(texts, Sequence) else texts
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise DataError(
                f"{where}: the captions of {source!r} must be a list of strings, got {str(texts)[:60]!r}.", "captions"
            )
        kept = tuple(" ".join(mend_text(text).split()) for text in texts if text.strip())
        if kept:
            cleaned[mend_text(source)] = kept
    if not cleaned:
        raise DataError(f"{where}: has no caption. Every image needs at least one that is not empty.", "captions")
    return cleaned


def _is_missing(text: Any) -> bool:
    """Null, or the NaN that tables have for it."""
    return text is None or (isinstance(text, float) and text != text)
