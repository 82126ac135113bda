"""Images to be embedded: how many, what they are called, how one is read, and when they have changed."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vlc.data.record import Source
from vlc.storage import read_bytes

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Pictures:
    """A list of images.

    Attributes:
        keys: Their names.
        read: One image, as bytes or pixels; raises `DataError` where it cannot be read.
        version: Changes when the images do.
    """

    keys: Sequence[str]
    read: Callable[[int], bytes | np.ndarray]
    version: str

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of_files(cls, files: Sequence[str | Path]) -> "Pictures":
        """Image files."""
        names = [str(file) for file in files]
        return cls(names, lambda index: read_bytes(names[index]), _stamp(names))

    @classmethod
    def of_source(cls, source: Source, keys: Sequence[str], version: str) -> "Pictures":
        """The images of records."""
        return cls(keys, lambda index: source[index].image, f"{version} {_hash(keys)}")


def list_images(folder: str | Path) -> list[Path]:
    """The images directly in a folder, sorted by name."""
    return sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in ENDINGS)


def files_version(path: str | Path) -> str:
    """What changes when a file does, or any in a folder: names, sizes and times."""
    path = Path(path)
    return _stamp([str(file) for file in sorted(path.rglob("*"))] if path.is_dir() else [str(path)])


def _stamp(files: Sequence[str]) -> str:
    """Of names, sizes and times; a missing file has none."""
    found = hashlib.sha256()
    for file in files:
        found.update(file.encode())
        if os.path.exists(file):
            status = os.stat(file)
            found.update(f" {status.st_size} {status.st_mtime_ns}".encode())
    return found.hexdigest()


def _hash(texts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
