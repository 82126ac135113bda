"""`vlc eval --task judgements`: how well each figure of captions orders them as people do."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlc.data.record import add_counts
from vlc.errors import ConfigError, DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.agreement import agreement
from vlc.evaluate.metrics.reference_based import reference_figures
from vlc.evaluate.metrics.reference_free import clip_figures
from vlc.evaluate.pictures import Pictures, files_version
from vlc.evaluate.tasks.base import Options, Outcome, evenly_spaced, left_out_text, read_lines
from vlc.evaluate.tasks.detail import DetailScorer, Known
from vlc.storage import Place, place, read_bytes

_TOKENS = "Flickr8k.token.txt"
_RANKS = ("r1", "r5", "r10")  # of captions among the images, which says nothing of one caption


class Judged(NamedTuple):
    """A caption that people judged.

    Attributes:
        image: Its file.
        caption: The text.
        references: What is said of the image, at least one.
        judgements: By people, higher is better.
    """

    image: str
    caption: str
    references: tuple[str, ...]
    judgements: tuple[float, ...]


def read_judgements(path: str) -> tuple[list[Judged], int]:
    """Captions and what people think of them.

    Flickr8k's `ExpertAnnotations.txt` (image, caption, three judgements from 1 to 4) or, of a name with `crowd` in it,
    `CrowdFlowerAnnotations.txt` (image, caption, share of yes, ...), with `Flickr8k.token.txt` beside; or a JSON object
    a line: `image`, `caption`, `references`, `judgements`.

    Returns:
        The captions, and how many were left out because they are a reference of their image, as Hessel et al. do.

    Raises:
        DataError: A line is of another form, or names a caption that is not known.
    """
    lines = read_lines(path)
    if lines[0].startswith("{"):
        found = [_of_json(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    else:
        texts, crowd = _captions_beside(place(path).parent / _TOKENS), "crowd" in place(path).name.lower()
        found = [_of_flickr(line, texts, f"{path}, line {number}", crowd=crowd) for number, line in enumerate(lines, 1)]
    kept = [one for one in found if one.caption not in one.references]
    return kept, len(found) - len(kept)


def _of_json(line: str, where: str) -> Judged:
    try:
        row = json.loads(line)
        given = row["judgements"] if isinstance(row["judgements"], list) else [row["judgements"]]
        read = Judged(str(row["image"]), str(row["caption"]), tuple(map(str, row["references"])),
                      tuple(map(float, given)))  # fmt: skip
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{where}: image, caption, references and judgements are meant ({error!r}).") from error
    if not read.references or not read.judgements:
        raise DataError(f"{where}: has no {'judgement' if read.references else 'reference'}.")
    return read


def _captions_beside(path: Place) -> dict[str, dict[str, str]]:
    """By image, its captions by `IMAGE#NUMBER`."""
    found: dict[str, dict[str, str]] = {}
    for line in read_lines(str(path)):
        key, _, text = line.partition("\t")
        found.setdefault(key.split("#")[0], {})[key] = text.strip()
    return found


def _of_flickr(line: str, texts: Mapping[str, Mapping[str, str]], where: str, *, crowd: bool) -> Judged:
    parts = line.split("\t")
    try:
        image, caption, values = parts[0], parts[1], tuple(float(value) for value in parts[2:])
        text = texts[caption.split("#")[0]][caption]
        own = tuple(texts[image].values())
    except (IndexError, ValueError) as error:
        raise DataError(f"{where}: IMAGE, CAPTION and judgements with tabs between are meant ({error}).") from error
    except KeyError as error:
        raise DataError(f"{where}: {_TOKENS} has no captions of {error}.") from error
    if not values:
        raise DataError(f"{where}: has no judgement.")
    return Judged(image, text, own, values[:1] if crowd else values)


def run_judgements(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # captions are scored by embeddings
    scorer = options.scorer or cache.model
    if "embed" not in scorer.compares:
        raise ConfigError("CLIPScore compares embeddings; name a dual encoder that has them with --scorer MODEL.")
    spec = options.path(task)
    asked, references = read_judgements(spec)
    asked = evenly_spaced(asked, options.examples)
    if not asked:
        raise DataError(f"{spec}: no caption is left that is judged and is no reference of its image.")
    files = {name: number for number, name in enumerate(dict.fromkeys(one.image for one in asked))}
    image = Cache(cache.folder, scorer, quiet=cache.quiet).images(_pictures(list(files), options.images, spec))
    row = {number: index for index, number in enumerate(image.kept.tolist())}
    kept = [one for one in asked if files[one.image] in row]
    embeddings = np.asarray(image.embed)[[row[files[one.image]] for one in kept]]
    figures = _figures(kept, embeddings, options, lambda texts: scorer.encode_text(texts).embed)
    which = np.repeat(np.arange(len(kept)), [len(one.judgements) for one in kept])
    human = np.array([value for one in kept for value in one.judgements])
    found = {name: agreement(values[which], human) for name, values in figures.items() if _varies(values)}
    skipped = add_counts(image.skipped, {"reference": references} if references else {})
    rows = [(name, f"Kendall's tau-{form}", row[f"tau_{form}"]) for name, row in found.items() for form in "bc"]
    note = (
        f"{len(kept)} captions with {len(human)} judgements{left_out_text(skipped)}. Each judgement counts on its own; "
        "Flickr8k-Expert is published by tau-c, CrowdFlower by tau-b."
    )
    return Outcome({"captions": len(kept), "judgements": len(human), "skipped": skipped, "figures": found}, rows, note)


def _pictures(names: Sequence[str], images: str, spec: str) -> Pictures:
    folder = place(images) if images else place(spec).parent
    paths = [str(folder / name) for name in names]
    return Pictures(paths, lambda index: read_bytes(paths[index]), " ".join(map(files_version, paths)))


def _figures(
    judged: Sequence[Judged], image: np.ndarray, options: Options, embed: Callable[[Sequence[str]], np.ndarray]
) -> dict[str, np.ndarray]:
    """Of each caption, every figure that a single caption has."""
    captions, references = [one.caption for one in judged], [one.references for one in judged]
    further = DetailScorer(options.detail, [Known(one.image, one.references) for one in judged])
    figures = reference_figures(captions, references)[0] | clip_figures(image, captions, references, embed)
    figures |= further.score(captions)
    return {
        name: figure.by_image for name, figure in figures.items() if figure.by_image is not None and name not in _RANKS
    }


def _varies(values: np.ndarray) -> bool:
    known = values[~np.isnan(values)]
    return len(known) > 2 and bool(np.ptp(known) > 0)
