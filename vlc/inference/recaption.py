"""`vlc caption --data`: a data set with captions of a model beside its own, each with its similarity to the image.

Synthetic captions are what DreamLIP (arXiv 2403.17007), VeCLIP (arXiv 2310.07699) and their like train on. Written in
shards that are each a function of the data and the settings alone, so that it can be stopped, and shared by processes.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vlc.curate.build import Plan, encode_image
from vlc.curate.shards import GOES_ON, MANIFEST, finish_dataset, finished_shard, shard_names, start_dataset, write_shard
from vlc.data.record import Record, Source, add_counts
from vlc.errors import ConfigError, DataError
from vlc.inference.captioning import CaptionRequest, generate_captions
from vlc.inference.comparison import compared_by, pair_scores
from vlc.inference.model import Model
from vlc.inference.reading import ahead, progress_bar, read_pixels
from vlc.parallel import barrier, is_primary, local_indices, primary_first
from vlc.storage import made_for, place

_CHUNK = 256  # images in memory


@dataclass(frozen=True)
class Recaption:
    """What a recaptioned data set is a function of, beside the models.

    Attributes:
        source: What the data is called.
        columns: How its columns are read.
        name: The caption source of the new captions; `long*` and the like are what recipes for long captions read.
        request: How they are written; `None`: none are, and those that are there are scored.
        keep: The most captions of an image that are kept, the best different ones; 0 means all.
        min_score: Captions, new and old, below this cosine with their image are dropped; an image without any is left
            out.
        originals: Whether the captions that are there stay.
        shard_records: Images to a shard.
    """

    source: str
    columns: str = ""
    name: str = "longVLC"
    request: CaptionRequest | None = field(default_factory=CaptionRequest)
    keep: int = 0
    min_score: float = float("-inf")
    originals: bool = True
    shard_records: int = 4096

    def to_json(self, model: Model, reranker: Model | None) -> dict[str, Any]:
        """All that the result depends on."""
        return {
            "source": self.source, "columns": self.columns, "name": self.name, "keep": self.keep,
            "min_score": str(self.min_score), "originals": self.originals, "shard_records": self.shard_records,
            "request": self.request.to_json() if self.request else None, "captioner": model.fingerprint,
            "reranker": reranker.fingerprint if reranker else None,
        }  # fmt: skip

    def check(self, model: Model, reranker: Model | None) -> None:
        """Raises `ConfigError` where a setting makes no sense."""
        if self.request is not None:
            self.request.check(model)
        if self.shard_records < 1:
            raise ConfigError(f"--shard-records is {self.shard_records}; a shard holds at least one image.")
        if reranker is None and (self.min_score > float("-inf") or self.keep or self.request is None):
            raise ConfigError(
                "Nothing scores the captions: this model was not trained to compare images with texts. Name a dual "
                "encoder with --reranker MODEL."
            )
        if reranker is not None:
            compared_by(reranker)
        if self.request is None and not self.originals:
            raise ConfigError(
                "--num-return-sequences 0 writes no captions, and --drop-originals leaves none of the old ones."
            )


def recaption(
    model: Model, source: Source, settings: Recaption, out: str | Path, *, reranker: Model | None = None, part: int = 0,
    parts: int = 1, quiet: bool = False,
) -> dict[str, Any] | None:  # fmt: skip
    """Writes a data set with new captions: shards, `manifest.json`, and what tfds needs to read it.

    Stopped and called again it goes on. Jobs apart share the shards, and so do the processes of each, which all call
    this alike (`vlc.parallel.start_processes`). Whichever job finishes last writes the manifest.

    Args:
        model: With a captioner.
        source: Any source.
        settings: What is written.
        out: The folder.
        reranker: The dual encoder that scores captions; `None`: they have no scores.
        part: This job, from 0.
        parts: All jobs.
        quiet: No progress bar.

    Returns:
        The manifest, or `None` where other jobs are not done; it is process 0 of a job that knows.

    Raises:
        ConfigError: A setting makes no sense.
        DataError: The folder holds another data set, no caption is left, or the disk is full.
    """
    settings.check(model, reranker)
    there = place(out)
    if not isinstance(there, Path) and (parts > 1 or jax.process_count() > 1):
        raise ConfigError(
            f"{out}: several jobs or processes share their shards, which needs a folder on a disk. Caption in one, or "
            "write to a shared disk and copy."
        )
    with made_for(there, first=(MANIFEST,), resumed=True) as folder:
        return _recaption(model, source, settings, folder, reranker, part, parts, quiet)


def _recaption(
    model: Model, source: Source, settings: Recaption, out: Path, reranker: Model | None, part: int, parts: int,
    quiet: bool,
) -> dict[str, Any] | None:  # fmt: skip
    plan = settings.to_json(model, reranker) | {"records in the source": len(source)}
    names = shard_names("train", -(-len(source) // settings.shard_records))
    try:
        with primary_first("dataset"):
            manifest = start_dataset(out, plan, {})
        if manifest is None:
            of_job = range(part, len(names), parts)
            own = [of_job[place] for place in local_indices(len(of_job))]
            with progress_bar(quiet or not is_primary()) as bar:
                _write_shards(_Writer(model, reranker, source, settings, bar), out, names, own)
        barrier("shards")
        return _finish(out, names, plan, source, settings) if manifest is None and is_primary() else manifest
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}). {GOES_ON}") from error


def _write_shards(writer: "_Writer", out: Path, names: Sequence[str], own: Sequence[int]) -> None:
    """Those of one process, which are not there yet."""
    writer.expect([index for number in own for index in writer.images_of(number)])
    for number in own:
        if finished_shard(out, names[number]) is None:
            left_out: dict[str, Any] = {"left out": {}}
            write_shard(out, names[number], writer.records(number, left_out["left out"]), left_out)
        else:
            writer.pass_over(number)


def _finish(
    out: Path, names: Sequence[str], plan: dict[str, Any], source: Source, settings: Recaption
) -> dict[str, Any] | None:
    """The manifest, when all shards are there."""
    shards = [line for name in names if (line := finished_shard(out, name)) is not None]
    if len(shards) < len(names):
        return None
    left_out = add_counts(*(shard.pop("left out") for shard in shards))
    if not any(shard["records"] for shard in shards):
        raise DataError(f"{out}: no image with a caption is left ({left_out}). Lower --min-score.")
    more = {"left out": {"index": source.skipped, "records": left_out}}
    return finish_dataset(out, plan, shards, more, made_by=f"`vlc caption` from {settings.source}", split="train")


class _Chunk:
    """Some images in memory, with the pixels that the captioner and the reranker see."""

    def __init__(self, source: Source, numbers: range, model: Model, reranker: Model | None):
        self.reasons: dict[str, int] = {}
        found: list[tuple[int, Record]] = []
        for number in numbers:
            try:
                found.append((number, source[number]))
            except DataError as error:
                self._leave_out(error.reason)
        records = [record for _, record in found]
        self.pixels, bad = self._read(records, model)
        self.reranker_pixels = self.pixels
        if reranker is not None and reranker.preprocess != model.preprocess:
            self.reranker_pixels, worse = self._read(records, reranker)
            bad |= worse
        for reason in bad.values():
            self._leave_out(reason)
        good = [place for place in range(len(found)) if place not in bad]
        self.numbers, self.records = [found[i][0] for i in good], [found[i][1] for i in good]
        self.pixels, self.reranker_pixels = self.pixels[good], self.reranker_pixels[good]

    @staticmethod
    def _read(records: Sequence[Record], model: Model) -> tuple[np.ndarray, dict[int, str]]:
        size = model.preprocess.size
        if not records:
            return np.zeros((0, size, size, 3), np.uint8), {}
        return read_pixels(lambda i: records[i].image, [record.key for record in records], model.preprocess)

    def _leave_out(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


class _Writer:
    """Makes the records of a shard."""

    def __init__(self, model: Model, reranker: Model | None, source: Source, settings: Recaption, bar: Any):
        self.model, self.reranker, self.source, self.settings, self.bar = model, reranker, source, settings, bar
        self.plan = Plan(settings.source)
        self.task = bar.add_task("images", total=0, rate="")
        self.done, self.started = 0, time.perf_counter()

    def images_of(self, shard: int) -> range:
        """Numbers of the images of a shard."""
        first = shard * self.settings.shard_records
        return range(first, min(first + self.settings.shard_records, len(self.source)))

    def expect(self, images: Sequence[int]) -> None:
        """Says how many images there are."""
        self.bar.update(self.task, total=len(images))

    def pass_over(self, shard: int) -> None:
        """Counts a shard that is there already."""
        self.bar.update(self.task, advance=len(self.images_of(shard)))

    def records(self, shard: int, left_out: dict[str, int]) -> Iterator[tuple[Record, bytes]]:
        """The records of a shard with their encoded images; what is left out is counted by reason."""
        images = self.images_of(shard)
        chunks = [images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK)]
        for numbers, chunk in ahead(lambda some: _Chunk(self.source, some, self.model, self.reranker), chunks):
            for record in self._captioned(chunk) if chunk.records else ():
                if record.captions:
                    yield record, encode_image(record, self.plan)
                else:
                    chunk.reasons["no caption left"] = chunk.reasons.get("no caption left", 0) + 1
            left_out.update(add_counts(left_out, chunk.reasons))
            self.done += len(numbers)
            rate = self.done / (time.perf_counter() - self.started)
            self.bar.update(self.task, advance=len(numbers), rate=f"{rate:,.1f} images/s")

    def _captioned(self, chunk: _Chunk) -> list[Record]:
        settings = self.settings
        new: list[list[str]] = [[] for _ in chunk.records]
        if settings.request is not None:
            written = generate_captions(self.model, chunk.pixels, settings.request, indices=np.asarray(chunk.numbers))
            new = [list(dict.fromkeys(caption.text for caption in some if caption.text)) for some in written]
        captions = [self._all(record, texts) for record, texts in zip(chunk.records, new, strict=True)]
        scores = self._scores(chunk, captions)
        pairs = zip(chunk.records, captions, scores, strict=True)
        return [self._kept(record, texts, values) for record, texts, values in pairs]

    def _all(self, record: Record, new: list[str]) -> dict[str, tuple[str, ...]]:
        old = dict(record.captions) if self.settings.originals else {}
        if self.settings.request is not None:
            old.pop(self.settings.name, None)  # those of an earlier round
        return old | ({self.settings.name: tuple(new)} if new else {})

    def _scores(self, chunk: _Chunk, captions: list[dict[str, tuple[str, ...]]]) -> list[dict[str, tuple[float, ...]]]:
        """Scores of all captions with their images, by source, as the reranker was trained to compare."""
        if self.reranker is None:
            return [{} for _ in captions]
        flat = [text for some in captions for texts in some.values() for text in texts]
        owner = [image for image, some in enumerate(captions) for texts in some.values() for _ in texts]
        if not flat:
            return [{} for _ in captions]
        image, text = self.reranker.encode_pixels(chunk.reranker_pixels), self.reranker.encode_text(flat)
        scores = iter(pair_scores(self.reranker, image, text, np.asarray(owner)).tolist())
        return [{name: tuple(next(scores) for _ in texts) for name, texts in some.items()} for some in captions]

    def _kept(self, record: Record, captions: dict[str, Any], scores: dict[str, Any]) -> Record:
        """The record with the captions that are good enough, the best of the new ones first."""
        kept: dict[str, tuple[str, ...]] = {}
        values: dict[str, tuple[float, ...]] = {}
        for name, texts in captions.items():
            rows = list(zip(texts, scores.get(name, ()), strict=True)) if scores else [(text, 0.0) for text in texts]
            rows = [(text, score) for text, score in rows if not scores or score >= self.settings.min_score]
            if name == self.settings.name and scores:
                rows = sorted(rows, key=lambda row: -row[1])[: self.settings.keep or None]
            if rows:
                kept[name], values[name] = (tuple(column) for column in zip(*rows, strict=True))
        return replace(record, captions=kept, scores=values if scores else {})
