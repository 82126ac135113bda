"""Local copies of what lies in a bucket, kept in a cache of bounded size; and folders that are uploaded when made."""

import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlc.errors import ConfigError, DataError, StoreAway
from vlc.storage.files import ask, is_far, reading, version_of, writing
from vlc.storage.hub import refuse_hub
from vlc.storage.place import Place, place
from vlc.storage.variables import number_of

_SIZE = 64  # GiB that copies may take, where $VLC_CACHE_GIB does not say
_SHARE, _FREE = 0.9, 0.5  # of that, and of what is free on the disk, that one data set of tars may take
_AT_ONCE = 8  # objects
_LOOKED_AT = 32  # at once
log = logging.getLogger("vlc")


def cache_folder() -> Path:
    """Where copies, indices and embeddings go: `$VLC_CACHE`, else `vlc` in `$XDG_CACHE_HOME` or `~/.cache`."""
    known = os.environ.get("XDG_CACHE_HOME")
    return Path(os.environ.get("VLC_CACHE") or Path(known or Path.home() / ".cache").expanduser() / "vlc")


def local_copy(path: "str | os.PathLike[str]") -> Path:
    """A file or folder on the disk: itself, or a copy of what lies in the bucket.

    A copy is made once for all processes of a host, and again when the object changes. When copies take more than
    `$VLC_CACHE_GIB` GiB, those that were used least recently go.

    Raises:
        DataError: There is no such object, or it cannot be read.
    """
    if not is_far(path):
        return Path(str(path))
    there = place(path)
    if there.is_dir():
        return _copied_folder(there)
    return _copied(str(path))


def _copied_folder(there: Place) -> Path:
    """Copies of all objects below a folder, under their names."""
    size = ask(there, lambda system, name: int(system.du(name)))
    if size > _most():
        raise DataError(
            f"{there}: its {size / 2**30:.1f} GiB do not fit into the cache, which may hold {_most() / 2**30:.1f}. Set "
            "VLC_CACHE_GIB where there is room, or keep such data in tars, which are read in parts."
        )
    found = sorted(str(path) for path in there.rglob("*"))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        copies = list(pool.map(_copied, found))
    known = hashlib.sha256("\n".join(map(str, copies)).encode()).hexdigest()[:24]
    folder = cache_folder() / "folders" / known / there.name
    for name, copy in zip(found, copies, strict=True):
        link = folder / name.removeprefix(f"{there}/")
        link.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(copy, link)
    os.utime(folder.parent)
    return folder


def keep_near(paths: Sequence[str]) -> tuple[str, ...]:
    """Copies files in a bucket to the cache, one after another, while they are read; where all of them fit.

    Returns:
        Where the copy of each will be, for `nearest`; the path itself of what is on the disk or does not fit.
    """
    far = [path for path in paths if is_far(path)]
    with ThreadPoolExecutor(_LOOKED_AT) as pool:
        versions = dict(zip(far, pool.map(version_of, far), strict=True))
    if not far or sum(size for size, _ in versions.values()) > min(_SHARE * _most(), _FREE * _free()):
        return tuple(paths)
    threading.Thread(target=_copy_all, args=(far,), name="vlc-near", daemon=True).start()
    return tuple(str(_copy_of(path, *versions[path])) if path in versions else path for path in paths)


def nearest(path: str, copy: str) -> str:
    """The copy that `keep_near` told of, as soon as it is whole; else the path."""
    return copy if copy != path and os.path.exists(copy) else path


def _copy_all(paths: Sequence[str]) -> None:
    try:
        for path in paths:
            _copied(path)
    except (DataError, StoreAway, OSError) as error:
        log.warning("%s is read in parts, since it cannot be copied to the cache: %s", paths[0], error)


def _copy_of(path: str, size: int, tag: str) -> Path:
    known = hashlib.sha256(f"{path} {size} {tag}".encode()).hexdigest()[:24]
    return cache_folder() / "objects" / known / path.rpartition("/")[2]


def _copied(path: str) -> Path:
    with reading(path):
        size, tag = version_of(path)
        copy = _copy_of(path, size, tag)
        folder = copy.parent
        if not _is_here(copy, size):
            folder.mkdir(parents=True, exist_ok=True)
            with (folder.with_suffix(".lock")).open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not _is_here(copy, size):
                    _make_room(size)
                    _download(path, copy)
        os.utime(copy, (time.time(), copy.stat().st_mtime))  # used now, and as old as it was
        return copy


def _is_here(copy: Path, size: int) -> bool:
    return copy.is_file() and copy.stat().st_size == size


def _download(path: str, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.with_name(f".{secrets.token_hex(4)}.partial")
    try:
        ask(path, lambda system, name: system.get_file(name, str(partial)))
        os.replace(partial, copy)
    finally:
        partial.unlink(missing_ok=True)


def _most() -> float:
    """Bytes that copies may take."""
    return number_of("VLC_CACHE_GIB", _SIZE) * (1 << 30)


def _free() -> int:
    """Bytes that are free on the disk of the cache."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder)[2]


def _make_room(size: int) -> None:
    """Takes away the copies that were used least recently, until another fits. Open files stay readable."""
    most, copies = _most(), []
    for file in (cache_folder() / "objects").glob("*/*"):
        with contextlib.suppress(FileNotFoundError):
            status = file.stat()
            copies.append((status.st_atime, status.st_size, file))
    taken, gone = size + sum(held for _, held, _ in copies), 0.0
    for used, held, file in sorted(copies):
        if taken <= most:
            break
        shutil.rmtree(file.parent, ignore_errors=True)
        taken, gone = taken - held, used
    for folder in (cache_folder() / "folders").glob("*"):  # whose files are links to copies
        with contextlib.suppress(FileNotFoundError):
            if folder.stat().st_mtime <= gone:
                shutil.rmtree(folder, ignore_errors=True)


def working_folder(path: Place) -> Path:
    """Where on the disk things are kept that belong to a place and can be made again: itself, or for a bucket a folder
    of the cache."""
    if isinstance(path, Path):
        return path
    return cache_folder() / "work" / f"{path.name}-{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"


@contextlib.contextmanager
def made_for(
    out: "str | os.PathLike[str]", *, new: bool = False, first: Sequence[str] = (), resumed: bool = False
) -> Iterator[Path]:
    """A folder on the disk to write into; what is there at the end goes to `out`.

    On the disk it is `out` itself. For a bucket it is uploaded only where nothing was raised, files of the topmost
    folder last, since they describe what lies below.

    Args:
        out: A folder, made where there is none.
        new: It must be new or empty.
        first: Files of `out` that are there from the start.
        resumed: What was written is kept where something is raised, and is there the next time on this host.

    Raises:
        ConfigError: `new`, and there is something; or it cannot be written.
    """
    refuse_hub(out, "--out")
    there = place(out)
    if isinstance(there, Path):
        yield there
        return
    with writing(there, "--out"):
        if new and next(iter(there.glob("*")), None) is not None:
            raise ConfigError(f"{out}: there is something already; name a folder that is new or empty.")
        with tempfile.TemporaryDirectory(prefix="vlc-") as scratch:
            folder = working_folder(there) if resumed else Path(scratch) / there.name
            folder.mkdir(parents=True, exist_ok=True)
            before = _fetched(folder, there, first)
            yield folder
            upload(folder, there, but=before)
            shutil.rmtree(folder, ignore_errors=True)


def _fetched(folder: Path, there: Place, names: Sequence[str]) -> dict[Path, bytes]:
    """Copies files, where they are; what they hold."""
    found = {folder / name: (there / name).read_bytes() for name in names if (there / name).exists()}
    for path, data in found.items():
        path.write_bytes(data)
    return found


def upload(folder: Path, there: Place, *, but: Mapping[Path, bytes] | None = None) -> None:
    """Copies all files of a folder to a place, those below before those at the top.

    Args:
        folder: On the disk.
        there: Where to.
        but: Files that need not be copied while they hold this.
    """
    old = {path for path, data in (but or {}).items() if path.is_file() and path.read_bytes() == data}
    files = [path for path in folder.rglob("*") if path.is_file() and path not in old]
    files.sort(key=lambda path: path.parent == folder)

    def send(file: Path) -> None:
        to = f"{there}/{file.relative_to(folder).as_posix()}"
        ask(to, lambda system, name: system.put_file(str(file), name))

    below = [file for file in files if file.parent != folder]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(send, below))
    for file in files[len(below) :]:
        send(file)


def exchange(folder: Path, there: Place, *, last: str) -> None:
    """Gives each of two folders the files that the other alone has, but hidden ones; does nothing where they are one.

    Args:
        folder: On the disk. A file of a name is the same wherever it is.
        there: The other.
        last: The suffix of files that say that others are whole: they are copied after them.
    """
    if there == folder:
        return
    folder.mkdir(parents=True, exist_ok=True)
    here = {file.name for file in folder.iterdir() if not file.name.startswith(".")}
    far = {path.name for path in there.glob("*")}

    def send(name: str) -> None:
        ask(f"{there}/{name}", lambda system, to: system.put_file(str(folder / name), to))

    for copy, names in ((send, here - far), (lambda name: _download(f"{there}/{name}", folder / name), far - here)):
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(copy, [name for name in names if not name.endswith(last)]))
            list(pool.map(copy, [name for name in names if name.endswith(last)]))
