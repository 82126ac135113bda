"""Captions at several guidance scales: how specific, how true, how close to the references, how well they retrieve."""

from collections.abc import Sequence

import numpy as np

from vlc.data.record import Record
from vlc.data.sources.scenes.facts import caption_facts
from vlc.evaluate.metrics.ranking import ranks, recall
from vlc.inference import Model
from vlc.inference.comparison import all_scores
from vlc.parallel import map_over_processes

SCALES = (1.0, 1.5, 2.0, 3.0)


def guidance_sweep(
    model: Model, records: Sequence[Record], reference_source: str, scales: Sequence[float] = SCALES
) -> list[dict]:
    """Captions every image at every scale; several processes share the images.

    Args:
        model: With a captioner.
        records: Images; those of scenes carry the truth that facts are checked against.
        reference_source: The caption source to compare with.
        scales: Guidance scales.

    Returns:
        For each scale: `scale`, `captions`, `words` (mean), `distinct` (share of different captions), `reference_f1`
        (mean best word F1 with a reference), `reference_exact`, caption-to-image recall by what the model was trained
        to compare, if anything (`self_r1`, ...), and on scenes the means of `caption_facts`; `attributes` and `correct`
        over the captions that mention an object, `None` where none does.
    """
    images = [record.image for record in records]
    image = model.encode_image(images)
    references = [record.captions.get(reference_source) or record.all_captions() for record in records]
    rows = []
    for scale in scales:
        captions = map_over_processes(
            len(images), lambda some, scale=scale: model.caption([images[i] for i in some], guidance_scale=scale)
        )
        text = model.encode_text(captions)
        belongs = np.eye(len(records), dtype=bool)
        overlap = [max(word_f1(c, r) for r in refs) for c, refs in zip(captions, references, strict=True)]
        row = {
            "scale": float(scale),
            "captions": captions,
            "words": float(np.mean([len(c.split()) for c in captions])),
            "distinct": len(set(captions)) / len(captions),
            "reference_f1": float(np.mean(overlap)),
            "reference_exact": float(np.mean([o == 1.0 for o in overlap])),
            **(recall(ranks(all_scores(model, image, text)[1].T, belongs), "self") if model.compares else {}),
        }
        if all("scene" in record.extra for record in records):
            facts = [caption_facts(r.extra["scene"], c) for r, c in zip(records, captions, strict=True)]
            telling = [f for f in facts if f["mentions"]]
            for name in facts[0]:
                of = telling if name in ("attributes", "correct") else facts  # a share of nothing is no share
                row[name] = float(np.mean([f[name] for f in of])) if of else None
        rows.append(row)
    return rows


def word_f1(caption: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words, as bags."""
    a, b = (text.lower().replace(".", " ").replace(",", " ").split() for text in (caption, reference))
    shared = sum(min(a.count(word), b.count(word)) for word in set(a))
    return 2 * shared / (len(a) + len(b)) if a or b else 1.0
