"""Caption annotations as the field's benchmarks publish them: Karpathy's splits, and COCO's own files."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlc.data.record import Record, Source, clean_captions
from vlc.data.sources.captions_file import CAPTION_FILES
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.kind import Location, SourceKind
from vlc.errors import DataError
from vlc.storage import IMAGE_FOLDERS, exists, join, parent, read_bytes

_NAMES = re.compile(r"captions_\w+\.json|dataset_(coco|flickr8k|flickr30k)\.json")


@dataclass(frozen=True)
class Annotations(Source):
    """The images of an annotation file with all their captions.

    `dataset_coco.json`, `dataset_flickr30k.json` and `dataset_flickr8k.json` (Karpathy and Fei-Fei, CVPR 2015) name the
    split of each image; COCO's `captions_val2017.json` has one split.

    Attributes:
        path: The file.
        root: Where images are looked for, in the usual folders too.
        rows: File name with its folder, split, and captions of each image.
    """

    path: str
    root: str
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]

    @classmethod
    def open(cls, path: str, split: str = "", columns: Columns = BY_NAME) -> "Annotations":
        """Reads the file; `split` chooses one, by default all.

        Raises:
            DataError: The file is damaged or of another form, or there is no such split.
        """
        found = cls(path, columns.names.get("root") or parent(path), tuple(_rows(_read(path), path)))
        return found.part(split) if split else found

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order of the file."""
        return tuple(dict.fromkeys(split for _, split, _ in self.rows))

    def part(self, split: str) -> "Annotations":
        """One split.

        Raises:
            DataError: There is no such.
        """
        rows = tuple(row for row in self.rows if row[1] == split)
        if not rows:
            raise DataError(f"{self.path}: no split {split!r}. There are: {', '.join(self.splits)}.")
        return replace(self, rows=rows)

    def __len__(self) -> int:
        return len(self.rows)

    def names(self, index: int) -> tuple[str, str]:
        return self.rows[index][0], ""

    def captions(self, index: int) -> dict[str, tuple[str, ...]]:
        name, _, captions = self.rows[index]
        return clean_captions({"caption": list(captions)}, name)

    def __getitem__(self, index: int) -> Record:
        name = self.rows[index][0]
        return Record(name, read_bytes(self._find(name)), self.captions(index))

    def _find(self, name: str) -> str:
        for folder in ("", *IMAGE_FOLDERS):
            path = join(join(self.root, folder), name) if folder else join(self.root, name)
            if exists(path):
                return path
        raise DataError(
            f"{self.path}: the image {name} is not below {self.root}. Say where images are: --columns root=DIR, or "
            "--config.data.columns=root=DIR."
        )


def is_annotations(path: str) -> bool:
    """Whether a JSON file lists `images` as these do; other forms have rows, or captions by image."""
    start = read_bytes(path)[:4096].lstrip()
    return start[:1] == b"{" and (b'"images"' in start or b'"annotations"' in start or b'"licenses"' in start)


def _read(path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}).") from error
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        raise DataError(f"{path}: has no list of images.")
    return found


def _rows(found: Mapping[str, Any], path: str):
    try:
        if "annotations" in found:
            captions: dict[Any, list[str]] = {}
            for annotation in found["annotations"]:
                captions.setdefault(annotation["image_id"], []).append(str(annotation["caption"]))
            yield from (
                (image["file_name"], "all", tuple(captions[image["id"]]))
                for image in found["images"]
                if image["id"] in captions
            )
            return
        for image in found["images"]:
            name = str(Path(image.get("filepath", "")) / image["filename"])
            yield name, str(image.get("split", "all")), tuple(str(s["raw"]) for s in image["sentences"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: an image or annotation lacks {error}.") from error


def _files_in(place: Location) -> list[str]:
    """Annotation files in a folder, by the names that they are published under."""
    return sorted(name for name in place.names if _NAMES.fullmatch(name))


def _matches(place: Location) -> bool:
    if place.is_folder:
        return bool(_files_in(place)) and not place.names & set(CAPTION_FILES)  # our own file says more
    return place.path.endswith(".json") and place.is_file and is_annotations(place.path)


def _open(place: Location, columns: Columns, _: dict[str, Any]) -> Annotations:
    if not place.is_folder:
        return Annotations.open(place.path, place.split, columns)
    found = _files_in(place)
    if len(found) > 1:
        raise DataError(f"{place.path}: holds several annotation files. Name one: {', '.join(found)}.")
    return Annotations.open(join(place.path, found[0]), place.split, columns)


KIND = SourceKind("caption annotations of COCO, or Karpathy's", _matches, _open)
