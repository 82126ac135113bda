"""`vlc eval --task choices`: a caption among wrong ones, pair by pair, all pairs of a picture, and among all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vlc.data.record import add_counts
from vlc.data.sources import Scenes
from vlc.errors import DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.choices import blind_scores, choice_figures
from vlc.evaluate.metrics.stored_scores import StoredScores
from vlc.evaluate.pictures import Pictures, files_version
from vlc.evaluate.tasks.base import Options, Outcome, evenly_spaced, left_out_text, read_captioned, read_lines
from vlc.storage import place, read_bytes


@dataclass(frozen=True)
class Question:
    """One choice.

    Attributes:
        image: The number of its picture.
        right: The right caption.
        wrong: The wrong ones.
        group: Questions of one group are right together or not at all.
        kind: Of what; figures are told by it.
    """

    image: int
    right: str
    wrong: tuple[str, ...]
    group: str
    kind: str = ""


def read_choices(path: str, images: str = "") -> tuple[Pictures, list[Question]]:
    """A JSON object a line: `image`, `positive`, `negatives`, and where there are such `group` and `kind`.

    Args:
        path: The file.
        images: Where images are; by default beside it.

    Raises:
        DataError: A line lacks something, or has no wrong caption; the message says which.
    """
    folder = place(images) if images else place(path).parent
    files: dict[str, int] = {}
    asked = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            row = json.loads(line)
            image, right, wrong = str(row["image"]), str(row["positive"]), tuple(map(str, row["negatives"]))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f'{path}, line {number}: {{"image": ..., "positive": ..., "negatives": [...]}} is meant ({error!r}).'
            ) from error
        wrong = tuple(dict.fromkeys(text for text in wrong if text != right))
        if not wrong:
            raise DataError(f"{path}, line {number}: a choice needs a wrong caption that differs from the right one.")
        files.setdefault(image, len(files))
        asked.append(Question(files[image], right, wrong, str(row.get("group", image)), str(row.get("kind", ""))))
    paths = [str(folder / name) for name in files]
    versions = " ".join(sorted({files_version(one) for one in paths}))
    return Pictures(paths, lambda index: read_bytes(paths[index]), versions), asked


def run_choices(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    spec = options.path(task)
    pictures, asked, skipped = _of_file(spec, options) if _is_questions(spec) else _of_data(cache, spec, options)
    tokens = "tokens" in by
    image = cache.images(pictures, tokens=tokens)
    row = {number: place for place, number in enumerate(image.kept.tolist())}
    asked = [question for question in asked if question.image in row]
    if not asked:
        raise DataError(f"{spec}: there is no caption with wrong ones of a picture that can be read.")
    texts = list(dict.fromkeys(text for question in asked for text in (question.right, *question.wrong)))
    text = cache.texts(texts, tokens=tokens)
    column = {name: number for number, name in enumerate(texts)}
    skipped = add_counts(skipped, image.skipped)
    figures: dict[str, Any] = {"questions": len(asked), "skipped": skipped}
    rows = []
    for how in by:
        scores = StoredScores(image, text, how, one_way=cache.model.one_way)
        found = [scores([row[q.image]], [column[one] for one in (q.right, *q.wrong)])[0][0] for q in asked]
        figures[how] = _by_kind(asked, found)
        rows += [(how, name, value) for name, value in figures[how]["all"].items() if name != "questions"]
    figures["blind"] = _blind(asked, text.embed if "embed" in cache.model.compares else None, column)
    rows += [(f"no picture, {name}", "n_way", found["n_way"]) for name, found in figures["blind"].items()]
    note = (
        f"{len(asked)} captions with wrong ones of {len({q.group for q in asked})} groups{left_out_text(skipped)}. "
        "multiple_binary: all pairs of a group are right; n_way: above all wrong ones. What is told without a picture, "
        "by the middle of the choices or by their length, says nothing about pictures."
    )
    return Outcome(figures, rows, note)


def _is_questions(spec: str) -> bool:
    """Whether it is a file of choices, and not one of captions."""
    return spec.endswith(".jsonl") and '"positive"' in read_lines(spec)[0]


def _of_file(spec: str, options: Options) -> tuple[Pictures, list[Question], dict[str, int]]:
    pictures, asked = read_choices(spec, options.images)
    return pictures, list(evenly_spaced(asked, options.examples)), {}


def _of_data(cache: Cache, spec: str, options: Options) -> tuple[Pictures, list[Question], dict[str, int]]:
    """Captioned data whose records have wrong texts; of scenes those of their edit twins."""
    data = read_captioned(cache.model, spec, options)
    source, asked = data.source, []
    for number, (index, key, _) in enumerate(data.records):
        wrong = source.subset(edits=()).wrong_texts(index) if isinstance(source, Scenes) else source[index].negatives
        asked += [Question(number, right, tuple(some), key) for right, some in wrong.items() if some]
    return data.pictures, asked, add_counts(source.skipped, data.unread)


def _by_kind(asked: Sequence[Question], scores: Sequence[np.ndarray]) -> dict[str, dict[str, float]]:
    def of(kind: str | None) -> dict[str, float]:
        some = [i for i, question in enumerate(asked) if kind is None or question.kind == kind]
        found = choice_figures(
            np.array([scores[i][0] for i in some]), [scores[i][1:] for i in some], [asked[i].group for i in some]
        )
        return found | {"questions": float(len(some))}

    return {"all": of(None)} | {kind: of(kind) for kind in sorted({question.kind for question in asked}) if kind}


def _blind(
    asked: Sequence[Question], embed: Float[np.ndarray, "N D"] | None, column: dict[str, int]
) -> dict[str, dict[str, float]]:
    """What somebody without pictures gets: by what lies in the middle of the choices, and by the longest."""
    groups = [question.group for question in asked]
    length = [np.array([float(len(one.split())) for one in (q.right, *q.wrong)]) for q in asked]
    found = {"length": choice_figures(np.array([x[0] for x in length]), [x[1:] for x in length], groups)}
    if embed is not None:
        middle = [blind_scores(embed[column[q.right]], embed[[column[one] for one in q.wrong]]) for q in asked]
        found["middle"] = choice_figures(np.array([x[0] for x in middle]), [x[1] for x in middle], groups)
    return found
