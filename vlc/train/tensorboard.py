"""TensorBoard files, written by the thread that has something to say.

tensorboardX's `SummaryWriter` hands events to a thread of its own. When the disk is full that thread dies, and the next
call waits for it for ever; so here its record writer is used directly, and an error is raised where it happens.
"""

import time
from pathlib import Path
from typing import Any

_START = 1  # SessionLog.START


class Board:
    """Scalars for TensorBoard; after an error they go on in a new file.

    Attributes:
        name: For messages.
    """

    def __init__(self, folder: Path, first_step: int):
        self.name = str(folder)
        self._folder, self._first_step = folder, first_step
        self._writer: Any = None

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        """Raises `OSError` where the disk does."""
        from tensorboardX.summary import scalar  # slow to import, and only the primary process needs it

        try:
            writer = self._opened()
            for name, value in metrics.items():
                if isinstance(value, (int, float)):
                    writer.write_event(_event(step, summary=scalar(name, value)))
            writer.flush()
        except OSError:
            self._writer = None
            raise

    def _opened(self) -> Any:
        """The file; its first event says that what older files have after the first step does not count."""
        if self._writer is None:
            from tensorboardX.event_file_writer import EventsWriter

            self._folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(self._folder / "events"))
            self._writer.write_event(_event(self._first_step, session_log={"status": _START}))
        return self._writer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _event(step: int, **content: Any) -> Any:
    from tensorboardX.proto import event_pb2

    return event_pb2.Event(wall_time=time.time(), step=step, **content)  # pyright: ignore[reportAttributeAccessIssue]
