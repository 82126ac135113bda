"""`vlc eval MODEL --task ...`: the field's evaluations of a dual encoder, over embeddings that are computed once."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vlc.data.record import Source, add_counts
from vlc.data.sources import Annotations, open_source
from vlc.errors import ConfigError, DataError, did_you_mean
from vlc.evaluate.captioning import as_text, at_scales, judge_captions, read_curve, references_of, write_all
from vlc.evaluate.captioning import draw as draw_captions
from vlc.evaluate.compositionality import SUITES, compositionality, read_cases
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.figures import thumbnail
from vlc.evaluate.labelled import EVAL_SPLITS, has_split, open_labelled
from vlc.evaluate.pictures import Pictures
from vlc.evaluate.probes import knn_scores, linear_scores
from vlc.evaluate.report import Report
from vlc.evaluate.retrieval import cosines, stored_recalls
from vlc.evaluate.run import write_results
from vlc.evaluate.scenes_suite import open_test_scenes
from vlc.evaluate.segmentation import open_masked, segmentation
from vlc.evaluate.templates import read_templates
from vlc.evaluate.zero_shot import accuracy, by_class, class_embeddings, fill_templates, token_class_scores
from vlc.inference import Model
from vlc.inference.captioning import Asked
from vlc.parallel import check_shared

SCORES = ("auto", "embed", "tokens", "both")
_SCENES = 512  # that are drawn where no number is given
_WORST = 20  # classes that the report lists


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
        examples: Images (cases) at the most, evenly spaced; 0: all.
        columns: Of captioned data, see `Columns`.
        scales: Guidance scales of the captions.
        asked: How they are searched for, and what else is asked of them.
        judge: The dual encoder that captions are judged by; `None`: the model itself.
        judge_name: What it is called in the results.
        references: Caption sources that captions are compared with; empty: all.
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
    asked: Asked = field(default_factory=Asked)
    judge: Model | None = None
    judge_name: str = ""
    references: str = ""
    compare: Sequence[str] = ()

    def path(self, task: str) -> str:
        """Raises `ConfigError` where the task has no data."""
        path = self.data.get(task) or self.data.get("")
        if not path:
            raise ConfigError(f"No data for the task {task}: give --data PATH, or --data {task}=PATH.")
        return path


@dataclass
class Outcome:
    """What a task found.

    Attributes:
        figures: For `eval.json`.
        rows: For the table: score by what, its name, its value.
        note: What was measured on what.
        more: Draws what else the report shows.
        text: A table of its own for the terminal.
    """

    figures: dict[str, Any]
    rows: list[tuple[str, str, float]]
    note: str
    more: Callable[[Report], None] = field(default=lambda report: None)
    text: str = ""


def evaluate_tasks(
    model: Model, tasks: Sequence[str], options: Options, out: Path, *, cache: Path, name: str, quiet: bool = False
) -> dict[str, Any]:
    """Runs tasks, and writes `eval.json` and `report.html`. Several processes share the images, texts and captions.

    Args:
        model: The model.
        tasks: Names of `TASKS`.
        options: Their data, and how they are scored.
        out: The folder for the results.
        cache: The folder in which embeddings are kept; where there are several processes, they share it.
        name: What the model is called in the report.
        quiet: No progress bars.

    Returns:
        What `eval.json` holds.

    Raises:
        ConfigError: A task is not known, or has no data, or the processes do not share the cache.
        DataError: Its data is missing or damaged.
    """
    for task in tasks:
        if task not in TASKS:
            raise ConfigError(f'--task "{task}" is not known.{did_you_mean(task, TASKS)}')
        options.path(task)
    by = compared(model, options.score)
    check_shared(cache, "--cache")
    kept = Cache(cache, model, quiet=quiet)
    results: dict[str, Any] = {"model": name, "step": model.step, "tasks": {}}
    report = Report("vlc evaluation", name)
    table: list[list[Any]] = []
    parts = []
    for task in tasks:
        started = time.perf_counter()
        outcome = TASKS[task](kept, options, task, by)
        seconds = round(time.perf_counter() - started, 1)
        results["tasks"][task] = outcome.figures | {"data": options.path(task), "seconds": seconds}
        table += [[task, *row] for row in outcome.rows]
        parts.append((task, outcome))
        report.tile(f"{100 * outcome.rows[0][2]:.1f}%", f"{task}: {outcome.rows[0][1]}")
    report.table(
        "All tasks", "Ties count as wrong everywhere.", ["task", "scored by", "figure", "value"],
        [[task, how, figure, float(value)] for task, how, figure, value in table],
    )  # fmt: skip
    for task, outcome in parts:
        report.text(task, outcome.note)
        outcome.more(report)
    write_results(out, results, report)
    results["table"] = table
    results["texts"] = [outcome.text for _, outcome in parts if outcome.text]
    return results


def compared(model: Model, score: str) -> tuple[str, ...]:
    """What is compared: `embed`, `tokens`, or both.

    Raises:
        ConfigError: The name is not known.
    """
    if score not in SCORES:
        raise ConfigError(f'--score is "{score}".{did_you_mean(score, SCORES)}')
    if score == "both":
        return ("embed", "tokens")
    if score != "auto":
        return (score,)
    return model.compares or ("embed",)


# -- the tasks


def _classification(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    data = open_labelled(options.path(task), split=options.split, names=options.classes, examples=options.examples)
    templates = read_templates(options.templates)
    image = cache.images(data.pictures, tokens="tokens" in by)
    labels = data.labels[image.kept]
    figures: dict[str, Any] = {"images": len(labels), "skipped": image.skipped, "classes": len(data.classes)}
    figures["templates"] = len(templates)
    rows, worst = [], []
    for how in by:
        if how == "tokens":
            scores = token_class_scores(cache.model, image.token_blocks, data.classes, templates)
        else:
            prompts = cache.texts(fill_templates(data.classes, templates)).embed
            scores = cosines(image.embed, class_embeddings(prompts, len(data.classes)))
        found = accuracy(scores, labels)
        classes = by_class(scores, labels, data.classes)
        figures[how] = found | {"by_class": classes}
        rows += [(how, figure, value) for figure, value in found.items()]
        worst = worst or sorted(classes, key=lambda row: row["top1"])[:_WORST]
    note = f"{len(labels)} images of {len(data.classes)} classes, {len(templates)} templates{_left_out(image.skipped)}."

    def draw(report: Report) -> None:
        report.table(
            f"{task}: the hardest classes", "Accuracy, images, and what they are most often taken for.",
            ["class", "top-1", "images", "taken for"],
            [[row["class"], row["top1"], row["images"], row["taken_for"]] for row in worst],
        )  # fmt: skip

    return Outcome(figures, rows, note, draw)


def _left_out(skipped: Mapping[str, int]) -> str:
    return f"; left out: {', '.join(f'{count} {reason}' for reason, count in skipped.items())}" if skipped else ""


def _retrieval(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    spec = options.path(task)
    source = _captioned(cache.model, spec, options)
    count = min(options.examples or len(source), len(source))
    records, version = _captions(source, [index * len(source) // count for index in range(count)])
    places = [place for place, _, _ in records]
    pictures = Pictures([key for _, key, _ in records], lambda index: source[places[index]].image, version)
    tokens = "tokens" in by
    image = cache.images(pictures, tokens=tokens)
    texts = [records[place][2] for place in image.kept]
    text = cache.texts([caption for captions in texts for caption in captions], tokens=tokens)
    owner = np.repeat(np.arange(len(texts)), [len(captions) for captions in texts])
    skipped = add_counts(image.skipped, {"captions": count - len(records)} if count > len(records) else {})
    figures: dict[str, Any] = {"images": len(texts), "texts": len(owner), "skipped": skipped}
    rows = []
    for how in by:
        figures[how] = stored_recalls(image, text, owner, how)
        rows += [(how, figure, value) for figure, value in figures[how].items()]
    note = (
        f"{len(owner)} captions of {len(texts)} images; t2i: a caption finds its image, i2t: an image finds any of its "
        f"captions{_left_out(skipped)}."
    )
    return Outcome(figures, rows, note)


def _captioned(model: Model, spec: str, options: Options) -> Source:
    """Captioned images; of an annotation file with splits the test split, and of scenes those of the model's config."""
    if spec == "scenes" and not options.split:
        return open_test_scenes(model, options.examples or _SCENES)
    columns = f"root={options.images}" if options.images else ""
    source = open_source(spec, columns=",".join(filter(None, (options.columns, columns))))
    if isinstance(source, Annotations) and "#" not in spec:
        wanted = options.split or next((name for name in ("test", *EVAL_SPLITS) if name in source.splits), "")
        return source.part(wanted) if wanted else source
    if options.split:
        raise ConfigError(f"--split {options.split}: the split of {spec} is written PATH#SPLIT, where it has several.")
    return source


def _captions(source: Source, places: Sequence[int]) -> tuple[list[tuple[int, str, tuple[str, ...]]], str]:
    """Place, key and captions of the records that can be read, and a checksum of their images.

    The images are read for it, wherever they lie: another image of the same name has an embedding of its own.
    """
    found, version = [], hashlib.sha256()
    for place in places:
        try:
            record = source[place]
        except DataError:
            continue
        found.append((place, record.key, record.all_captions()))
        version.update(hashlib.sha256(record.image).digest())
    if not found:
        raise DataError("No record can be read.")
    return found, version.hexdigest()


def _compositionality(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    cases = read_cases(task, options.path(task), options.images)
    if 0 < options.examples < len(cases):
        cases = [cases[index * len(cases) // options.examples] for index in range(options.examples)]
    figures = compositionality(cache, cases, by)
    rows = []
    for how in by:
        groups = figures[how]
        for group in ["all", *(name for name in groups if name != "all")] if "all" in groups else groups:
            names = [name for name in ("text", "image", "group") if name in groups[group]]
            rows += [(how, name if group == "all" else f"{group} {name}", groups[group][name]) for name in names]
    note = f"{figures['cases']} cases. text: an image prefers its caption; image: a caption its image; group: both."
    return Outcome(figures, rows, note)


def _segmentation(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # patches are tokens
    data = open_masked(options.path(task), names=options.classes, examples=options.examples)
    figures = segmentation(cache, data, read_templates(options.templates))
    rows = [("tokens", name, figures[name]) for name in ("miou", "pixel_accuracy")]

    def draw(report: Report) -> None:
        report.table(
            f"{task}: intersection over union by class", "Of the classes that occur.", ["class", "IoU"],
            sorted(([name, value] for name, value in figures["iou"].items()), key=lambda row: row[1]),
        )  # fmt: skip

    return Outcome(figures, rows, f"{figures['images']} images, {len(data.classes)} classes.", draw)


def _probe(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    """Features are the embeddings of images, of unit length."""
    del by
    spec = options.path(task)
    if not has_split(spec, "train"):
        raise DataError(f"{spec}: a probe is trained on a folder `train` and tested on `val` or `test`.")
    train, test = (
        open_labelled(spec, split=split, names=options.classes, examples=options.examples)
        for split in ("train", options.split or next((s for s in EVAL_SPLITS if has_split(spec, s)), "test"))
    )
    if list(train.classes) != list(test.classes):
        raise DataError(f"{spec}: train has {len(train.classes)} classes and the test images have others.")
    known, asked = cache.images(train.pictures), cache.images(test.pictures)
    labels, truth = train.labels[known.kept], test.labels[asked.kept]
    figures: dict[str, Any] = {"train_images": len(labels), "images": len(truth)}
    if task == "knn":
        scores = knn_scores(known.embed, labels, asked.embed, len(train.classes))
    else:
        scores, figures["penalty"] = linear_scores(known.embed, labels, asked.embed, len(train.classes))
    found = accuracy(scores, truth)
    figures |= found | {"skipped": add_counts(known.skipped, asked.skipped)}
    note = f"Trained on {len(labels)} images, tested on {len(truth)}{_left_out(figures['skipped'])}."
    return Outcome(figures, [("embed", name, value) for name, value in found.items()], note)


def _caption(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # captions are judged by embeddings
    model, spec = cache.model, options.path(task)
    judge = options.judge or model
    if options.judge is None and not model.compares:
        raise ConfigError(
            "This model was not trained to compare images with texts, so it cannot judge captions: name a dual encoder "
            "with --judge MODEL."
        )
    name = options.judge_name or "the captioner's own encoder"
    earlier = {path: read_curve(path) for path in options.compare}
    source = _captioned(cache.model, spec, options)
    count = min(options.examples or len(source), len(source))
    records, version = _captions(source, [index * len(source) // count for index in range(count)])
    places, keys = [place for place, _, _ in records], [key for _, key, _ in records]
    judging = Cache(cache.folder, judge, quiet=cache.quiet)
    image = judging.images(Pictures(keys, lambda index: source[places[index]].image, version))
    places = [places[i] for i in image.kept]
    references = [references_of(source[place], options.references) for place in places]

    def pixels(numbers: Sequence[int]) -> np.ndarray:
        return np.stack([model.preprocess(source[places[i]].image, where=keys[image.kept[i]]) for i in numbers])

    written = write_all(model, pixels, len(places), at_scales(options.asked, options.scales))
    rows = [
        judge_captions(scale, captions, references, image, lambda texts: judge.encode_text(texts).embed)
        for scale, captions in zip(options.scales, written, strict=True)
    ]
    skipped = add_counts(image.skipped, {"captions": count - len(records)} if count > len(records) else {})
    found = {
        "images": len(places), "references": sum(map(len, references)), "skipped": skipped, "judge": name,
        "notes": rows[0].notes, "scales": [row.to_json() for row in rows],
        "captions": {keys[i]: [row.captions[n] for row in rows] for n, i in enumerate(image.kept.tolist())},
    }  # fmt: skip
    curves = {"this model": found["scales"]} | earlier

    def thumbnails(numbers: Sequence[int]) -> list[bytes]:
        return [thumbnail(picture) for picture in pixels(numbers)]

    return Outcome(
        found, [(f"scale {row.scale:g}", "R@1, caption to image", row.found["r1"]["value"]) for row in rows],
        f"{len(places)} images, {found['references']} references; judged by {name}{_left_out(skipped)}.",
        lambda report: draw_captions(report, task, rows, name, curves, thumbnails),
        as_text(rows) + "".join(f"\n{note}" for note in [f"judged by {name}", *rows[0].notes.values()]),
    )  # fmt: skip


TASKS: dict[str, Callable[[Cache, Options, str, Sequence[str]], Outcome]] = {
    "classification": _classification,
    "retrieval": _retrieval,
    **dict.fromkeys(SUITES, _compositionality),
    "segmentation": _segmentation,
    "linear": _probe,
    "knn": _probe,
    "caption": _caption,
}


def as_table(results: Mapping[str, Any]) -> str:
    """The figures, for the terminal."""
    rows = [("task", "scored by", "figure", "value")]
    rows += [(task, how, figure, f"{100 * value:6.2f}%") for task, how, figure, value in results["table"]]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
