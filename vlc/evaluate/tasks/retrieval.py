"""Image-text retrieval on captioned images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlc.data.record import add_counts
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.retrieval import stored_recalls
from vlc.evaluate.tasks.base import Options, Outcome, cut_text, left_out_text, read_captioned


def run_retrieval(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    spec = options.path(task)
    data = read_captioned(cache.model, spec, options)
    tokens = "tokens" in by
    image = cache.images(data.pictures, tokens=tokens)
    texts = [data.records[place][2] for place in image.kept]
    text = cache.texts([caption for captions in texts for caption in captions], tokens=tokens)
    owner = np.repeat(np.arange(len(texts)), [len(captions) for captions in texts])
    skipped = add_counts(data.source.skipped, image.skipped, data.unread)
    cut, cut_words = cut_text(cache.model, [caption for captions in texts for caption in captions])
    figures: dict[str, Any] = {"images": len(texts), "texts": len(owner), "skipped": skipped} | cut
    rows = []
    for how in by:
        figures[how] = stored_recalls(image, text, owner, how, one_way=cache.model.one_way)
        rows += [(how, figure, value) for figure, value in figures[how].items()]
    note = (
        f"{len(owner)} captions of {len(texts)} images; t2i: a caption finds its image, i2t: an image finds any of its "
        f"captions{left_out_text(skipped)}{cut_words}."
    )
    return Outcome(figures, rows, note)
