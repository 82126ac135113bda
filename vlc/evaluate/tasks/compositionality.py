"""Is the right caption told from one in which the same things are said of the wrong ones? SugarCrepe, Winoground, ARO.

Ties are wrong: a model that gives all captions one score has understood nothing, though `argmax` would find the first.
"""

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlc.data.decoding import decode
from vlc.errors import DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.stored_scores import StoredScores
from vlc.evaluate.pictures import ENDINGS, Pictures, files_version
from vlc.evaluate.tasks.base import Options, Outcome, evenly_spaced
from vlc.storage import local_copy, read_bytes

SUITES = ("sugarcrepe", "winoground", "aro")
_SUGARCREPE = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
_ARO = ("visual_genome_relation", "visual_genome_attribution")
_IMAGE_FOLDERS = ("", "images", "val2017", "coco/val2017", "vg_images")


@dataclass(frozen=True)
class Case:
    """Images and captions of which the first belongs to the first, the second to the second, and so on.

    Attributes:
        group: What is tested, e.g. `swap_att`.
        images: Path of each, with the box that is cut out of it where there is one.
        texts: Captions; those without an image of their own are wrong.
    """

    group: str
    images: tuple[tuple[str, tuple[int, int, int, int] | None], ...]
    texts: tuple[str, ...]


def read_cases(suite: str, folder: str | Path, images: str = "") -> list[Case]:
    """The cases of a suite, from its files as published.

    Args:
        suite: One of `SUITES`.
        folder: With `add_att.json`, ... (SugarCrepe); `examples.jsonl` (Winoground); `visual_genome_relation.json` and
            `visual_genome_attribution.json` (ARO).
        images: Where the images are; by default in the folder, or in a folder of the usual name in it.

    Raises:
        DataError: None of the files is there, or one is damaged.
    """
    folder = local_copy(folder)
    root = local_copy(images) if images else folder
    if suite == "winoground":
        return list(_winoground(folder / "examples.jsonl", root))
    names = _SUGARCREPE if suite == "sugarcrepe" else _ARO
    files = [folder / f"{name}.json" for name in names if (folder / f"{name}.json").is_file()]
    if not files:
        raise DataError(f"{folder}: none of {suite}'s files is there ({names[0]}.json, ...).")
    read = _sugarcrepe if suite == "sugarcrepe" else _aro
    return [case for file in files for case in read(file, root)]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error


def _image_path(root: Path, name: str, where: str) -> str:
    """Where an image is; the usual folders and endings are tried."""
    endings = ("",) if Path(name).suffix else ("", *ENDINGS)
    for folder, ending in itertools.product(_IMAGE_FOLDERS, endings):
        path = root / folder / f"{name}{ending}"
        if path.is_file():
            return str(path)
    raise DataError(f"{where}: the image {name!r} is not below {root}. Say where images are: --images DIR.")


def _field(row: Any, name: str, where: str) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise DataError(f"{where}: has no {name!r}.")
    return row[name]


def _sugarcrepe(file: Path, root: Path) -> Iterator[Case]:
    rows = _json(file)
    for key, row in rows.items() if isinstance(rows, dict) else enumerate(rows):
        where = f"{file}: case {key}"
        path = _image_path(root, _field(row, "filename", where), where)
        yield Case(file.stem, ((path, None),), (_field(row, "caption", where), _field(row, "negative_caption", where)))


def _winoground(file: Path, root: Path) -> Iterator[Case]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error}).") from error
    for number, row in enumerate(rows):
        where = f"{file}: line {number + 1}"
        paths = (_image_path(root, str(_field(row, f"image_{i}", where)), where) for i in range(2))
        texts = tuple(str(_field(row, f"caption_{i}", where)) for i in range(2))
        yield Case(str(row.get("collapsed_tag") or "all"), tuple((path, None) for path in paths), texts)


def _aro(file: Path, root: Path) -> Iterator[Case]:
    """Each row names an image and the box that both captions speak of."""
    for number, row in enumerate(_json(file)):
        where = f"{file}: case {number}"
        path = _image_path(root, _field(row, "image_path", where), where)
        left, top, width, height = (int(_field(row, f"bbox_{name}", where)) for name in "xywh")
        texts = _field(row, "true_caption", where), _field(row, "false_caption", where)
        yield Case(file.stem, ((path, (left, top, left + width, top + height)),), texts)


def compositionality(cache: Cache, cases: Sequence[Case], by: Sequence[str]) -> dict[str, Any]:
    """Accuracies by group, by embedding and by tokens.

    `text`: an image prefers its caption to all others of the case. `image`: a caption prefers its image. `group`: both
    (Winoground, Thrush et al. 2022). Cases with one image have `text` alone.

    Returns:
        By what is compared, by group and for `all`: the accuracies and how many cases; and `skipped`.
    """
    places = sorted({place for case in cases for place in case.images}, key=str)
    texts = sorted({text for case in cases for text in case.texts})
    tokens = "tokens" in by
    image = cache.images(_pictures(places), tokens=tokens)
    text = cache.texts(texts, tokens=tokens)
    row = {places[number]: place for place, number in enumerate(image.kept)}
    column = {name: number for number, name in enumerate(texts)}
    usable = [case for case in cases if all(place in row for place in case.images)]
    found: dict[str, Any] = {}
    for one in by:
        score = StoredScores(image, text, one, one_way=cache.model.one_way)
        outcomes = [
            (case.group, _outcome(*score([row[p] for p in case.images], [column[t] for t in case.texts])))
            for case in usable
        ]
        found[one] = _by_group(outcomes)
    return found | {"cases": len(usable), "skipped": len(cases) - len(usable)}


def _pictures(places: Sequence[tuple[str, tuple[int, int, int, int] | None]]) -> Pictures:
    def read(index: int) -> bytes:
        path, box = places[index]
        data = read_bytes(path)
        if box is None:
            return data
        file = io.BytesIO()
        cut: Image.Image = decode(data, where=path).crop(box)
        cut.save(file, "PNG", compress_level=1)
        return file.getvalue()

    keys = [path if box is None else f"{path} {box}" for path, box in places]
    versions = " ".join(sorted({files_version(path) for path, _ in places}))
    return Pictures(keys, read, versions)


def _outcome(i2t: np.ndarray, t2i: np.ndarray) -> dict[str, bool]:
    """Whether every image with a caption of its own prefers it, and every such caption its image."""
    pairs = range(min(i2t.shape))
    text = all((np.delete(i2t[place], place) < i2t[place, place]).all() for place in pairs)
    if len(i2t) == 1:
        return {"text": text}
    image = all((np.delete(t2i[:, place], place) < t2i[place, place]).all() for place in pairs)
    return {"text": text, "image": image, "group": text and image}


def _by_group(outcomes: Sequence[tuple[str, dict[str, bool]]]) -> dict[str, dict[str, float]]:
    groups = sorted({group for group, _ in outcomes})
    found = {group: _mean([outcome for name, outcome in outcomes if name == group]) for group in groups}
    return found | {"all": _mean([outcome for _, outcome in outcomes])} if len(groups) != 1 else found


def _mean(outcomes: Sequence[dict[str, bool]]) -> dict[str, float]:
    names = outcomes[0] if outcomes else ()
    return {name: float(np.mean([outcome[name] for outcome in outcomes])) for name in names} | {"cases": len(outcomes)}


def run_compositionality(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    cases = read_cases(task, options.path(task), options.images)
    figures = compositionality(cache, evenly_spaced(cases, options.examples), by)
    rows = []
    for how in by:
        groups = figures[how]
        for group in ["all", *(name for name in groups if name != "all")] if "all" in groups else groups:
            names = [name for name in ("text", "image", "group") if name in groups[group]]
            rows += [(how, name if group == "all" else f"{group} {name}", groups[group][name]) for name in names]
    note = f"{figures['cases']} cases. text: an image prefers its caption; image: a caption its image; group: both."
    return Outcome(figures, rows, note)
