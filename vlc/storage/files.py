"""Files, local or behind a URL (`gs://`, `s3://`, `memory://`, ...), read whole or in part, and written whole.

Local files are read with the system's own calls; every other protocol goes through fsspec, whose package for that store
(gcsfs, s3fs) must be installed. A store that is busy is asked again (`patience`).
"""

import errno
import glob
import io
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec

from vlc.errors import ConfigError, DataError, StoreAway
from vlc.storage.ahead import AHEAD, Range
from vlc.storage.patience import ShortRead, Unreachable, patience, patiently

# Without this gcsfs asks for the kind of each bucket, by a second protocol, with credentials of its own.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
_GLOB_LETTERS = "*?["
_URL = re.compile(r"[A-Za-z][\w+.-]*(::[A-Za-z][\w+.-]*)*://")  # with fsspec's chains
_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<list>[^{},]*(?:,[^{},]*)+))\}")
_CHAINS = ("simplecache", "filecache", "blockcache", "cached")
_OPEN_FILES = 256
_BLOCK = 1 << 20  # that a file in a bucket is read in from front to back
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# Where images lie beside the file that names them, in the layouts that data sets are published in.
IMAGE_FOLDERS = (
    "images", "Images", "flickr30k-images", "flickr30k_images", "flickr8k-images", "Flicker8k_Dataset",
    "Flickr8k_Dataset", "val2014", "val2017", "train2014", "train2017", "VG_100K", "VG_100K_2", "mscoco",
)  # fmt: skip


def is_far(path: str | os.PathLike[str]) -> bool:
    """Whether the path is a URL of another store than the local disk."""
    return _URL.match(str(path)) is not None


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what a file system raises into a `DataError` that names the file.

    A store that is away is no fault of a file: it is a `StoreAway`.
    """
    try:
        yield
    except Unreachable as error:
        raise _away(error) from error
    except ImportError as error:  # fsspec names the package
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:  # an unknown protocol
        raise DataError(f"{path}: {error}") from error


@contextmanager
def writing(folder: str | os.PathLike[str], option: str) -> Iterator[None]:
    """Turns what a file system raises in a folder that is written to into a `ConfigError` that names it."""
    try:
        yield
    except Unreachable as error:
        raise _away(error) from error
    except OSError as error:
        name = os.fsdecode(error.filename) if error.filename else ""
        if error.errno not in _NO_ROOM and not f"{name}/".startswith(f"{folder}/"):
            raise
        raise ConfigError(
            f"{name or folder}: cannot be written ({error.strerror}). What is written is kept; see to the disk or the "
            f"bucket, or name another place by {option}."
        ) from error


def _away(error: Unreachable) -> StoreAway:
    return StoreAway(
        f"{error.filename}: the store did not answer for {patience():.0f} s ({error.strerror}). What is written is "
        "kept; the same command goes on from there."
    )


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Opens a file to be read."""
    if not is_far(path):
        return open(path, "rb")
    return io.BufferedReader(_Ranged(str(path)), _BLOCK)  # pyright: ignore[reportReturnType]


class _Ranged(io.RawIOBase):
    """An object as a file: what is read is asked for, and no more."""

    def __init__(self, path: str):
        self._path, self._place = path, 0
        self._size, _ = version_of(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._size)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._size - self._place))
        if size:
            buffer[:size] = read_range(self._path, self._place, size)
        self._place += size
        return size


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A whole file.

    Raises:
        DataError: It cannot be read.
    """
    with reading(path):
        if not is_far(path):
            return Path(path).read_bytes()
        return ask(path, lambda system, name: system.cat_file(name))


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file and the folders above it; a reader never sees half of it, whoever else writes it."""
    if is_far(path):
        ask(path, lambda system, name: system.pipe_file(name, data))
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_range(path: str | os.PathLike[str], offset: int, size: int) -> bytes:
    """`size` bytes from `offset` on; safe from several threads.

    Raises:
        DataError: They cannot be read, or the file ends before.
    """
    with reading(path):
        if is_far(path):
            found = AHEAD.take((str(path), offset, size))
            data = ask(path, lambda system, name: _range(system, name, offset, size)) if found is None else found
        else:
            # Kept in a variable: the cache may drop it for another thread's file, which would close it.
            file = _opened(str(path), os.stat(path).st_mtime_ns)
            data = os.pread(file.fileno(), size, offset)
    if len(data) != size:
        raise DataError(f"{path}: ends before byte {offset + size}; it was cut short since it was indexed.")
    return data


def read_ahead(ranges: Sequence[Range]) -> None:
    """Begins to read ranges that will be asked for soon, by path, offset and size; nothing of files on the disk."""
    far = [wanted for wanted in ranges if is_far(wanted[0])]
    if far:
        AHEAD.ask(far, _read_ranges)


def _read_ranges(ranges: Sequence[Range]) -> list[bytes | None]:
    """The bytes of each, by requests at the same time; `None` for those that are better asked for again."""
    try:
        system, _ = fsspec.core.url_to_fs(ranges[0][0], use_listings_cache=False)
        names = [system._strip_protocol(path) for path, _, _ in ranges]
        starts, ends = [start for _, start, _ in ranges], [start + size for _, start, size in ranges]
        found = system.cat_ranges(names, starts, ends, on_error="return")
    except Exception:  # of whatever library; who needs them will hear of it
        return [None] * len(ranges)
    return [
        data if isinstance(data, bytes) and len(data) == size else None
        for data, (_, _, size) in zip(found, ranges, strict=True)
    ]


def version_of(path: str | os.PathLike[str]) -> tuple[int, str]:
    """Size in bytes, and what changes when the file does (time of writing, or the store's tag).

    Raises:
        DataError: There is no such file.
    """
    with reading(path):
        if not is_far(path):
            status = os.stat(path)
            return status.st_size, str(status.st_mtime_ns)
        info = ask(path, lambda system, name: system.info(name))
        tag = info.get("etag") or info.get("ETag") or info.get("mtime") or info.get("created") or ""
        return int(info["size"]), str(tag)


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file or folder."""
    if not is_far(path):
        return os.path.exists(path)
    with reading(path):
        return ask(path, _exists)


def is_folder(path: str | os.PathLike[str]) -> bool:
    """Whether there is a folder."""
    if not is_far(path):
        return os.path.isdir(path)
    with reading(path):
        return ask(path, _is_folder)


def is_glob(path: str | os.PathLike[str]) -> bool:
    """Whether the path stands for several; a file or folder that is called so is that one."""
    return any(letter in str(path) for letter in _GLOB_LETTERS) and not (not is_far(path) and os.path.exists(path))


def find(pattern: str | os.PathLike[str]) -> list[str]:
    """Files and folders that match a glob, sorted."""
    if not is_far(pattern):
        return sorted(glob.glob(str(pattern)))
    with reading(pattern):
        return ask(pattern, lambda system, name: sorted(system.unstrip_protocol(found) for found in system.glob(name)))


def find_in(folder: str | os.PathLike[str], pattern: str) -> list[str]:
    """Files and folders in a folder, whatever letters its own name has, that match a glob, sorted."""
    return find(join(folder if is_far(folder) else glob.escape(str(folder)), pattern))


def files_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Names of all files in a folder and its folders; hidden ones are left out."""
    if is_far(folder):
        start = len(str(folder).rstrip("/")) + 1
        yield from (path[start:] for path in find(join(folder, "**")) if PurePosixPath(path).suffix)
        return
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(path, folder)
        yield from (name if below == "." else f"{below}/{name}" for name in files if not name.startswith("."))


def find_shards(pattern: str, inside: str) -> list[str]:
    """The files that a folder, a file name or a glob stands for, sorted; of a list, in its order.

    Args:
        pattern: Folder, file or glob; several with `::` between them, as open_clip has it; with braces, as in
            `{00000..00999}.tar`. What exists under the very name is that.
        inside: A glob of the files that count in a folder, `*.tar`.
    """
    if is_folder(pattern):
        return find_in(pattern, inside)
    if exists(pattern):
        return [pattern]
    parts = [part for whole in split_list(pattern) for part in expand_braces(whole)]
    if parts != [pattern]:
        return [shard for part in parts for shard in find_shards(part, inside)]
    return find(pattern) if is_glob(pattern) else [pattern]


def split_list(paths: str) -> list[str]:
    """The paths of a list with `::` between them; a chain of fsspec's caches (`simplecache::gs://...`) is one path."""
    parts = paths.split("::")
    return [paths] if parts[0] in _CHAINS else [part for part in parts if part]


def expand_braces(path: str) -> list[str]:
    """All that `{0..9}`, `{00..99}` and `{a,b}` in a path stand for, as a shell has it."""
    found = _BRACES.search(path)
    if not found:
        return [path]
    before, after = path[: found.start()], path[found.end() :]
    return [whole for value in _values(found) for whole in expand_braces(f"{before}{value}{after}")]


def _values(found: re.Match[str]) -> list[str]:
    if found["list"] is not None:
        return found["list"].split(",")
    first, last = found["first"], found["last"]
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    step = 1 if int(last) >= int(first) else -1
    return [str(number).zfill(width) for number in range(int(first), int(last) + step, step)]


def join(folder: str | os.PathLike[str], name: str) -> str:
    """A path below a folder; a name that is a full path or URL stays what it is."""
    if is_far(folder):
        return name if is_far(name) else f"{str(folder).rstrip('/')}/{name}"
    return name if is_far(name) else os.path.join(folder, name)


def parent(path: str | os.PathLike[str]) -> str:
    """The folder that a file lies in."""
    return str(path).rsplit("/", 1)[0] if is_far(path) else os.path.dirname(path) or "."


@lru_cache(maxsize=_OPEN_FILES)
def _opened(path: str, written: int) -> IO[bytes]:
    del written  # a file that replaced another is opened again
    return open(path, "rb")


def ask[T](path: str | os.PathLike[str], what: Callable[[Any, str], T]) -> T:
    """Asks the store that an object lies in, with patience: `what(file system, name)`."""
    try:
        system, name = fsspec.core.url_to_fs(str(path), use_listings_cache=False)
    except (ImportError, ValueError) as error:  # its package is not installed, or there is no such protocol
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    return patiently(lambda: what(system, name), path)


def _range(system: Any, name: str, offset: int, size: int) -> bytes:
    data = system.cat_file(name, start=offset, end=offset + size)
    if len(data) < size and int(system.info(name)["size"]) >= offset + size:
        raise ShortRead(5, f"{len(data)} of {size} bytes came", name)
    return data


def _exists(system: Any, name: str) -> bool:
    """As `system.exists`, which takes every error for a no."""
    try:
        system.info(name)
    except FileNotFoundError:
        return False
    return True


def _is_folder(system: Any, name: str) -> bool:
    try:
        return system.info(name)["type"] == "directory"
    except FileNotFoundError:
        return False
