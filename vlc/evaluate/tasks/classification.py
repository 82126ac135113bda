"""Zero-shot classification of labelled images, by an ensemble of prompts."""

from collections.abc import Sequence
from typing import Any

from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.retrieval import cosines
from vlc.evaluate.metrics.zero_shot import (
    accuracy,
    by_class,
    class_embeddings,
    fill_templates,
    token_class_scores,
    without_later_twins,
)
from vlc.evaluate.report.page import Report
from vlc.evaluate.tasks.base import Options, Outcome, left_out_text
from vlc.evaluate.tasks.labelled import open_labelled
from vlc.evaluate.tasks.templates import read_templates

_WORST = 20  # classes that the report lists


def run_classification(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
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
        scores = without_later_twins(scores, labels, data.classes)
        found = accuracy(scores, labels)
        classes = by_class(scores, labels, data.classes)
        figures[how] = found | {"by_class": classes}
        rows += [(how, figure, value) for figure, value in found.items()]
        worst = worst or sorted(classes, key=lambda row: row["top1"])[:_WORST]
    note = f"{len(labels)} images of {len(data.classes)} classes, {len(templates)} templates"
    note += f"{left_out_text(image.skipped)}."
    if twins := sorted({name for name in data.classes if list(data.classes).count(name) > 1}):
        figures["classes_of_one_name"] = twins
        note += f" Of classes of one name ({', '.join(twins[:5])}) the first is taken, as open_clip does."

    def draw(report: Report) -> None:
        report.table(
            f"{task}: the hardest classes",
            "Accuracy, images, and what they are most often taken for.",
            ["class", "top-1", "images", "taken for"],
            [[row["class"], row["top1"], row["images"], row["taken_for"]] for row in worst],
        )

    return Outcome(figures, rows, note, draw)
