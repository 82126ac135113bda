"""Where the captioner looks when it writes each word, drawn."""

from collections.abc import Sequence
from itertools import batched
from typing import Any

from vlc.evaluate.report import figures
from vlc.evaluate.report.page import Report
from vlc.inference import Model
from vlc.inference.word_maps import attends_to_patches

_IMAGES = 4  # that are drawn
_WORDS = 9  # in a row of the picture


def written_words(report: Report, model: Model, images: Sequence[Any]) -> None:
    """Draws the words that the captioner writes of the first images; of one that shows no attention nothing."""
    if not attends_to_patches(model):
        return
    rows = []
    for image in images[:_IMAGES]:
        text = model.caption(image)[0]
        words, maps = model.written_maps(image, text) if text else ([], [])
        picture = model.preprocess.picture(model.preprocess(image))
        rows += [{"image": picture, "maps": list(some)} for some in batched(zip(words, maps, strict=True), _WORDS)]
    if rows:
        report.figure(
            "Where the captioner looks",
            "When it writes each word of a caption at scale 1: the mean attention of its heads and layers, brightest "
            "where highest.",
            figures.word_maps(rows),
        )
