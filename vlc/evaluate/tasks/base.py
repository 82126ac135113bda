"""What tasks are given and what they return, and the captioned images that several of them read."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlc.data.record import Source
from vlc.data.sources import Annotations, open_source
from vlc.errors import ConfigError, DataError
from vlc.evaluate.pictures import Pictures
from vlc.evaluate.report.page import Report
from vlc.evaluate.tasks.detail import DetailOptions
from vlc.evaluate.tasks.labelled import EVAL_SPLITS
from vlc.evaluate.tasks.scenes import open_test_scenes
from vlc.inference import Model
from vlc.inference.captioning import CaptionRequest
from vlc.inference.closer import Closer
from vlc.storage import local_copy

_SCENES = 512  # drawn where no number is given


@dataclass(frozen=True)
class Options:
    """What is evaluated on what.

    Attributes:
        data: Path by task; under the empty name, that of all tasks that have none of their own.
        images: Where images are, when not with the files that name them.
        split: Of labelled images and captions; by default the one for evaluation.
        classes: A file with names of classes.
        templates: See `read_templates`.
        score: `embed`, `tokens`, `both`, or `auto`: what the model was trained to compare.
        examples: Images (cases) at most, evenly spaced; 0 means all.
        columns: Of captioned data, see `Columns`.
        scales: Guidance scales of the captions.
        request: How captions are decoded, and what else is asked of them.
        scorer: The dual encoder that captions are scored by; `None`: the model itself.
        scorer_name: What it is called in the results.
        references: Caption sources that captions are compared with; empty: all.
        crops: Whether regions are looked at as pictures of their own.
        unique: Whether of several captions of a region the one is taken that fits no other as well.
        closer: How pictures are looked at again; `None`: they are not.
        windows: Of segmentation: the short side of pictures that windows slide over; 0: none do.
        proposals: Of segmentation: a file of masks, see `read_proposals`.
        ensemble: How much a masked crop has to say there, against the proposer.
        bags: A file that `vlc data bags` wrote; empty: bags are mined from the images.
        detail: What is asked of captions in detail.
        compare: Sweeps that were written before, for the picture.
    """

    data: Mapping[str, str]
    images: str = ""
    split: str = ""
    classes: str = ""
    templates: str = "clip"
    score: str = "auto"
    examples: int = 0
    columns: str = ""
    scales: Sequence[float] = (1.0,)
    request: CaptionRequest = field(default_factory=CaptionRequest)
    scorer: Model | None = None
    scorer_name: str = ""
    references: str = ""
    compare: Sequence[str] = ()
    crops: bool = False
    unique: bool = False
    closer: Closer | None = None
    windows: int = 0
    proposals: str = ""
    ensemble: float = 0.7
    bags: str = ""
    detail: DetailOptions = field(default_factory=DetailOptions)

    def path(self, task: str) -> str:
        """Raises `ConfigError` where the task has no data."""
        path = self.data.get(task) or self.data.get("")
        if not path:
            raise ConfigError(f"No data for the task {task}: give --data PATH, or --data {task}=PATH.")
        return path


def evenly_spaced[T](some: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, evenly spaced; 0 means all."""
    count = min(most or len(some), len(some))
    return [some[index * len(some) // count] for index in range(count)]


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file, without empty ones.

    Raises:
        DataError: It cannot be read, or has none.
    """
    try:
        lines = [line.strip() for line in local_copy(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if not lines:
        raise DataError(f"{path}: is empty.")
    return lines


@dataclass
class Outcome:
    """What a task found.

    Attributes:
        figures: For `eval.json`.
        rows: For the table: score by what, its name, its value.
        note: What was measured on what.
        more: Draws what else the report shows.
        text: A table of its own for the terminal.
        files: What is written beside `eval.json`: names and contents.
    """

    figures: dict[str, Any]
    rows: list[tuple[str, str, float]]
    note: str
    more: Callable[[Report], None] = field(default=lambda report: None)
    text: str = ""
    files: Mapping[str, str] = field(default_factory=dict)


def left_out_text(skipped: Mapping[str, int]) -> str:
    return f"; left out: {', '.join(f'{count} {reason}' for reason, count in skipped.items())}" if skipped else ""


def cut_text(model: Model, texts: Sequence[str]) -> tuple[dict[str, int], str]:
    """How many captions are longer than what the model reads, and how many then look like another one; in words."""
    cut = model.cut_texts(texts)
    if not cut.any():
        return {}, ""
    ids = model.token_ids([text for text, long in zip(texts, cut, strict=True) if long])
    same = int(cut.sum()) - len(np.unique(ids, axis=0))
    length = model.config.model.text.length
    words = f"; {cut.sum()} captions are longer than the {length} tokens that the model reads and were cut"
    return {"cut": int(cut.sum()), "cut_to_the_same": same}, words + (f", {same} of them to the same" if same else "")


def open_captioned(model: Model, spec: str, options: Options) -> Source:
    """Captioned images; of an annotation file with splits the test split, and of scenes those of the model's config."""
    if spec == "scenes" and not options.split:
        return open_test_scenes(model, options.examples or _SCENES)
    columns = f"root={options.images}" if options.images else ""
    source = open_source(spec, columns=",".join(filter(None, (options.columns, columns))))
    if isinstance(source, Annotations) and "#" not in spec:
        split = options.split or next((name for name in ("test", *EVAL_SPLITS) if name in source.splits), "")
        return source.part(split) if split else source
    if options.split:
        raise ConfigError(f"--split {options.split}: the split of {spec} is written PATH#SPLIT, where it has several.")
    return source


@dataclass(frozen=True)
class Captioned:
    """Some records of captioned data, evenly spaced.

    Attributes:
        source: All of the data.
        records: Place, key and captions of those that can be read.
        pictures: Their images, in the same order.
        unread: How many cannot be read, by reason.
    """

    source: Source
    records: list[tuple[int, str, tuple[str, ...]]]
    pictures: Pictures
    unread: dict[str, int]


def read_captioned(model: Model, spec: str, options: Options) -> Captioned:
    """The captioned images that the options ask for; see `read_captions` for its error."""
    source = open_captioned(model, spec, options)
    count = min(options.examples or len(source), len(source))
    records, version, unread = read_captions(source, [index * len(source) // count for index in range(count)])
    places = [place for place, _, _ in records]
    pictures = Pictures([key for _, key, _ in records], lambda index: source[places[index]].image, version)
    return Captioned(source, records, pictures, unread)


def read_captions(
    source: Source, places: Sequence[int]
) -> tuple[list[tuple[int, str, tuple[str, ...]]], str, dict[str, int]]:
    """Place, key and captions of the records that can be read, a checksum of their images, and why others cannot.

    The images are read for it, wherever they lie: another image of the same name has an embedding of its own.

    Raises:
        DataError: None can be read; the first says why.
    """
    found, version, reasons, first = [], hashlib.sha256(), Counter(), ""
    for place in places:
        try:
            record = source[place]
        except DataError as error:
            reasons[error.reason] += 1
            first = first or str(error)
            continue
        found.append((place, record.key, record.all_captions()))
        pixels = record.image if isinstance(record.image, bytes) else record.image.tobytes()
        version.update(hashlib.sha256(pixels).digest())
    if not found:
        raise DataError(f"No record can be read. The first says: {first or 'there is none'}")
    return found, version.hexdigest(), dict(reasons)
