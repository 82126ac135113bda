"""`vlc eval --task caption`: captions at one or several guidance scales, judged with and without references."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlc.data.captions import matching
from vlc.data.record import Record
from vlc.errors import ConfigError, DataError
from vlc.evaluate import figures
from vlc.evaluate.embeddings import Embedded
from vlc.evaluate.free_metrics import clip_figures, language_figures
from vlc.evaluate.intervals import Figure, interval
from vlc.evaluate.ptb import tokenize
from vlc.evaluate.reference_metrics import reference_figures
from vlc.evaluate.report import Report
from vlc.inference import Model
from vlc.inference.captioning import Asked, write_captions
from vlc.parallel import shared_out

# Figure, its heading in the table, and how it is written; the order is that of Kornblith et al., table 1.
COLUMNS = (
    ("bleu4", "B4", 100), ("meteor", "METEOR", 100), ("rouge_l", "ROUGE", 100), ("cider", "CIDEr", 100),
    ("spice", "SPICE", 100), ("ref_only", "RefOnly", 1), ("clip_s", "CLIP-S", 1), ("r1", "R@1", 100),
    ("r5", "R@5", 100), ("r10", "R@10", 100), ("ref_clip_s", "RefCLIP-S", 1), ("words", "words", 0),
    ("vocabulary", "vocabulary", 0), ("distinct2", "distinct-2", 100), ("different", "different", 100),
)  # fmt: skip
_SHOWN = 12


@dataclass(frozen=True)
class Judged:
    """Captions at one scale.

    Attributes:
        scale: Of guidance.
        captions: One of each image.
        found: Value and interval of each figure.
        notes: Why figures are missing, and by what words were cut.
    """

    scale: float
    captions: list[str]
    found: dict[str, dict[str, Any]]
    notes: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {"guidance_scale": self.scale, **self.found}


def references_of(record: Record, wanted: str) -> tuple[str, ...]:
    """The captions of a record that others are compared with.

    Args:
        record: Of captioned data.
        wanted: Caption sources with commas, names may end in `*`; empty: all.

    Raises:
        DataError: It has none of these sources.
    """
    if not wanted:
        return record.all_captions()
    names = [name for part in wanted.split(",") for name in matching(record.captions, part.strip())]
    if not names:
        raise DataError(f'{record.key}: --references "{wanted}", but its captions are {", ".join(record.captions)}.')
    return tuple(text for name in dict.fromkeys(names) for text in record.captions[name])


def write_all(
    model: Model, pixels: Callable[[Sequence[int]], np.ndarray], images: int, asks: Sequence[Asked], part: int = 256
) -> list[list[str]]:
    """The best caption of each image for each of several wishes; an image is encoded once, by one of the processes.

    Args:
        model: With a captioner.
        pixels: Gives those of some images, by number.
        images: How many there are.
        asks: What is wanted.
        part: Images at a time.
    """

    def write(numbers: Sequence[int]) -> list[list[str]]:
        encoded = model.encode_pixels(pixels(numbers))
        columns = [write_captions(model, encoded, asked, indices=np.asarray(numbers)) for asked in asks]
        return [[some[0].text for some in row] for row in zip(*columns, strict=True)]

    return [list(column) for column in zip(*shared_out(images, write, most=part), strict=True)]


def judge_captions(
    scale: float, captions: list[str], references: Sequence[Sequence[str]], image: Embedded,
    embed: Callable[[Sequence[str]], np.ndarray],
) -> Judged:  # fmt: skip
    """All figures of some captions, each with its interval."""
    found, notes = reference_figures(captions, references)
    words = [text.split() for text in tokenize(captions)[0]]
    found |= clip_figures(image.embed, captions, references, embed) | language_figures(words)
    return Judged(scale, captions, {name: _with_interval(f, len(captions)) for name, f in found.items()}, notes)


def _with_interval(figure: Figure, images: int) -> dict[str, Any]:
    bounds = interval(figure, images)
    return {"value": figure.value} | ({"interval": list(bounds)} if bounds else {})


def table(rows: Sequence[Judged], *, intervals: bool = False) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, a row a scale."""
    columns = [column for column in COLUMNS if column[0] in rows[0].found]
    cells = [
        [f"{row.scale:g}", *(_cell(row.found[name], unit, intervals) for name, _, unit in columns)] for row in rows
    ]
    return ["g", *(heading for _, heading, _ in columns)], cells


def _cell(found: Mapping[str, Any], unit: int, intervals: bool) -> str:
    def write(value: float) -> str:
        return f"{value:.3f}" if unit == 1 else f"{unit * value:.1f}" if unit else f"{value:.4g}"

    bounds = found.get("interval") if intervals else None
    return write(found["value"]) + (f" [{write(bounds[0])}, {write(bounds[1])}]" if bounds else "")


def as_text(rows: Sequence[Judged]) -> str:
    """The table for the terminal."""
    headings, cells = table(rows)
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [headings, *cells]
    )


def read_curve(path: str) -> list[dict[str, Any]]:
    """The figures of a sweep that was written before, for the picture.

    Raises:
        ConfigError: There is none.
    """
    file = Path(path) / "eval.json" if Path(path).is_dir() else Path(path)
    try:
        return json.loads(file.read_text())["tasks"]["caption"]["scales"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--compare {path}: no sweep there ({error}). It is an eval.json of `vlc eval --task caption`."
        ) from error


def draw(
    report: Report, task: str, rows: Sequence[Judged], judge: str, curves: Mapping[str, Sequence[Mapping[str, Any]]],
    thumbnails: Callable[[Sequence[int]], list[bytes]],
) -> None:  # fmt: skip
    """Table, picture and samples of a sweep."""
    headings, cells = table(rows)
    notes = dict(rows[0].notes)
    words = notes.pop("words")
    report.table(
        f"{task}: by guidance scale",
        f"CLIP-S, RefOnly, RefCLIP-S and R@k by {judge}; they are no figures of OpenAI's ViT-B/32 unless that is what "
        f"it is. R@k: a caption finds its image among all {len(rows[0].captions)}. Words by {words}. "
        f"{' '.join(notes.values())}",
        headings, cells,
    )  # fmt: skip
    report.table(
        f"{task}: with intervals", "In brackets 95% bootstrap intervals over images, where a figure has one.",
        *table(rows, intervals=True),
    )  # fmt: skip
    if len(rows) > 1 or len(curves) > 1:
        report.figure(
            f"{task}: what the references say against what the image says",
            "Each point is a guidance scale. Up and to the right is better in both.",
            figures.pareto(curves),
        )
    chosen = np.linspace(0, len(rows[0].captions) - 1, min(_SHOWN, len(rows[0].captions))).astype(int).tolist()
    samples = zip(thumbnails(chosen), ([row.captions[i] for row in rows] for i in chosen), strict=True)
    report.captions(f"{task}: samples", "Evenly spaced images, none of them chosen.",
                    [f"scale {row.scale:g}" for row in rows], list(samples))  # fmt: skip


def at_scales(asked: Asked, scales: Sequence[float]) -> list[Asked]:
    """The same wish at several guidance scales."""
    return [replace(asked, guidance_scale=scale) for scale in scales]
