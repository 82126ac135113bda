"""Whether a checkpoint that could not be read is damaged, or only the disk was not to be read just then.

Full tables of open files, stale handles, time-outs and errors of a device pass, and say nothing about what was written.
So a failure proves damage only where it is found twice, is none of these, and every file can be read to its end.
"""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vlc.errors import CheckpointError
from vlc.parallel import allgather_objects
from vlc.storage import ObjectPath, Place

PAUSES = (0.0, 0.5, 2.0, 8.0)  # seconds before each attempt
# How tensorstore and JAX call what a store, not its content, is to blame for.
_TRANSIENT = (
    "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED", "PERMISSION_DENIED",
    "UNAUTHENTICATED", "OS error",
)  # fmt: skip
_BLOCK = 1 << 24
log = logging.getLogger("vlc")


class Damaged(Exception):
    """A checkpoint that cannot be used; the one before may be."""


def read_patiently(read: Callable[[], Any], what: str, folder: Place) -> Any:
    """What `read` gives, tried again where it fails; all processes call this alike, and agree.

    Args:
        read: Reads a part of a checkpoint.
        what: That part, for messages.
        folder: The checkpoint.

    Raises:
        Damaged: Two attempts in a row have proven it, on any process.
        CheckpointError: It could not be read, which proves nothing.
    """
    before = "fine"
    said = ""
    for pause in PAUSES:
        time.sleep(pause)
        found, verdict = _attempt(read, folder)
        verdicts = allgather_objects(verdict)
        if all(kind == "fine" for kind, _ in verdicts):
            return found
        unread = [text for kind, text in verdicts if kind == "unread"]
        now = "unread" if unread else "damaged"
        said = (unread or [text for kind, text in verdicts if kind == "damaged"])[0]
        if now == before == "damaged":
            raise Damaged(f"{what} cannot be read: {said}")
        log.warning("%s: %s cannot be read (%s); trying again.", folder, what, said)
        before = now
    raise CheckpointError(
        f"{folder}: {what} could not be read in {len(PAUSES)} attempts ({said}). That does not prove it damaged, so "
        "nothing was moved. See to the disk, and start again."
    )


def _attempt(read: Callable[[], Any], folder: Place) -> tuple[Any, tuple[str, str]]:
    """What was read, and the verdict: `fine`, `damaged` or `unread`, with what was said."""
    try:
        return read(), ("fine", "")
    except Damaged as damage:  # proven by who read it
        return None, ("damaged", str(damage))
    except Exception as error:  # whatever a damaged file makes orbax, tensorstore or json raise
        first = (str(error).splitlines() or [""])[0][:160]
        said = f"{type(error).__name__} {first}"
        return None, ("damaged" if _can_prove(error) and _readable(folder) else "unread", said)


def _can_prove(error: Exception) -> bool:
    """Whether an error is one that the content of the files may have caused."""
    for one in _chain(error):
        if isinstance(one, FileNotFoundError):
            continue
        if isinstance(one, (OSError, MemoryError)) or any(code in str(one) for code in _TRANSIENT):
            return False
    return True


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _readable(folder: Place) -> bool:
    """Whether every file of a checkpoint can be read to the end that the disk says it has."""
    if isinstance(folder, ObjectPath):
        return False  # whose reader proves damage itself
    try:
        return all(_length(path) == path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError:
        return False


def _length(path: Path) -> int:
    with path.open("rb") as file:
        return sum(len(block) for block in iter(lambda: file.read(_BLOCK), b""))
