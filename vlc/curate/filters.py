"""Steps that leave records or captions out, each counted. They work on a survey, before training, never inside it.

A step is written as a call, `words(min=3, max=20)`, in `config.data.filters` or after `--filter`. Every function below
that is in `FILTERS` is one; it is handed the captions and images that earlier steps have left.
"""

import ast
import collections
import inspect
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from vlc.curate import duplicates
from vlc.curate.survey import Survey, scripts_of
from vlc.data.captions import matching
from vlc.data.sources.captions_file import read_rows
from vlc.errors import ConfigError, DataError, did_you_mean
from vlc.storage import local_copy


class Remaining(NamedTuple):
    """What earlier steps have left.

    Attributes:
        survey: All records.
        images: Which records are left `[N]`.
        captions: Which captions are left `[M]`.
        open_survey: Surveys another source, for `not_in`.
    """

    survey: Survey
    images: np.ndarray
    captions: np.ndarray
    open_survey: Callable[[str], Survey]

    def texts_of(self, sources: str) -> np.ndarray:
        """Positions of the captions that are left and whose source is of this name, which may end in `*`."""
        names = self.survey.sources
        return np.flatnonzero(self.captions & np.isin(names.astype(str), matching(set(names.tolist()), sources)))


class Dropped(NamedTuple):
    """Which images `[N]` and which captions `[M]` a step drops; `None`: none."""

    images: np.ndarray | None = None
    captions: np.ndarray | None = None


# -- by the image -----------------------------------------------------------------------------------------------------


def image_size(left: Remaining, *, short: int = 200, aspect: float = 3.0) -> Dropped:
    """Images whose shorter side is under `short` pixels, or whose longer side is over `aspect` times the shorter."""
    width, height = left.survey.numbers("width"), left.survey.numbers("height")
    low, high = np.minimum(width, height), np.maximum(width, height)
    return Dropped(images=(low < short) | (high > aspect * low))


def captions_per_image(left: Remaining, *, max: int = 1000, source: str = "*") -> Dropped:
    """Images with more captions than `max`."""
    count = np.bincount(left.survey.owner[left.texts_of(source)], minlength=len(left.survey))
    return Dropped(images=count > max)


def not_in(left: Remaining, *, data: str, distance: int = 8) -> Dropped:
    """Images that look like one of another data set, e.g. of a test set, within `distance` bits of 64."""
    other = left.open_survey(data)
    return Dropped(
        images=duplicates.near_any(left.survey.numbers("hash"), other.numbers("hash")[other.usable], distance)
    )


def unique(left: Remaining, *, keep: int = 1, distance: int = 6) -> Dropped:
    """All but `keep` images of each group that look alike, spread evenly over the group."""
    indices = np.flatnonzero(left.images)
    found = duplicates.groups(left.survey.numbers("hash")[indices], distance)
    drop = np.zeros(len(left.survey), bool)
    for members in _by_group(found):
        if len(members) > keep:
            kept = np.unique(np.linspace(0, len(members) - 1, keep).round().astype(int))
            drop[indices[np.delete(members, kept)]] = True
    return Dropped(images=drop)


def clusters(left: Remaining, *, features: str, count: int = 3000, keep: float = 0.25, seed: int = 0) -> Dropped:
    """All but a share `keep` of each of `count` k-means clusters, so that rare content keeps its share of what is left.

    TL;DR (arXiv 2305.20087) clusters its codebook vectors so, 3,000 clusters and a quarter of each.

    Args:
        left: What is left.
        features: A `.npz` file with `keys` `[N]` and `features` `[N, D]`, e.g. image embeddings.
        count: Clusters.
        keep: Share of each cluster that is kept, at least one image.
        seed: Of the clustering and of the draw.
    """
    from scipy.cluster.vq import kmeans2

    _check_share("clusters", "keep", keep)
    rows = _features(features, left)
    indices = np.flatnonzero(left.images)
    points = rows[indices]
    if count * max(1, round(keep * len(points) / count)) >= len(points) and keep < 1:
        raise ConfigError(
            f"clusters(count={count}, keep={keep}): of {len(points)} images each cluster would have about "
            f"{len(points) / count:.1f}, and at least one of each is kept, so that hardly any would be dropped. Set "
            f"count to {max(1, int(len(points) * keep / 2))} or less."
        )
    rng = np.random.default_rng(seed)
    _, label = kmeans2(points, min(count, len(points)), minit="++", rng=rng, missing="warn")
    drop = np.zeros(len(left.survey), bool)
    for members in _by_group(label):
        kept = rng.choice(len(members), max(1, round(keep * len(members))), replace=False)
        drop[indices[np.delete(members, kept)]] = True
    return Dropped(images=drop)


def score(
    left: Remaining, *, file: str, keep: float | None = None, min: float | None = None, column: str = "score"
) -> Dropped:
    """What scores low, by a file of scores: JSONL, CSV, TSV or Parquet rows of `key`, a score, and maybe `caption`.

    Rows with a `caption` score that caption of the image; rows without it the image, and those of its captions that
    have no row of their own. What has no score, or NaN, is dropped.
    Compress & Align (arXiv 2312.06726) keeps the pairs that a reward model ranks highest.

    Args:
        left: What is left.
        file: The scores.
        keep: Share that is kept, those with the highest scores.
        min: Or the lowest score that is kept.
        column: What the score is called in the file.
    """
    if (keep is None) == (min is None):
        raise ConfigError("score needs one of keep (a share) and min (a score).")
    if keep is not None:
        _check_share("score", "keep", keep)
    by_image, by_caption = _scores(file, column)
    survey = left.survey
    keys = survey.table.column("key").to_pylist()
    if by_caption:
        pairs = ((keys[owner], text) for owner, text in zip(survey.owner, survey.texts, strict=True))
        values = np.array([by_caption.get((key, text), by_image.get(key, np.nan)) for key, text in pairs])
        return Dropped(captions=_low(values, left.captions, keep, min))
    values = np.array([by_image.get(key, np.nan) for key in keys])
    return Dropped(images=_low(values, left.images, keep, min))


# -- by the caption ---------------------------------------------------------------------------------------------------


def words(left: Remaining, *, min: int = 1, max: int = 10_000, source: str = "*") -> Dropped:
    """Captions with fewer words than `min` or more than `max`."""
    return _drop_texts(left, source, lambda text: not min <= len(text.split()) <= max)


def script(left: Remaining, *, name: str = "latin", share: float = 0.5, source: str = "*") -> Dropped:
    """Captions of which less than `share` of the letters are of one script (`latin`, `cyrillic`, `cjk`, ...)."""

    def foreign(text: str) -> bool:
        counts = scripts_of(text)
        return counts.get(name.lower(), 0) < share * sum(counts.values()) or not counts

    return _drop_texts(left, source, foreign)


def without(left: Remaining, *, pattern: str, source: str = "*") -> Dropped:
    """Captions in which a regular expression is found, in whatever case."""
    try:
        found = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"without(pattern={pattern!r}): not a regular expression ({error}).") from error
    return _drop_texts(left, source, lambda text: found.search(text) is not None)


_FILE_NAME = re.compile(
    r"^\S+\.(jpe?g|png|gif|webp|bmp|tiff?)$|^(img|dsc[nf]?|pict?|image|photo|scan)[\s_-]*\d+$", re.I
)


def not_file_name(left: Remaining, *, source: str = "*") -> Dropped:
    """Captions that are file names, such as `IMG_1234` and `beach.jpg`."""
    return _drop_texts(left, source, lambda text: _FILE_NAME.search(text) is not None)


def repeated(left: Remaining, *, images: int = 10, source: str = "*") -> Dropped:
    """Captions that more than `images` images share."""
    chosen = left.texts_of(source)
    texts = (hash(left.survey.texts[i].casefold()) for i in chosen)
    pairs = set(zip(texts, left.survey.owner[chosen].tolist(), strict=True))
    count = collections.Counter(text for text, _ in pairs)
    return _drop_texts(left, source, lambda text: count[hash(text.casefold())] > images)


def frequent(left: Remaining, *, top: int = 100_000_000, source: str = "*") -> Dropped:
    """Captions with a word, or two words in a row, that are not among the `top` most frequent of all captions."""
    chosen = left.texts_of(source)
    count = collections.Counter(gram for i in chosen for gram in _grams(left.survey.texts[i]))
    if len(count) <= top:
        return Dropped()
    known = {gram for gram, _ in count.most_common(top)}
    return _drop_texts(left, source, lambda text: any(gram not in known for gram in _grams(text)))


FILTERS: dict[str, Callable[..., Dropped]] = {
    step.__name__: step
    for step in (
        image_size, captions_per_image, not_in, unique, clusters, score,
        words, script, without, not_file_name, repeated, frequent,
    )
}  # fmt: skip

PRESETS = {
    # ALIGN (arXiv 2102.05918), section 3.1: over 200 pixels, and a ratio under 3, to which no image that may be decoded
    # comes nearer than 1.7e-4 without reaching it. Its test sets are not ours to know: add not_in(data=...) for each.
    "align_image": ("image_size(short=201, aspect=2.9999)", "captions_per_image(max=1000)"),
    "align_text": ("repeated(images=10)", "frequent(top=100_000_000)", "words(min=3, max=20)"),
    # FILIP (arXiv 2111.07783), section 4.1, with the script in place of its English only.
    "filip": ("image_size(short=200, aspect=3)", "script(name='latin')", "not_file_name()", "repeated(images=10)"),
}


# -- from text to steps, and through them -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A filter with its arguments."""

    text: str
    run: Callable[[Remaining], Dropped]


def parse_filters(texts: Sequence[str]) -> list[Step]:
    """Reads steps; a preset stands for several.

    Raises:
        ConfigError: A step is unknown, or is not called so.
    """
    steps = []
    for text in texts:
        if text in PRESETS:
            steps += parse_filters(PRESETS[text])
        else:
            steps.append(_parse(text))
    return steps


def _parse(text: str) -> Step:
    try:
        call = ast.parse(text if "(" in text else f"{text}()", mode="eval").body
    except SyntaxError as error:
        raise ConfigError(f"The filter {text!r} cannot be read; write it as words(min=3, max=20).") from error
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
        raise ConfigError(f"The filter {text!r} cannot be read; write it as words(min=3, max=20), with names.")
    name = call.func.id
    if name not in FILTERS:
        raise ConfigError(f"There is no filter {name!r}.{did_you_mean(name, [*FILTERS, *PRESETS])}")
    try:
        values = {word.arg or "**": ast.literal_eval(word.value) for word in call.keywords}
    except ValueError as error:
        raise ConfigError(f"The filter {text!r}: its values must be numbers or strings.") from error
    known = {p.name: p.default for p in inspect.signature(FILTERS[name]).parameters.values() if p.name != "left"}
    for key in values:
        if key not in known:
            raise ConfigError(f"The filter {name} has no {key!r}.{did_you_mean(key, known)}")
    for key, default in known.items():
        if default is inspect.Parameter.empty and key not in values:
            raise ConfigError(f"The filter {name} needs {key}=....")
    return Step(text, lambda left: FILTERS[name](left, **values))


@dataclass(frozen=True)
class Filtered:
    """What is left of a source, and what each step dropped.

    Attributes:
        images: Which records are left `[N]`.
        captions: Which captions are left `[M]`.
        counts: For each step, its text and the images and captions that it dropped. An image all of whose captions
            are dropped is dropped with them.
    """

    images: np.ndarray
    captions: np.ndarray
    counts: tuple[dict[str, Any], ...]


def run_filters(survey: Survey, steps: Sequence[Step], open_survey: Callable[[str], Survey]) -> Filtered:
    """Applies the steps in turn.

    Args:
        survey: Of the source.
        steps: See `parse_filters`.
        open_survey: Surveys the source that `not_in` names.
    """
    images = survey.usable.copy()
    captions = images[survey.owner]
    counts = []
    for step in steps:
        drop = step.run(Remaining(survey, images, captions, open_survey))
        before = int(images.sum()), int(captions.sum())
        if drop.captions is not None:
            captions &= ~drop.captions
            images &= np.bincount(survey.owner[captions], minlength=len(survey)) > 0
        if drop.images is not None:
            images &= ~drop.images
        captions &= images[survey.owner]
        counts.append(
            {"step": step.text, "images": before[0] - int(images.sum()), "captions": before[1] - int(captions.sum())}
        )
    return Filtered(images, captions, tuple(counts))


# -- helpers ----------------------------------------------------------------------------------------------------------


def _drop_texts(left: Remaining, source: str, bad: Callable[[str], bool]) -> Dropped:
    drop = np.zeros(len(left.captions), bool)
    for i in left.texts_of(source):
        drop[i] = bad(left.survey.texts[i])
    return Dropped(captions=drop)


def _grams(text: str) -> list[str]:
    tokens = text.casefold().split()
    return [*tokens, *(f"{a} {b}" for a, b in itertools.pairwise(tokens))]


def _by_group(labels: np.ndarray) -> list[np.ndarray]:
    """The members of each group, in order."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1) if len(labels) else []


def _low(values: np.ndarray, left: np.ndarray, keep: float | None, least: float | None) -> np.ndarray:
    """Which values are none, are under the least one, or beyond the share of the scored ones left that is kept, which
    are one at least (ties: the first stay)."""
    if least is not None:
        return ~(values >= least)
    indices = np.flatnonzero(left & ~np.isnan(values))
    order = indices[np.argsort(-values[indices], kind="stable")]
    drop = np.isnan(values)
    drop[order[max(1, round((keep or 0) * len(indices))) :]] = True
    return drop


def _scores(file: str, column: str) -> tuple[dict[str, float], dict[tuple[str, str], float]]:
    by_image: dict[str, float] = {}
    by_caption: dict[tuple[str, str], float] = {}
    for where, row in read_rows(file):
        if isinstance(row, DataError):
            raise row
        key = row.get("key") or row.get("image")
        try:
            value = float(row[column])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{where}: no number in a column {column!r}.", "row") from error
        if not key:
            raise DataError(f"{where}: no key in a column `key` or `image`.", "row")
        if row.get("caption"):
            by_caption[str(key), " ".join(str(row["caption"]).split())] = value
        else:
            by_image[str(key)] = value
    if not (by_image or by_caption):
        raise DataError(f"{file}: holds no score.")
    return by_image, by_caption


def _features(file: str, left: Remaining) -> np.ndarray:
    """Feature rows in the order of the records."""
    try:
        with np.load(local_copy(file), allow_pickle=False) as saved:
            keys, rows = [str(key) for key in saved["keys"]], np.asarray(saved["features"], np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{file}: not a .npz file with `keys` and `features` ({error}).") from error
    if rows.ndim != 2 or len(rows) != len(keys):
        raise DataError(f"{file}: {len(keys)} keys and features {list(rows.shape)}; [N, D] with a key each is meant.")
    if not (finite := np.isfinite(rows).all(axis=1)).all():
        wrong = int(np.flatnonzero(~finite)[0])
        raise DataError(f"{file}: the features of {keys[wrong]} (row {wrong}) hold numbers that are not finite.")
    place = {key: i for i, key in enumerate(keys)}
    keys_in_order = left.survey.table.column("key").to_pylist()
    missing = [keys_in_order[i] for i in np.flatnonzero(left.images) if keys_in_order[i] not in place]
    if missing:
        raise DataError(f"{file}: no features of {len(missing)} images, e.g. {PurePosixPath(missing[0])}.")
    return rows[[place.get(key, 0) for key in keys_in_order]]


def _check_share(step: str, name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise ConfigError(f"{step}({name}={value}): it is a share, above 0 and at most 1.")
