"""Zero-shot semantic segmentation: each patch takes the class whose prompts it is most similar to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vlc.data.decoding import PIXEL_LIMIT
from vlc.errors import ConfigError, DataError
from vlc.evaluate.embeddings import Cache, Embedded
from vlc.evaluate.metrics.retrieval import cosines
from vlc.evaluate.metrics.zero_shot import class_embeddings, fill_templates
from vlc.evaluate.pictures import Pictures, list_images
from vlc.evaluate.report.page import Report
from vlc.evaluate.tasks.base import Options, Outcome, read_lines
from vlc.evaluate.tasks.proposals import check_ensemble, pixel_scores, read_proposals
from vlc.evaluate.tasks.templates import read_templates
from vlc.evaluate.tasks.windows import check_windows, window_field
from vlc.inference.image_inputs import picture_of
from vlc.storage import local_copy

IGNORED = 255
_FOLDERS = (("images", "masks"), ("images", "annotations"), ("JPEGImages", "SegmentationClass"))
_NAME_FILES = ("classes.txt", "classnames.txt")
_LOOKED_AT = 500  # masks whose numbers tell whether 0 is a class
_AT_ONCE = 32  # classes that are enlarged together


@dataclass(frozen=True)
class Masked:
    """Images with a picture of class numbers each.

    Attributes:
        pictures: The images.
        masks: Files, whose pixels are class numbers; 255 is no class.
        classes: Names by number.
        first: The number of the first class in the masks; with 1, 0 is no class (ADE20K).
    """

    pictures: Pictures
    masks: Sequence[Path]
    classes: Sequence[str]
    first: int = 0


def open_masked(folder: str | Path, *, names: str = "", examples: int = 0) -> Masked:
    """Opens `images/` with `masks/` (or `annotations/`, or PASCAL VOC's folders), and `classes.txt`.

    An image and its mask have the same name but for the ending. A palette's pixels are its numbers, as in VOC. In
    ADE20K (known by its `objectInfo150.txt`, or by masks that go to the number of names) class 1 is the first, and 0 is
    none.

    Args:
        folder: The data.
        names: A file with the name of class 0, 1, ... on each line; by default `classes.txt` in the folder.
        examples: Images at most, evenly spaced; 0 means all.

    Raises:
        DataError: A folder or the names are missing, or no image has a mask.
    """
    root = local_copy(folder)
    pair = next(((root / a, root / b) for a, b in _FOLDERS if (root / a).is_dir() and (root / b).is_dir()), None)
    if pair is None:
        raise DataError(f"{root}: no folders images and masks (or annotations) in it.")
    path = local_copy(names) if names else next((root / name for name in _NAME_FILES if (root / name).is_file()), None)
    if path is None:
        raise DataError(f"{root}: no classes.txt, with the name of class 0, 1, ... on each line; or --classes FILE.")
    classes = read_lines(path)
    masks = {mask.stem: mask for mask in list_images(pair[1])}
    found = [image for image in list_images(pair[0]) if image.stem in masks]
    if not found:
        raise DataError(f"{root}: no image in {pair[0].name} has a mask of its name in {pair[1].name}.")
    count = min(examples or len(found), len(found))
    chosen = [found[index * len(found) // count] for index in range(count)]
    chosen_masks = [masks[image.stem] for image in chosen]
    return Masked(Pictures.of_files(chosen), chosen_masks, classes, _first_class(root, chosen_masks, len(classes)))


def _first_class(root: Path, masks: Sequence[Path], count: int) -> int:
    """1 where the masks are of ADE20K's kind, else 0."""
    if any((place / "objectInfo150.txt").is_file() for place in (root, root.parent)):
        return 1
    highest = 0
    for mask in masks[:_LOOKED_AT]:
        numbers = _numbers(mask)
        highest = max(highest, int(numbers[numbers != IGNORED].max(initial=0)))
    return int(highest == count)


def segmentation(
    cache: Cache,
    data: Masked,
    templates: Sequence[str],
    *,
    windows: int = 0,
    proposals: str = "",
    ensemble: float = 0.7,
) -> dict[str, Any]:
    """Mean intersection over union of classes, and the accuracy of pixels.

    Images are squashed, not cut, so that all of their pixels are seen. A patch's score for a class is the cosine with
    the mean of its prompts where tokens share the space of embeddings (imported models), else with the prompt's most
    similar token, averaged over prompts. Scores are enlarged to the mask's size (bilinear), and each pixel takes the
    best class.

    Args:
        cache: Of the model.
        data: Pictures with their classes.
        templates: Prompts of a class.
        windows: The short side that a picture is brought to, for windows of the model's size that slide over it; 0: it
            is looked at once.
        proposals: A file of masks, each of which takes a class as a whole (OVSeg); pixels in none of them take that of
            their patch. See `read_proposals`.
        ensemble: How much the masked crop has to say, against the proposer.

    Returns:
        `miou`, over the classes that occur in a mask or a prediction; `pixel_accuracy`; `iou` by class; `images`;
        `skipped`.

    Raises:
        ConfigError: The model has no token for each patch, or an option makes no sense.
        DataError: The proposals cannot be read, or are of other pictures.
    """
    model = cache.model
    if model.config.model.image.pool == "queries":
        raise ConfigError("This model's image tokens are pooled queries (CoCa), not patches: it cannot segment.")
    count, prompts = len(data.classes), _mean_prompts(cache, data.classes, templates)
    proposed = read_proposals(proposals, count) if proposals else {}
    if proposals:
        check_ensemble(model, ensemble)
    if windows:
        check_windows(model, windows)
    own_head = model.config.model.token_head == "own"
    score = _token_score(cache, data.classes, templates) if own_head else lambda patches: cosines(patches, prompts)
    image = cache.images(data.pictures, tokens=True, squash=True)
    names = {number: Path(str(data.pictures.keys[number])).stem for number in image.kept.tolist()}
    masked = sum(name in proposed for name in names.values())
    if proposals and not masked:
        raise DataError(f"{proposals}: no proposal is of any of these {len(names)} pictures, by their file names.")
    confusion = np.zeros((count, count), np.int64)
    for (number, name), patches in zip(names.items(), _rows_of(image), strict=True):
        mask, some = read_mask(data.masks[number], count, first=data.first), proposed.get(name, [])
        read = partial(_picture, cache, data, number)
        best = predict(window_field(model, read(), windows, score) if windows else _square(score(patches)), mask.shape)
        if some:
            of_masks = pixel_scores(model, read(), some, prompts, ensemble, name)
            best = np.where(of_masks.any(axis=2), of_masks.argmax(axis=2), best)
        confusion += _confusion(best, mask, count)
    found = _figures(confusion, data.classes) | {"images": len(names), "skipped": image.skipped}
    return found | ({"images_with_proposals": masked} if proposals else {})


def _rows_of(image: Embedded) -> Iterator[np.ndarray]:
    """The tokens of each image."""
    return (patches for tokens in image.token_blocks() for patches in tokens)


def _picture(cache: Cache, data: Masked, number: int) -> np.ndarray:
    """All pixels of a picture."""
    return picture_of(data.pictures.read(number), cache.model.preprocess, str(data.pictures.keys[number]))


def _square(scores: np.ndarray) -> np.ndarray:
    """Scores of the patches of a square picture, row by row."""
    grid = round(len(scores) ** 0.5)
    return scores.reshape(grid, grid, -1)


def _mean_prompts(cache: Cache, classes: Sequence[str], templates: Sequence[str]) -> np.ndarray:
    return class_embeddings(cache.texts(fill_templates(classes, templates)).embed, len(classes))


def _token_score(cache: Cache, classes: Sequence[str], templates: Sequence[str]):
    stored = cache.texts(fill_templates(classes, templates), tokens=True)
    tokens, mask = stored.array("tokens"), stored.array("mask")
    flat, owner = tokens[mask], np.repeat(np.arange(len(mask)), mask.sum(axis=1))
    first = np.flatnonzero(np.diff(owner, prepend=-1))

    def score(patches: np.ndarray) -> np.ndarray:
        best = np.maximum.reduceat(cosines(patches, flat), first, axis=1)
        return best.reshape(len(patches), len(classes), -1).mean(axis=2)

    return score


def read_mask(path: Path, classes: int, *, first: int = 0) -> np.ndarray:
    """Class numbers `[height, width]`, from 0; `IGNORED` is no class.

    Args:
        path: A picture of numbers.
        classes: How many there are.
        first: The number of the first class; lower ones are none.

    Raises:
        DataError: The file is damaged, or holds a number that is no class.
    """
    found = _numbers(path)
    mask = np.where((found == IGNORED) | (found < first), IGNORED, found - first)
    wrong = found[(mask != IGNORED) & (mask >= classes)]
    if len(wrong):
        raise DataError(f"{path}: has the class number {wrong[0]}, but there are {classes} names.")
    return mask


def _numbers(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.width * image.height > PIXEL_LIMIT or image.mode not in ("L", "P", "I", "I;16"):
                raise DataError(f"{path}: a mask is one picture of class numbers; this is {image.mode} {image.size}.")
            return np.asarray(image).astype(np.int64)
    except DataError:
        raise
    except Exception as error:  # whatever a damaged picture makes Pillow raise
        raise DataError(f"{path}: not a readable mask ({error}).") from error


def predict(scores: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The best class of every pixel, from scores of patches `[rows, columns, classes]`."""
    field = scores.astype(np.float32)
    best, winner = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.int64)
    for start in range(0, field.shape[2], _AT_ONCE):  # OpenCV enlarges few channels at once
        part = np.ascontiguousarray(field[..., start : start + _AT_ONCE])
        large = cv2.resize(part, shape[::-1], interpolation=cv2.INTER_LINEAR).reshape(*shape, -1)
        top = large.max(axis=2)
        winner = np.where(top > best, start + large.argmax(axis=2), winner)
        best = np.maximum(best, top)
    return winner


def _confusion(predicted: np.ndarray, mask: np.ndarray, classes: int) -> np.ndarray:
    """How many pixels of each class (rows) are taken for each class (columns)."""
    counted = mask != IGNORED
    pairs = mask[counted] * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def _figures(confusion: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    right, union = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion)
    iou = {classes[c]: float(right[c] / union[c]) for c in range(len(classes)) if union[c]}
    return {
        "miou": float(np.mean(list(iou.values()))),
        "pixel_accuracy": float(right.sum() / confusion.sum()),
        "iou": iou,
    }


def run_segmentation(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # patches are tokens
    data = open_masked(options.path(task), names=options.classes, examples=options.examples)
    figures = segmentation(
        cache, data, read_templates(options.templates), windows=options.windows, proposals=options.proposals,
        ensemble=options.ensemble,
    )  # fmt: skip
    rows = [("tokens", name, figures[name]) for name in ("miou", "pixel_accuracy")]

    def draw(report: Report) -> None:
        report.table(
            f"{task}: intersection over union by class", "Of the classes that occur.", ["class", "IoU"],
            sorted(([name, value] for name, value in figures["iou"].items()), key=lambda row: row[1]),
        )  # fmt: skip

    note = f"{figures['images']} images, {len(data.classes)} classes."
    if options.windows:
        note += f" By windows that slide over pictures whose short side is {options.windows} pixels."
    if options.proposals:
        note += (
            f" Masks of {figures['images_with_proposals']} images are proposed by {options.proposals}; the crop's "
            f"share of the opinion is {options.ensemble:g}."
        )
    if data.first:
        note += " The masks are of ADE20K's kind: 1 is the first class, and 0 none."
    return Outcome(figures, rows, note, draw)
