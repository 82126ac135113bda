"""A folder of images with a captions file (`captions.jsonl` or `captions.csv`)."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlc.data.record import Record, clean_captions
from vlc.errors import DataError

CAPTION_FILES = ("captions.jsonl", "captions.csv")
_IMAGE_COLUMNS = ("image", "file_name", "filename", "filepath", "path")


@dataclass(frozen=True)
class Folder:
    """Images named by a captions file.

    A JSONL line is `{"image": "a.jpg", "caption": "..."}` or `{"image": "a.jpg", "captions": ["...", "..."]}` or, by
    source, `{"image": "a.jpg", "captions": {"alt": ["..."], "long": ["..."]}}`. A CSV has the columns `image` and
    `caption`; an image may stand in several rows, and any other column is a caption source of that name.

    Attributes:
        root: The folder that image paths are relative to.
        rows: Image path and captions by source, one for each image.
    """

    root: Path
    rows: tuple[tuple[str, dict[str, tuple[str, ...]]], ...]

    @classmethod
    def open(cls, path: str | Path) -> "Folder":
        """Reads the captions file of a folder, or the file itself.

        Raises:
            DataError: There is no captions file, a line is malformed, or nothing is in it.
        """
        path = Path(path)
        if path.is_dir():
            found = [path / name for name in CAPTION_FILES if (path / name).is_file()]
            if not found:
                raise DataError(
                    f"{path}: no {' or '.join(CAPTION_FILES)} in this folder. Write one line for each image: "
                    '{"image": "a.jpg", "captions": ["what it shows"]}'
                )
            path = found[0]
        read = {".jsonl": _read_jsonl, ".csv": _read_csv}.get(path.suffix)
        if read is None:
            raise DataError(f"{path}: a captions file ends in .jsonl or .csv.")
        rows: dict[str, dict[str, tuple[str, ...]]] = {}
        for where, image, captions in read(path):
            known = rows.setdefault(image, {})
            for source, texts in clean_captions(captions, where).items():
                known[source] = known.get(source, ()) + texts
        if not rows:
            raise DataError(f"{path}: the file holds no image.")
        return cls(path.parent, tuple(rows.items()))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        image, captions = self.rows[index]
        path = self.root / image
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
        return Record(image, data, captions)


def _read_jsonl(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for number, line in enumerate(_open_text(path), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).") from error
        if not isinstance(row, dict):
            raise DataError(f'{where}: expected an object such as {{"image": ..., "captions": [...]}}.')
        yield where, _image_of(row, where), captions_of(row, where)


def _read_csv(path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    reader = csv.DictReader(_open_text(path))
    for row in reader:
        where = f"{path}:{reader.line_num}"
        image = _image_of(row, where)
        texts = {k: v for k, v in row.items() if k not in _IMAGE_COLUMNS and k is not None and v}
        if "caption" in texts:
            texts["text"] = texts.pop("caption")
        yield where, image, {source: [text] for source, text in texts.items()}


def _open_text(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}). Save the file as UTF-8.") from error


def _image_of(row: dict[str, Any], where: str) -> str:
    for column in _IMAGE_COLUMNS:
        if row.get(column):
            return str(row[column])
    raise DataError(f"{where}: no image. Give the path in a column named {' or '.join(_IMAGE_COLUMNS)}.")


def captions_of(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Captions by source from a JSON object: `caption`/`text` (a string) or `captions` (a list, or lists by source)."""
    captions = row.get("captions")
    if isinstance(captions, dict):
        return captions
    if captions is not None:
        return {"text": captions}
    text = row.get("caption", row.get("text"))
    if text is None:
        raise DataError(f'{where}: no caption. Give "caption": "..." or "captions": ["...", "..."].')
    if not isinstance(text, str):
        raise DataError(f'{where}: "caption" must be one string, got {type(text).__name__}; lists go under "captions".')
    return {"text": [text]}
