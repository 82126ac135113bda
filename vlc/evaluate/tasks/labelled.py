"""Images with classes: folders named after their class (ImageNet's layout), and TFDS."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vlc.data.sources import Tfds
from vlc.errors import DataError
from vlc.evaluate.pictures import Pictures, files_version, list_images
from vlc.storage import local_copy, place

EVAL_SPLITS = ("val", "validation", "test")
_NAME_FILES = ("classnames.txt", "classes.txt", "classes.json", "classnames.json", "LOC_synset_mapping.txt")
_WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Labelled:
    """Images and the number of the class of each.

    Attributes:
        pictures: The images.
        labels: `[N]`.
        classes: Names by number, as they are put into templates.
    """

    pictures: Pictures
    labels: np.ndarray
    classes: Sequence[str]

    def part(self, places: np.ndarray) -> "Labelled":
        """Some of the images."""
        keys = [str(self.pictures.keys[int(place)]) for place in places]
        read = self.pictures.read
        chosen = Pictures(keys, lambda index: read(int(places[index])), f"{self.pictures.version} {places.tolist()}")
        return Labelled(chosen, self.labels[places], self.classes)


def open_labelled(spec: str, *, split: str = "", names: str = "", examples: int = 0) -> Labelled:
    """Opens images with classes.

    Args:
        spec: A folder with a folder of images for each class, or with such a folder for each split; or
            `tfds:NAME#SPLIT`.
        split: `train`, `val`, ...; by default the one for evaluation where there are several.
        names: A file with the names of the classes: `FOLDER NAME` on each line, JSON by folder, or one a line, where
            the folders are numbers, WordNet numbers (in their order), or called by these names. By default a file of
            this kind in the folder, else the folders' own names.
        examples: Images at most, evenly spaced; 0 means all.

    Raises:
        DataError: There is no such folder, no image in it, or the folders are WordNet numbers without names.
    """
    found = _open_tfds(spec, split) if spec.startswith("tfds:") else _open_folder(local_copy(spec), split, names)
    if 0 < examples < len(found.pictures):
        return found.part(np.arange(examples) * len(found.pictures) // examples)
    return found


def has_split(spec: str, split: str) -> bool:
    """Whether a folder has one for this split."""
    return spec.startswith("tfds:") or (place(spec) / split).is_dir()


def _open_folder(root: Path, split: str, names: str) -> Labelled:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Give one with a folder of images for each class.")
    folder = _split_folder(root, split)
    kinds = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    numbered = all(path.name.isdecimal() for path in kinds)
    kinds.sort(key=lambda path: (int(path.name) if numbered else 0, path.name))  # 2 before 10
    if not kinds:
        raise DataError(f"{folder}: no folders in it; images of a class lie in a folder of its name.")
    classes = _class_names([kind.name for kind in kinds], root, names)
    files: list[Path] = []
    labels: list[int] = []
    for number, kind in enumerate(kinds):
        images = list_images(kind)
        files += images
        labels += [number] * len(images)
    if not files:
        raise DataError(f"{folder}: no images in its {len(kinds)} folders.")
    return Labelled(Pictures.of_files(files), np.asarray(labels), classes)


def _split_folder(root: Path, split: str) -> Path:
    if split:
        if not (root / split).is_dir():
            raise DataError(f"{root}: no folder {split!r} in it.")
        return root / split
    return next((root / name for name in EVAL_SPLITS if (root / name).is_dir()), root)


def _class_names(folders: list[str], root: Path, given: str) -> list[str]:
    path = local_copy(given) if given else next((root / name for name in _NAME_FILES if (root / name).is_file()), None)
    if path is not None:
        return _names_from(path, folders)
    numbers = [name for name in folders if _WORDNET.fullmatch(name)]
    if numbers:
        raise DataError(
            f"{root}: its folders are WordNet numbers ({numbers[0]}, ...), whose names must be known. Put "
            "LOC_synset_mapping.txt (it comes with ImageNet) beside them, or name a file: --classes FILE."
        )
    return [name.replace("_", " ") for name in folders]


def _names_from(path: Path, folders: list[str]) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        named: Any = (
            json.loads(text) if path.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the names of the classes cannot be read ({error}).") from error
    if isinstance(named, list):
        split = [str(line).strip().split(maxsplit=1) for line in named]
        if all(len(words) == 2 and words[0] in folders for words in split):
            named = {folder: name.split(",")[0] for folder, name in split}  # of several names the first
        else:
            return _names_in_order(path, [str(name).strip() for name in named], folders)
    missing = [folder for folder in folders if folder not in named]
    if missing:
        raise DataError(f"{path}: no name for {missing[0]!r} and {len(missing) - 1} more of {len(folders)} classes.")
    return [str(named[folder]) for folder in folders]


def _names_in_order(path: Path, names: list[str], folders: list[str]) -> list[str]:
    """Names that do not say which folder they are of: by the folders' own names, or by place where folders are numbers.

    Raises:
        DataError: There are more or fewer, or nothing tells which belongs where.
    """
    if len(names) != len(folders):
        raise DataError(f"{path}: {len(names)} names, but there are {len(folders)} classes.")
    by_folder = {_plain(name): name for name in names}
    if len(by_folder) == len(folders) and all(_plain(folder) in by_folder for folder in folders):
        return [by_folder[_plain(folder)] for folder in folders]
    if all(folder.isdecimal() or _WORDNET.fullmatch(folder) for folder in folders):
        return names
    unknown = next(folder for folder in folders if _plain(folder) not in by_folder)
    raise DataError(
        f"{path}: nothing tells which of its names belongs to the folder {unknown!r}. Write the folder before each "
        f'name: "{folders[0]} NAME".'
    )


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("-", " ").strip().casefold()


def _open_tfds(spec: str, split: str) -> Labelled:
    name, _, own = spec.removeprefix("tfds:").partition("#")
    source = Tfds.open(name, split or own or "test")
    labels, names = source.classes()
    classes = [one.replace("_", " ") for one in names]
    keys = [f"{source.split}-{index:08d}" for index in range(len(source))]
    return Labelled(Pictures.of_source(source, keys, files_version(source.folder)), labels, classes)
