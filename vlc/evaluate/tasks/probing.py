"""Probes of frozen image embeddings: `linear` and `knn`."""

from collections.abc import Sequence
from typing import Any

from vlc.data.record import add_counts
from vlc.errors import DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.probes import knn_scores, linear_scores
from vlc.evaluate.metrics.zero_shot import accuracy
from vlc.evaluate.tasks.base import Options, Outcome, left_out_text
from vlc.evaluate.tasks.labelled import EVAL_SPLITS, has_split, open_labelled


def run_probe(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    """Features are the embeddings of images, of unit length; of a model whose embeddings no loss ever saw (a captioner
    alone, FILIP alone) the mean features of the image tower."""
    of_tower = bool(cache.model.config.model.text.layers) and "embed" not in cache.model.compares
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
    known, request = (cache.images(part.pictures, features=of_tower) for part in (train, test))
    labels, truth = train.labels[known.kept], test.labels[request.kept]
    figures: dict[str, Any] = {"train_images": len(labels), "images": len(truth)}
    figures["features"] = "mean of the image tower" if of_tower else "embeddings"
    if task == "knn":
        scores = knn_scores(known.embed, labels, request.embed, len(train.classes))
    else:
        scores, figures["penalty"] = linear_scores(known.embed, labels, request.embed, len(train.classes))
    found = accuracy(scores, truth)
    figures |= found | {"skipped": add_counts(known.skipped, request.skipped)}
    note = f"Trained on {len(labels)} images, tested on {len(truth)}{left_out_text(figures['skipped'])}."
    return Outcome(figures, [("features" if of_tower else "embed", name, value) for name, value in found.items()], note)
