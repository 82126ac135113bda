"""Files that grow a little at a time, as logs do: appended to on a disk, written again and again to a bucket."""

import threading
import time
from typing import Protocol

from vlc.storage.files import write_whole
from vlc.storage.place import ObjectPath, Place

_EVERY = 20.0  # seconds between two writings of an object
_SHARE = 20  # the pause is this many times as long as the last writing took


class Appended(Protocol):
    """A file that is open to be appended to."""

    def write(self, data: bytes, /) -> int: ...

    def close(self) -> None: ...


def append_to(path: Place, start: bytes | None = None) -> Appended:
    """Opens a file to append to.

    Args:
        path: On the disk or in a bucket. Writing raises `OSError` where the last one did not succeed.
        start: What it begins with, where it is not what is there.
    """
    if isinstance(path, ObjectPath):
        return _Growing(path, (path.read_bytes() if path.exists() else b"") if start is None else start)
    if start is not None:
        write_whole(path, start)  # whatever happens meanwhile, no line that stays is lost
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab", buffering=0)


class _Growing:
    """An object that is written anew by a thread of its own, so that nobody waits for the store."""

    def __init__(self, path: ObjectPath, start: bytes):
        self._path, self._data = path, bytearray(start)
        self._lock, self._changed, self._closing = threading.Lock(), False, threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name=f"vlc-{path.name}", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> int:
        with self._lock:
            self._data += data
            self._changed = True
            error, self._error = self._error, None
        if error is not None:
            raise error
        return len(data)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        pause = 0.0  # the first lines are seen at once
        while not self._closing.wait(pause):
            pause = max(_EVERY, _SHARE * self._send()) if self._changed else 0.5
        self._send()

    def _send(self) -> float:
        begun = time.monotonic()
        with self._lock:
            data, changed, self._changed = bytes(self._data), self._changed, False
        if changed:
            try:
                self._path.write_bytes(data)
            except OSError as error:
                with self._lock:
                    self._error, self._changed = error, True
        return time.monotonic() - begun
