"""Sources to batches with Grain: shuffled by index, sharded by process, and resumed from one integer, the step."""

import functools
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import grain.python as grain
import numpy as np
from absl import flags

from vlc.data.attributes import Attributes
from vlc.data.bags import Bags
from vlc.data.broken_texts import break_text
from vlc.data.captions import CaptionChoice, different
from vlc.data.controls import Controls
from vlc.data.decoding import picture_size
from vlc.data.frame import Frame
from vlc.data.images import Preprocess
from vlc.data.order import visits
from vlc.data.places import write_box
from vlc.data.record import REASONS, CaptionTypeError, Record, Source
from vlc.data.region_choice import Chosen, RegionChoice, captions_of_regions, class_number
from vlc.data.region_crops import draw_crop
from vlc.data.sides import swap_sides
from vlc.data.tokenizers import Tokenizer
from vlc.data.workers import die_with_parent
from vlc.errors import DataError

Batch = dict[str, np.ndarray]

STAGES = ("read", "image", "text")  # where the time of making an example goes
_AHEAD = 2048  # records that are asked for before their batch is begun, at the most
_SUBSTITUTES = 1000  # so many damaged records in a row mean that the data, not a record, is broken


class Lengths(NamedTuple):
    """Tokens of a text, marks included: of the main caption, of a sub-caption, of the captioner's target, and of what
    is said of a region."""

    main: int
    sub: int
    target: int
    region: int = 0


class Visit(NamedTuple):
    """What stands at one place of the endless sequence of examples.

    Attributes:
        draw: The place.
        record: Number of the record that stands there.
        pair: For a record whose twin stands beside it, and for that twin, place and number of the record.
        is_twin: Whether it is the twin, in place of `record` where one is known.
    """

    draw: int
    record: int
    pair: tuple[int, int] | None = None
    is_twin: bool = False


@dataclass(frozen=True)
class FirstPart:
    """The first examples of training, where they are smaller than the later ones.

    Attributes:
        draws: How many.
        preprocess: Of their images.
        lengths: Of their texts, as `MakeExample.lengths`.
    """

    draws: int
    preprocess: Preprocess
    lengths: Lengths


@dataclass(frozen=True)
class MakeExample(grain.RandomMapTransform):
    """Index to example. Never raises for a damaged record: the next good one takes its place, with the reason.

    An example holds `image` `[S, S, 3]` uint8; int32 ids of `text` `[T]`, where asked for `subs` `[K, U]`
    (sub-captions), `hard` `[H, T]` (wrong texts; pads alone where there are fewer), `broken` `[T]` (a broken copy of
    the text; likewise) and `sampled` `[2, V]` (a caption, and one that it is preferred to) with `reward` `[2]` float32,
    and `target` `[V]` (the captioner's); where regions are asked for, `boxes` `[R, 4]` float32, `cover` `[R, P]`
    float16, the ids of `region_text` `[R, U]`, pads alone where there are fewer, and `region_counts` `[3]`
    (`Chosen.counts`), perhaps `region_hard` `[R, H, U]` and `region_classes` `[R]`; perhaps `classes` `[]`
    (`class_number`); `index` (of the record used), `skipped` (position in `REASONS` of why the record asked for was
    not), and `seconds` float32 that each of `STAGES` took.

    Attributes:
        lengths: T, U and V, and U of regions.
        draws: Examples that training will see in all; what changes during training does so by this measure.
        controls: What the captioner can be asked for; then an example has `control` `[S]` as well.
        first: What the first examples are made smaller by.
        regions: Which regions an example has; `None`: none.
        patch: Pixels on a side of a patch, for these.
        attributes: Those that captions are looked through for.
        places: Bins of an axis for words that are places, and the share of targets that have some.
        crop: Whether an image is the crop of one of its regions.
        swap_sides: Whether the captions of mirrored pictures are mirrored too.
        class_source: The caption source whose text is the class of an image; empty: none is told.
        region_classes: Whether the classes of regions are told.
        region_negatives: Wrong texts of each region.
        broken: Whether an example has a broken copy of its text.
        preferred: The caption source that is preferred to its wrong texts; empty: no pairs are told.
    """

    source: Source
    preprocess: Preprocess
    captions: CaptionChoice
    tokenizer: Tokenizer
    lengths: Lengths
    draws: int = 0
    controls: Controls = field(default_factory=Controls)
    first: FirstPart | None = None
    regions: RegionChoice | None = None
    patch: int = 0
    attributes: Attributes = field(default_factory=Attributes)
    places: tuple[int, float] = (0, 0.0)
    crop: bool = False
    swap_sides: bool = False
    class_source: str = ""
    region_classes: bool = False
    region_negatives: int = 0
    broken: bool = False
    preferred: str = ""

    def random_map(self, element: Visit, rng: np.random.Generator) -> Batch:  # pyright: ignore[reportIncompatibleMethodOverride]
        progress = min(element.draw / self.draws, 1.0) if self.draws else 0.0
        if element.pair is not None:  # both of a pair are worded and cropped alike
            rng = np.random.default_rng(element.pair)
        source = self.source.at(progress)
        skipped, first = 0, ""
        for attempt in range(_SUBSTITUTES):
            index = (int(element.record) + attempt) % len(source)
            try:
                begun = time.perf_counter()
                record = self._twin(source, element, progress) if element.is_twin and not attempt else None
                record = record or source[index]
                read = time.perf_counter() - begun
                example = self.make(
                    record, rng, progress, first=self.first is not None and element.draw < self.first.draws
                )
                example["seconds"][0] = read
                return example | {"index": np.int64(index), "skipped": np.int8(skipped)}
            except DataError as error:
                skipped, first = skipped or REASONS.index(error.reason), first or str(error)
        raise DataError(
            f"{_SUBSTITUTES} records in a row, from {element.record} on, cannot be used: a part of the data is lost. "
            f"The first says: {first}"
        )

    def _twin(self, source: Source, visit: Visit, progress: float) -> Record | None:
        """The twin of the record that stands before it in the batch; `None` where none is known."""
        assert visit.pair is not None
        _, of = visit.pair
        rng = np.random.default_rng(visit.pair)
        return twin_of(source, of, self.captions, rng, progress)

    def make(self, record: Record, rng: np.random.Generator, progress: float = 0.0, *, first: bool = False) -> Batch:
        """One record as the model will see it on this visit.

        Args:
            record: From the source.
            rng: All randomness comes from here.
            progress: The share of training that is done.
            first: Whether it is one of the smaller examples at the beginning.
        """
        begun = time.perf_counter()
        if self.crop:
            assert self.regions is not None
            record = draw_crop(record, self.regions, self.preprocess, rng)
        mirror = None
        if self.swap_sides and self.preprocess.flip and rng.random() < 0.5:
            mirror, record = True, mirrored(record)
        elif self.swap_sides:
            mirror = False
        told = captions_of_regions(record.regions) if self.captions.sub_captions else {}
        (main, *subs), (source, place) = self.captions.choose(record.captions, rng, progress, regions=told)
        preprocess, lengths = self.preprocess, self.lengths
        if first and self.first is not None:
            preprocess, lengths = self.first.preprocess, self.first.lengths
        target = record.captions[source][place]
        example = {
            "text": self.tokenizer.encode([main], lengths.main)[0],
            "target": self.tokenizer.encode([target], lengths.target)[0],
        }
        if self.controls.kinds:
            example["control"] = self.controls.describe(
                target, source, record.score(source, place), rng, cut=self._is_cut(target, example["target"])
            )
        if self.attributes:
            example["attributes"] = self.attributes.named([main])
        if subs:
            example["subs"] = self.tokenizer.encode(subs, lengths.sub)
        if self.captions.negatives:
            wrong = self.captions.draw_negatives(record.negatives.get(main, ()), record.all_captions(), rng)
            example["hard"] = np.full((self.captions.negatives, lengths.main), self.tokenizer.pad_id, np.int32)
            if wrong:
                example["hard"][: len(wrong)] = self.tokenizer.encode(wrong, lengths.main)
        if self.preferred:
            pair = pair_of(record, self.preferred)
            example["sampled"] = self.tokenizer.encode([*pair], lengths.target)
            example["reward"] = np.array([bool(pair[0]), 0], np.float32)
        if self.broken:
            copy = break_text(main, rng)
            example["broken"] = np.full(lengths.main, self.tokenizer.pad_id, np.int32)
            if copy:
                example["broken"] = self.tokenizer.encode([copy], lengths.main)[0]
        if self.class_source:
            names = record.captions.get(self.class_source, ())
            example["classes"] = np.int32(class_number(names[0]) if names else -1)
        worded = time.perf_counter()
        example["image"], frame = preprocess.framed(record.image, where=record.key, rng=rng, mirror=mirror)
        if self.regions is not None:
            grid = preprocess.grid(example["image"], self.patch)
            chosen = self._choose(record, frame, grid, rng)
            example |= self._regions(chosen, grid, (preprocess.size // self.patch) ** 2, lengths.region, rng)
            bins, share = self.places
            if bins and chosen.texts and rng.random() < share:
                example["target"] = self.tokenizer.encode([grounded(chosen, bins, rng)], lengths.target)[0]
                example |= {"control": np.zeros_like(example["control"])} if self.controls.kinds else {}
        example["seconds"] = np.array([0.0, time.perf_counter() - worded, worded - begun], np.float32)
        return example

    def _choose(self, record: Record, frame: Frame, grid: tuple[int, int], rng: np.random.Generator) -> Chosen:
        assert self.regions is not None
        size = functools.partial(picture_size, record.image, where=record.key, convert=self.preprocess.convert)
        return self.regions(record.regions, frame, grid, rng, size=size, where=record.key)

    def _regions(
        self, chosen: Chosen, grid: tuple[int, int], patches: int, length: int, rng: np.random.Generator
    ) -> Batch:
        """The regions of an example, in arrays of one shape."""
        assert self.regions is not None
        count, most = len(chosen.texts), self.regions.count
        made = {
            "boxes": np.zeros((most, 4), np.float32),
            "cover": np.zeros((most, patches), np.float16),
            "region_text": np.full((most, length), self.tokenizer.pad_id, np.int32),
            "region_counts": chosen.counts,
        }
        made["boxes"][:count] = chosen.boxes
        made["cover"][:count, : grid[0] * grid[1]] = chosen.cover
        if count:
            made["region_text"][:count] = self.tokenizer.encode(chosen.texts, length)
        if self.region_classes:
            made["region_classes"] = np.full(most, -1, np.int32)
            made["region_classes"][:count] = chosen.classes()
        if self.region_negatives:
            made["region_hard"] = np.full((most, self.region_negatives, length), self.tokenizer.pad_id, np.int32)
            for row, (region, text) in enumerate(zip(chosen.regions, chosen.texts, strict=True)):
                right = [caption for some in region.captions.values() for caption in some]
                wrong = different(region.negatives.get(text, ()), right, self.region_negatives, rng)
                if wrong:
                    made["region_hard"][row, : len(wrong)] = self.tokenizer.encode(wrong, length)
        if self.controls.kinds:
            made["region_control"] = np.zeros((most, len(self.controls.kinds)), np.int32)
            for row, (text, source) in enumerate(zip(chosen.texts, chosen.sources, strict=True)):
                cut = self._is_cut(text, made["region_text"][row])
                made["region_control"][row] = self.controls.describe(text, source, math.nan, rng, cut=cut)
        return made

    def _is_cut(self, text: str, ids: np.ndarray) -> bool:
        """Whether the ids do not hold all of the text."""
        full = ids[-1] != self.tokenizer.pad_id
        return bool(full) and self.tokenizer.encode([text], len(ids) + 1)[0, -1] != self.tokenizer.pad_id


def pair_of(record: Record, preferred: str) -> tuple[str, str]:
    """A caption of a source and the first wrong text that it is preferred to; empty where there is none."""
    known = (
        (text, record.negatives[text][0]) for text in record.captions.get(preferred, ()) if record.negatives.get(text)
    )
    return next(known, ("", ""))


def grounded(chosen: Chosen, bins: int, rng: np.random.Generator) -> str:
    """One of the regions and its place: where it is, or what is there (LocCa, arXiv 2403.19596, section 3.1)."""
    number = int(rng.integers(len(chosen.texts)))
    place = write_box(chosen.boxes[number], bins)
    return f"{chosen.texts[number]} {place}" if rng.random() < 0.5 else f"{place} {chosen.texts[number]}"


def mirrored(record: Record) -> Record:
    """The record with the captions of its mirrored picture; the picture itself is not touched."""

    def swapped(captions: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        return {source: tuple(map(swap_sides, texts)) for source, texts in captions.items()}

    wrong = _both_swapped(record.negatives)
    regions = tuple(
        replace(region, captions=swapped(region.captions), negatives=_both_swapped(region.negatives))
        for region in record.regions
    )
    # Where words begin is not so any more, so the graph is left out.
    return replace(record, captions=swapped(record.captions), negatives=wrong, regions=regions, graph=())


def _both_swapped(negatives: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Captions and their wrong texts, mirrored."""
    return {swap_sides(caption): tuple(map(swap_sides, texts)) for caption, texts in negatives.items()}


class _Visits(grain.MapDataset):
    """The records in the order of the draws, some of them in pairs of a record and its twin, side by side."""

    def __init__(self, order: grain.MapDataset, batch_size: int, twins: float, first: int):
        """
        Args:
            order: Of the records.
            batch_size: Of the global batch.
            twins: Share of a batch that are twins, at most a half.
            first: The first batch that has some.
        """
        super().__init__(order)
        self._size, self._paired, self._first = batch_size, 2 * round(twins * batch_size), first

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, draw: Any) -> Any:
        batch, row = divmod(draw, self._size)
        if row >= self._paired or batch < self._first:
            return Visit(draw, int(self._parent[draw]))
        first = draw - row % 2
        index = int(self._parent[first])
        return Visit(draw, int(self._parent[draw]), (first, index), is_twin=row % 2 == 1)


class _Bagged(grain.MapDataset):
    """Records whose bags stand side by side in a batch."""

    def __init__(self, bags: Bags, batch_size: int, seed: int):
        """
        Args:
            bags: With their sizes by step.
            batch_size: Of the global batch.
            seed: Of their order.
        """
        super().__init__(grain.MapDataset.range(len(bags.members)).seed(seed).shuffle().repeat())
        self._bags, self._size = bags, batch_size

    def __len__(self) -> int:
        return len(self._parent)

    def __getitem__(self, draw: Any) -> Any:
        batch, row = divmod(draw, self._size)
        number, place = self._bags.place(batch, row, self._size)
        bag: Any = self._parent[number]
        return int(self._bags.members[bag, place])


class _Rows(grain.MapDataset):
    """The same rows of every batch of examples, one after another; with the first all of them are asked for."""

    def __init__(
        self, parent: grain.MapDataset, order: grain.MapDataset, source: Source, size: int, rows: Sequence[int],
        threads: int,
    ):  # fmt: skip
        """
        Args:
            parent: The examples.
            order: The records that they are made of.
            source: Of these.
            size: Of a batch.
            rows: Those that are wanted.
            threads: Batches that are made at the same time.
        """
        super().__init__(parent)
        self._order, self._source, self._size, self._rows = order, source, size, tuple(rows)
        self._ahead = threads if threads * len(self._rows) <= _AHEAD else 0

    def __len__(self) -> int:
        return len(self._parent) // self._size * len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        batch, row = divmod(index, len(self._rows))
        if row == 0 and self._source.prefetches:
            for coming in sorted({batch, batch + self._ahead}):  # what is already coming is not asked for again
                self._source.prefetch([int(self._order[coming * self._size + wanted]) for wanted in self._rows])
        return self._parent[batch * self._size + self._rows[row]]


def train_batches(
    make_example: MakeExample,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    rows: Sequence[int] | None = None,
    threads: int = 2,
    workers: int = 0,
    twins: float = 0.0,
    twins_from: int = 0,
    bags: Bags | None = None,
) -> grain.DatasetIterator[Batch]:
    """An endless stream of batches, or of this process's rows of every global batch.

    In which order records are visited, `vlc.data.order.visits` says. What stands in a row of a global batch, and its
    augmentation, depend on `seed` and the step alone: not on processes, workers or where the run was resumed. There is
    no remainder: a batch goes on from one epoch into the next.

    Args:
        make_example: Turns an index into an example.
        batch_size: The global batch.
        seed: Of shuffling, caption choice and augmentation.
        start_step: Batches already trained on; the whole state of the pipeline.
        rows: Those that this process reads (`vlc.parallel.Share`); all when `None`.
        threads: Reading threads (of each worker).
        workers: Worker processes; 0 reads in this one.
        twins: Share of a batch that are twins of the records beside them (`Source.twin`), at most a half.
        twins_from: The first step whose batch has some.
        bags: Of records that stand side by side, in place of single records; `None`: there are none.
    """
    order = visits(make_example.source, seed) if bags is None else _Bagged(bags, batch_size, seed)
    examples = _Visits(order, batch_size, twins, twins_from).random_map(make_example)
    wanted = range(batch_size) if rows is None else rows
    dataset = _Rows(examples, order, make_example.source, batch_size, wanted, threads).batch(len(wanted))[start_step:]
    read = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(4, threads)))
    if workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        read = read.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2), worker_init_fn=die_with_parent
        )
    return read.__iter__()


def twin_of(
    source: Source, index: int, choice: CaptionChoice, rng: np.random.Generator, progress: float = 0.0
) -> Record | None:
    """A record's twin, for the main caption that is chosen with the same generator; `None` where none is known.

    Captions are chosen by their place, so a twin has as many of each source as the record. That is not so where a
    filter has left some of the record's out.
    """
    captions = source.captions(index)
    words = choice.main(captions, rng, progress)
    twin = source.twin(index, words, rng)
    if twin is None or any(len(twin.captions.get(name, ())) != len(texts) for name, texts in captions.items()):
        return None
    return twin


def check_source(make_example: MakeExample, name: str) -> None:
    """Looks at the first good record before anything is compiled.

    Raises:
        DataError: The source is empty, its first hundred records are all damaged, or a string stands where a list of
            captions is meant.
        ConfigError: The caption mix names no source that the records have.
    """
    if len(make_example.source) == 0:
        raise DataError(f"{name}: the source is empty.")
    problems = []
    for index in range(min(100, len(make_example.source))):
        try:
            record = make_example.source[index]
            make_example.captions.check(record.captions, f"{name} ({record.key})")
            make_example.make(record, np.random.default_rng(0))
            return
        except CaptionTypeError:
            raise
        except DataError as error:
            problems.append(str(error))
    raise DataError(f"{name}: none of the first {len(problems)} records is usable. The first says: {problems[0]}")


def count_skipped(batch: Batch) -> dict[str, int]:
    """Records of a batch that were replaced, by reason."""
    codes = np.bincount(batch["skipped"], minlength=len(REASONS))
    return {REASONS[i]: int(n) for i, n in enumerate(codes) if i and n}


def describe_batch(batch: Batch, tokenizer: Tokenizer, count: int = 3) -> str:
    """The first captions of a batch as the model sees them, one JSON line an image."""
    lines = []
    for i in range(min(count, len(batch["index"]))):
        line: dict[str, Any] = {"index": int(batch["index"][i]), "text": tokenizer.decode(batch["text"][i])}
        if "subs" in batch:
            line["subs"] = [tokenizer.decode(ids) for ids in batch["subs"][i]]
        if "region_text" in batch:
            shown = int(batch["region_counts"][i][0])
            line["regions"] = [
                [[round(float(side), 3) for side in box], tokenizer.decode(ids)]
                for box, ids in zip(batch["boxes"][i][:shown], batch["region_text"][i][:shown], strict=True)
            ]
        lines.append(line | {"target": tokenizer.decode(batch["target"][i])})
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
