"""`vlc eval --task caption`: captions at one or several guidance scales, scored with and without references."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vlc.data.captions import of_sources
from vlc.data.record import Record, add_counts
from vlc.errors import ConfigError, DataError
from vlc.evaluate.embeddings import Cache, Embedded
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.metrics.ptb import tokenize
from vlc.evaluate.metrics.reference_based import reference_figures
from vlc.evaluate.metrics.reference_free import clip_figures, language_figures
from vlc.evaluate.pictures import Pictures
from vlc.evaluate.report import figures
from vlc.evaluate.report.figures import thumbnail
from vlc.evaluate.report.page import Report
from vlc.evaluate.tasks import detail
from vlc.evaluate.tasks.base import Options, Outcome, left_out_text, open_captioned, read_captions
from vlc.evaluate.tasks.detail import DetailScorer, Known
from vlc.evaluate.tasks.written_words import written_words
from vlc.inference import Model
from vlc.inference.captioning import CaptionRequest, generate_captions
from vlc.parallel import map_over_processes
from vlc.storage import place

# Figure, its heading in the table, and how it is written; the order is that of Kornblith et al., table 1.
COLUMNS = (
    ("bleu4", "B4", 100), ("meteor", "METEOR", 100), ("rouge_l", "ROUGE", 100), ("cider", "CIDEr", 100),
    ("spice", "SPICE", 100), ("ref_only", "RefOnly", 1), ("clip_s", "CLIP-S", 1), ("r1", "R@1", 100),
    ("r5", "R@5", 100), ("r10", "R@10", 100), ("ref_clip_s", "RefCLIP-S", 1), ("words", "words", 0),
    ("vocabulary", "vocabulary", 0), ("distinct2", "distinct-2", 100), ("different", "different", 100),
)  # fmt: skip
_SHOWN = 12
SCORES_FILE = "captions.jsonl"  # every caption with its figures


@dataclass(frozen=True)
class ScoredCaptions:
    """Captions at one scale.

    Attributes:
        scale: Of guidance.
        captions: One of each image.
        found: Value and interval of each figure.
        notes: Why figures are missing, and by what words were cut.
        by_image: Those figures of each caption that are means over captions.
    """

    scale: float
    captions: list[str]
    found: dict[str, dict[str, Any]]
    notes: dict[str, str]
    by_image: dict[str, np.ndarray]

    def to_json(self) -> dict[str, Any]:
        """With no value, rather than NaN, where a figure has none: JSON knows no NaN."""
        known = {name: row | {"value": None} if np.isnan(row["value"]) else row for name, row in self.found.items()}
        return {"guidance_scale": self.scale, **known}


def references_of(record: Record, sources: str) -> tuple[str, ...]:
    """The captions of a record that others are compared with.

    Args:
        record: Of captioned data.
        sources: Caption sources with commas, names may end in `*`; empty means all.

    Raises:
        DataError: It has none of these sources.
    """
    found = of_sources(record.captions, sources)
    if not found:
        raise DataError(f'{record.key}: --references "{sources}", but its captions are {", ".join(record.captions)}.')
    return found


def write_all(
    model: Model,
    pixels: Callable[[Sequence[int]], np.ndarray],
    images: int,
    requests: Sequence[CaptionRequest],
    part: int = 256,
) -> list[list[str]]:
    """The best caption of each image for each of several requests; an image is encoded once, by one of the processes.

    Args:
        model: With a captioner.
        pixels: Gives those of some images, by number.
        images: How many there are.
        requests: What is asked for.
        part: Images at a time.
    """

    def write(numbers: Sequence[int]) -> list[list[str]]:
        encoded = model.encode_pixels(pixels(numbers))
        columns = [generate_captions(model, encoded, request, indices=np.asarray(numbers)) for request in requests]
        return [[some[0].text for some in row] for row in zip(*columns, strict=True)]

    return [list(column) for column in zip(*map_over_processes(images, write, most=part), strict=True)]


def score_captions(
    scale: float, captions: list[str], references: Sequence[Sequence[str]], image: Embedded,
    embed: Callable[[Sequence[str]], np.ndarray], further: DetailScorer,
) -> ScoredCaptions:  # fmt: skip
    """All figures of some captions, each with its interval."""
    found, notes = reference_figures(captions, references)
    words = [text.split() for text in tokenize(captions)[0]]
    found |= clip_figures(image.embed, captions, references, embed) | language_figures(words)
    found |= further.score(captions)
    return ScoredCaptions(
        scale, captions, {name: _with_interval(f, len(captions)) for name, f in found.items()},
        notes | further.notes(), {name: f.by_image for name, f in found.items() if f.by_image is not None},
    )  # fmt: skip


def _with_interval(figure: Figure, images: int) -> dict[str, Any]:
    bounds = interval(figure, images)
    unknown = 0 if figure.by_image is None else int(np.isnan(figure.by_image).sum())
    return (
        {"value": figure.value}
        | ({"interval": list(bounds)} if bounds else {})
        | ({"unknown": unknown} if unknown else {})
    )


def table(
    rows: Sequence[ScoredCaptions], every: Sequence[tuple[str, str, int]] = COLUMNS, *, intervals: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, a row a scale; empty where none of the columns was asked for."""
    columns = [column for column in every if column[0] in rows[0].found]
    if not columns:
        return [], []
    cells = [
        [f"{row.scale:g}", *(_cell(row.found[name], unit, intervals) for name, _, unit in columns)] for row in rows
    ]
    return ["g", *(heading for _, heading, _ in columns)], cells


def _cell(found: Mapping[str, Any], unit: int, intervals: bool) -> str:
    def write(value: float) -> str:
        if np.isnan(value):
            return "-"
        return f"{value:.3f}" if unit == 1 else f"{unit * value:.1f}" if unit else f"{value:.4g}"

    bounds = found.get("interval") if intervals else None
    return write(found["value"]) + (f" [{write(bounds[0])}, {write(bounds[1])}]" if bounds else "")


def as_text(rows: Sequence[ScoredCaptions], columns: Sequence[tuple[str, str, int]] = COLUMNS) -> str:
    """The table for the terminal."""
    headings, cells = table(rows, columns)
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in [headings, *cells]
    )


def read_curve(path: str) -> list[dict[str, Any]]:
    """The figures of a sweep that was written before, for the picture.

    Raises:
        ConfigError: There is none.
    """
    given = place(path)
    file = given / "eval.json" if given.is_dir() else given
    try:
        return json.loads(file.read_text())["tasks"]["caption"]["scales"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--compare {path}: no sweep there ({error}). It is an eval.json of `vlc eval --task caption`."
        ) from error


def draw(
    report: Report,
    task: str,
    rows: Sequence[ScoredCaptions],
    scorer: str,
    curves: Mapping[str, Sequence[Mapping[str, Any]]],
    thumbnails: Callable[[Sequence[int]], list[bytes]],
) -> None:
    """Table, picture and samples of a sweep."""
    headings, cells = table(rows)
    notes = dict(rows[0].notes)
    words = notes.pop("words")
    report.table(
        f"{task}: by guidance scale",
        f"CLIP-S, RefOnly, RefCLIP-S and R@k by {scorer}; they are no figures of OpenAI's ViT-B/32 unless that is what "
        f"it is. R@k: a caption finds its image among all {len(rows[0].captions)}. Words by {words}. "
        f"{' '.join(notes.values())}",
        headings, cells,
    )  # fmt: skip
    report.table(
        f"{task}: with intervals", "In brackets 95% bootstrap intervals over images, where a figure has one.",
        *table(rows, intervals=True),
    )  # fmt: skip
    _draw_detail(report, task, rows)
    if len(rows) > 1 or len(curves) > 1:
        report.figure(
            f"{task}: what the references say against what the image says",
            "Each point is a guidance scale. Up and to the right is better in both.",
            figures.pareto(curves),
        )
    chosen = np.linspace(0, len(rows[0].captions) - 1, min(_SHOWN, len(rows[0].captions))).astype(int).tolist()
    num_return_sequences = zip(thumbnails(chosen), ([row.captions[i] for row in rows] for i in chosen), strict=True)
    report.captions(f"{task}: samples", "Evenly spaced images, none of them chosen.",
                    [f"scale {row.scale:g}" for row in rows], list(num_return_sequences))  # fmt: skip


def _draw_detail(report: Report, task: str, rows: Sequence[ScoredCaptions]) -> None:
    headings, cells = table(rows, detail.COLUMNS, intervals=True)
    if headings:
        said = " ".join(rows[0].notes[name] for name in ("claims", "soft") if name in rows[0].notes)
        report.table(f"{task}: in detail", f"{said} In brackets 95% bootstrap intervals.", headings, cells)


def worst(row: ScoredCaptions, count: int) -> tuple[str, list[int]]:
    """By what captions are sorted, and which are the worst; those that have no value come last."""
    by = next(name for name in ("units_f1", "capture", "cider") if name in row.by_image)
    return by, np.argsort(row.by_image[by], kind="stable")[:count].tolist()


def score_lines(keys: Sequence[str], rows: Sequence[ScoredCaptions]) -> str:
    """A JSON object a line for each caption, with all its figures."""
    lines = [
        {"key": key, "guidance_scale": row.scale, "caption": row.captions[i]}
        | {name: None if np.isnan(values[i]) else round(float(values[i]), 6) for name, values in row.by_image.items()}
        for row in rows
        for i, key in enumerate(keys)
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def at_scales(request: CaptionRequest, scales: Sequence[float]) -> list[CaptionRequest]:
    """The same request at several guidance scales."""
    return [replace(request, guidance_scale=scale) for scale in scales]


def run_captioning(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # captions are scored by embeddings
    model, spec = cache.model, options.path(task)
    scorer = options.scorer or model
    if options.scorer is None and not model.compares:
        raise ConfigError(
            "This model was not trained to compare images with texts, so it cannot score captions: name a dual encoder "
            "with --scorer MODEL."
        )
    if "embed" not in scorer.compares:
        raise ConfigError(
            f"CLIPScore compares embeddings, which no loss of this scorer ever saw: it was trained to compare by "
            f"{' and '.join(scorer.compares) or 'nothing'}. Name another dual encoder with --scorer MODEL."
        )
    name = options.scorer_name or "the captioner's own encoder"
    earlier = {path: read_curve(path) for path in options.compare}
    source = open_captioned(cache.model, spec, options)
    count = min(options.examples or len(source), len(source))
    records, version, unread = read_captions(source, [index * len(source) // count for index in range(count)])
    places, keys = [place for place, _, _ in records], [key for _, key, _ in records]
    scorer_cache = Cache(cache.folder, scorer, quiet=cache.quiet)
    image = scorer_cache.images(Pictures(keys, lambda index: source[places[index]].image, version))
    places = [places[i] for i in image.kept]
    known = [Known.of(record, references_of(record, options.references)) for record in map(source.__getitem__, places)]
    references = [image.references for image in known]
    further = DetailScorer(options.detail, known)

    def pixels(numbers: Sequence[int]) -> np.ndarray:
        return np.stack([model.preprocess(source[places[i]].image, where=keys[image.kept[i]]) for i in numbers])

    written = write_all(model, pixels, len(places), at_scales(options.request, options.scales))
    rows = [
        score_captions(scale, captions, references, image, lambda texts: scorer.encode_text(texts).embed, further)
        for scale, captions in zip(options.scales, written, strict=True)
    ]
    skipped = add_counts(source.skipped, image.skipped, unread)
    found = {
        "images": len(places), "references": sum(map(len, references)), "skipped": skipped, "scorer": name,
        "notes": rows[0].notes, "scales": [row.to_json() for row in rows],
        "captions": {keys[i]: [row.captions[n] for row in rows] for n, i in enumerate(image.kept.tolist())},
    }  # fmt: skip
    curves = {"this model": found["scales"]} | earlier

    def thumbnails(numbers: Sequence[int]) -> list[bytes]:
        return [thumbnail(picture) for picture in pixels(numbers)]

    def draw_all(report: Report) -> None:
        draw(report, task, rows, name, curves, thumbnails)
        by, which = worst(rows[0], _SHOWN)
        report.captions(
            f"{task}: the worst by {by}", f"Of scale {rows[0].scale:g}; all are in {SCORES_FILE}.",
            ["caption", "a reference"],
            list(zip(thumbnails(which), ([rows[0].captions[i], references[i][0]] for i in which), strict=True)),
        )  # fmt: skip
        written_words(report, model, [source[place].image for place in places[:4]])

    return Outcome(
        found, [(f"scale {row.scale:g}", "R@1, caption to image", row.found["r1"]["value"]) for row in rows],
        f"{len(places)} images, {found['references']} references; scored by {name}{left_out_text(skipped)}.",
        draw_all,
        as_text(rows)
        + (f"\n\n{in_detail}" if (in_detail := as_text(rows, detail.COLUMNS)) else "")
        + "".join(f"\n{note}" for note in [f"scored by {name}", *rows[0].notes.values()]),
        {SCORES_FILE: score_lines([keys[i] for i in image.kept.tolist()], rows)},
    )  # fmt: skip
