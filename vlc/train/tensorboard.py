"""TensorBoard files, written by the thread that has something to say.

tensorboardX's `SummaryWriter` hands events to a thread of its own. When the disk is full that thread dies, and the next
call waits for it for ever; so here its record writer is used directly, and an error is raised where it happens.
"""

import time
from pathlib import Path
from typing import Any

from vlc.storage import Appended, Place, append_to, working_folder

_START = 1  # SessionLog.START


class Board:
    """Scalars for TensorBoard; after an error they go on in a new file.

    Attributes:
        name: For messages.
    """

    def __init__(self, folder: Place, first_step: int):
        self.name = str(folder)
        self._folder, self._first_step = folder, first_step
        self._writer: Any = None
        self._copy: _Copy | None = None

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        """Raises `OSError` where the disk does."""
        from tensorboardX.summary import scalar  # slow to import, and only the primary process needs it

        try:
            writer = self._opened()
            for name, value in metrics.items():
                if isinstance(value, (int, float)):
                    writer.write_event(_event(step, summary=scalar(name, value)))
            writer.flush()
            if self._copy is not None:
                self._copy.catch_up()
        except OSError:
            self._writer = self._copy = None
            raise

    def _opened(self) -> Any:
        """The file; its first event says that what older files have after the first step does not count."""
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter

            folder = working_folder(self._folder)
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            if not isinstance(self._folder, Path):
                written = Path(self._writer._file_name)
                self._copy = _Copy(written, append_to(self._folder / written.name, b""))
            self._writer.write_event(_event(self._first_step, session_log={"status": _START}))
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._copy is not None:
            self._copy.catch_up()
            self._copy.close()


class _Copy:
    """What is written to a file on the disk, in a bucket as well."""

    def __init__(self, written: Path, to: Appended):
        self._written, self._to, self._done = written, to, 0

    def catch_up(self) -> None:
        with self._written.open("rb") as file:
            file.seek(self._done)
            data = file.read()
        self._done += len(data)
        self._to.write(data)

    def close(self) -> None:
        self._to.close()


def _event(step: int, **content: Any) -> Any:
    from tensorboardX.proto import event_pb2

    return event_pb2.Event(wall_time=time.time(), step=step, **content)  # pyright: ignore[reportAttributeAccessIssue]
