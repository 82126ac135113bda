"""One notion of a place to read and write: a `Path` on the disk, or an `ObjectPath` in a bucket that looks like one."""

import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Self

from vlc.storage.files import ask, exists, find_in, is_far, is_folder, write_whole


class ObjectPath:
    """A name in a bucket, `gs://BUCKET/NAME`, with what `pathlib.Path` has of it.

    A folder is what names have in common: there is nothing to make. Objects are written whole, and cannot be renamed.
    """

    def __init__(self, url: "str | ObjectPath"):
        self._url = str(url).rstrip("/")

    def __str__(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"ObjectPath({self._url!r})"

    def __fspath__(self) -> str:
        return self._url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and str(other) == self._url

    def __hash__(self) -> int:
        return hash(self._url)

    def __truediv__(self, name: str) -> Self:
        return type(self)(f"{self._url}/{name}")

    @property
    def name(self) -> str:
        return PurePosixPath(self._url).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self._url).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self._url).suffix

    @property
    def parent(self) -> Self:
        return type(self)(self._url.rpartition("/")[0])

    def with_name(self, name: str) -> Self:
        return self.parent / name

    def with_suffix(self, suffix: str) -> Self:
        return self.with_name(self.stem + suffix)

    def exists(self) -> bool:
        return exists(self._url)

    def is_dir(self) -> bool:
        return is_folder(self._url)

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def read_bytes(self) -> bytes:
        return ask(self._url, lambda system, name: system.cat_file(name))

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, data: bytes) -> int:
        write_whole(self._url, data)
        return len(data)

    def write_text(self, text: str, encoding: str = "utf-8") -> int:
        return self.write_bytes(text.encode(encoding))

    def mkdir(self, **_: Any) -> None:
        """Nothing: a bucket has no folders."""

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            ask(self._url, lambda system, name: system.rm_file(name))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def glob(self, pattern: str) -> Iterator[Self]:
        return (type(self)(found) for found in find_in(self._url, pattern))

    def rglob(self, pattern: str = "*") -> Iterator[Self]:
        """Objects below, whatever lies between; `pattern` is for their last part."""

        def below(system: Any, name: str) -> list[str]:
            return [found[len(name.rstrip("/")) + 1 :] for found in system.find(name)]

        return (self / found for found in ask(self._url, below) if PurePosixPath(found).match(pattern))


Place = Path | ObjectPath


def place(path: "str | os.PathLike[str]") -> Place:
    """A place by its name: on the disk, or, where it has a protocol (`gs://`, `s3://`), in a bucket."""
    return ObjectPath(str(path)) if is_far(path) else Path(path)


def write_json(path: Place, content: Any) -> None:
    """Writes a JSON file as a whole."""
    write_whole(path, (json.dumps(content, indent=1) + "\n").encode())
