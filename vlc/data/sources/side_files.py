"""A folder of images, each with a text file of its name beside it: `a.jpg` with `a.txt`, `a.caption` or `a.json`."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlc.data.record import Record, Source
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.kind import SourceKind
from vlc.data.sources.tar_index import IMAGE_SUFFIXES
from vlc.errors import DataError
from vlc.storage import files_below, join, read_bytes

_IMAGES = tuple(f".{suffix}" for suffix in IMAGE_SUFFIXES)  # in this order, where one name has several
_TEXTS = (".txt", ".caption", ".json")  # in this order, where an image has several


@dataclass(frozen=True)
class SideFiles(Source):
    """Images of a folder and its folders that have a caption beside them.

    Attributes:
        folder: Where they are.
        pairs: Image and side file of each record, below the folder.
        alone: Images without a side file.
        second: Images whose name another image has, of a suffix that comes first.
        columns: How a `.json` is read; its keys are those of a line of a captions file.
    """

    folder: str
    pairs: tuple[tuple[str, str], ...]
    alone: tuple[str, ...] = ()
    second: tuple[str, ...] = ()
    columns: Columns = field(default=BY_NAME)

    @classmethod
    def open(cls, folder: str, columns: Columns = BY_NAME) -> "SideFiles":
        """Lists a folder; no file is read.

        Raises:
            DataError: No image has a side file.
        """
        names = sorted(files_below(folder))
        by_stem: dict[str, dict[str, str]] = {}
        for name in names:
            stem, suffix = os.path.splitext(name)
            by_stem.setdefault(stem, {})[suffix.lower()] = name
        pairs, alone, second = [], [], []
        for files in by_stem.values():
            image, *others = [files[suffix] for suffix in _IMAGES if suffix in files] or [None]
            second += others
            text = next((files[suffix] for suffix in _TEXTS if suffix in files), None)
            if image and text:
                pairs.append((image, text))
            elif image:
                alone.append(image)
        if not pairs:
            raise DataError(
                f"{folder}: none of its {len(alone)} images has a text file of its name ({', '.join(_TEXTS)})."
            )
        return cls(folder, tuple(pairs), tuple(alone), tuple(second), columns)

    @property
    def skipped(self) -> dict[str, int]:
        counts = {"without caption": len(self.alone), "second image": len(self.second)}
        return {reason: count for reason, count in counts.items() if count}

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(f"{join(self.folder, name)}: no text file of its name." for name in self.alone[:1])

    def __len__(self) -> int:
        return len(self.pairs)

    def names(self, index: int) -> tuple[str, str]:
        return self.pairs[index][0], ""

    def captions(self, index: int) -> dict[str, tuple[str, ...]]:
        text = self.pairs[index][1]
        return self.columns.captions_of(self._row(text), join(self.folder, text))

    def __getitem__(self, index: int) -> Record:
        image, text = self.pairs[index]
        row, where = self._row(text), join(self.folder, text)
        captions, parts = self.columns.captions_of(row, where), self.columns.parts_of(row, where)
        return Record(image, read_bytes(join(self.folder, image)), captions, *parts)

    def _row(self, text: str) -> Mapping[str, Any]:
        where = join(self.folder, text)
        try:
            words = read_bytes(where).decode(self.columns.encoding)
            row = json.loads(words) if text.lower().endswith(".json") else {"caption": words}
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: not {self.columns.encoding} text (byte {error.start}).", "encoding") from error
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON ({error}).", "row") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: not an object with a caption.", "row")
        return row


KIND = SourceKind(
    "a folder of images with a text file each",
    lambda place: place.is_folder and any(name.lower().endswith(_IMAGES) for name in files_below(place.path)),
    lambda place, columns, _: SideFiles.open(place.path, columns),
)
