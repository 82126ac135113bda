"""One run at a time in a workdir."""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from vlc.errors import CheckpointError
from vlc.parallel import is_primary
from vlc.storage import Place

_NAME = "run.lock"
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
log = logging.getLogger("vlc")


@contextlib.contextmanager
def workdir_lock(workdir: Place) -> Iterator[None]:
    """Holds a workdir for this run. The system lets go of it when the process ends, however it ends.

    Of several processes the primary holds it. In a bucket there are no locks: there the start that saves last owns the
    workdir (`vlc.train.bucket_checkpoint`).

    Raises:
        CheckpointError: Another run is there; it is named.
    """
    if not is_primary() or not isinstance(workdir, Path):
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / _NAME
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"{workdir}: another run is in this workdir, {_holder(path)}. Stop it, or name another --workdir."
            ) from error
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            log.warning("%s: this file system has no locks; take care that no other run is in it.", workdir)
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": now}) + "\n")
        file.flush()
        yield


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"process {holder['process']} on {holder['host']}, since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "which is just starting"
