"""Is a caption preferred to what rules make wrong of it? On any captioned images, the data's own wrong texts included.

As SugarCrepe asks (Hsieh et al., NeurIPS 2023, arXiv 2306.14610), with the rules of `vlc.curate.edits` in place of a
language model: so it can be asked of one's own data. Ties are wrong; chance is 50%.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlc.curate.edits import Reader, edits_of, find_reader
from vlc.data.record import Record, add_counts
from vlc.errors import DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.metrics.stored_scores import StoredScores
from vlc.evaluate.tasks.base import Options, Outcome, left_out_text, read_captioned

_EACH = 3  # wrong texts of a caption
_OWN = "of the data"


def run_wrong_texts(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    spec = options.path(task)
    data = read_captioned(cache.model, spec, options)
    reader = find_reader()
    tokens = "tokens" in by
    image = cache.images(data.pictures, tokens=tokens)
    kept = [_questions(data.source[data.records[number][0]], reader) for number in image.kept]
    texts = list(dict.fromkeys(text for questions in kept for right, wrong, _ in questions for text in (right, wrong)))
    if not texts:
        raise DataError(f"{spec}: no wrong text could be made of its captions, which were read by {reader.name}.")
    text = cache.texts(texts, tokens=tokens)
    column = {name: number for number, name in enumerate(texts)}
    skipped = add_counts(data.source.skipped, image.skipped, data.unread)
    figures: dict[str, Any] = {"images": len(kept), "reader": reader.name, "skipped": skipped}
    rows = []
    for how in by:
        figures[how] = _preferred(StoredScores(image, text, how, one_way=cache.model.one_way), kept, column)
        rows += [(how, name, found["preferred"]) for name, found in figures[how].items()]
        low, high = figures[how]["all"]["interval"]
        rows += [(how, "all, 95% from", low), (how, "all, 95% to", high)]
    note = (
        f"{sum(map(len, kept))} pairs of a caption and a wrong text of {len(kept)} images; how often the image prefers "
        f"the caption, by rule; chance is 50%. Captions were read by {reader.name}{left_out_text(skipped)}."
    )
    return Outcome(figures, rows, note)


def _questions(record: Record, reader: Reader) -> list[tuple[str, str, str]]:
    """Caption, wrong text, and the rule that made it."""
    own = [(right, wrong) for right, texts in record.negatives.items() for wrong in dict.fromkeys(texts)]
    made = edits_of(record, reader, _EACH, ())
    return [(right, wrong, _OWN) for right, wrong in own] + [
        (right, edit.text, edit.kind)
        for right, edits in made.items()
        for edit in edits
        if (right, edit.text) not in own
    ]


def _preferred(scores: StoredScores, asked: Sequence[Sequence[tuple[str, str, str]]], column: dict[str, int]) -> dict:
    """By rule and for all: how often the caption is preferred, its interval over images, and how many pairs."""
    won: list[dict[str, list[bool]]] = []
    for row, questions in enumerate(asked):
        by_rule: dict[str, list[bool]] = {}
        for right, wrong, rule in questions:
            i2t, _ = scores([row], [column[right], column[wrong]])
            by_rule.setdefault(rule, []).append(bool(i2t[0, 0] > i2t[0, 1]))
        won.append(by_rule)
    names = sorted({name for by_rule in won for name in by_rule})
    return {name: _share([by_rule.get(name, []) for by_rule in won]) for name in names} | {
        "all": _share([[one for answers in by_rule.values() for one in answers] for by_rule in won])
    }


def _share(won: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """Of all answers, with an interval over the images, whose answers belong together."""
    right, asked = (np.array([part(answers) for answers in won], np.float64) for part in (sum, len))
    share = Figure(float(right.sum() / asked.sum()), lambda rows: float(right[rows].sum() / max(1, asked[rows].sum())))
    return {"preferred": share.value, "interval": interval(share, len(won)), "pairs": int(asked.sum())}
