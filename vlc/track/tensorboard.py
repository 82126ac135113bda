"""TensorBoard's files, in `workdir/tensorboard`.

tensorboardX's `SummaryWriter` hands events to a thread of its own. When the disk is full that thread dies, and the next
call waits for it for ever; so here its record writer is used directly, and an error is raised where it happens.
"""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlc.storage import Appended, append_to, working_folder
from vlc.track.tracker import TrackedRun, Tracker

_START = 1  # SessionLog.START


class Tool(Tracker):
    name = "TensorBoard"
    goes_back = True

    def __init__(self) -> None:
        self._run: TrackedRun | None = None
        self._writer: Any = None
        self._copy: _Copy | None = None

    def start(self, run: TrackedRun) -> None:
        self._run, self.name = run, str(run.workdir / "tensorboard")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        from tensorboardX.summary import scalar  # slow to import, and only the primary process needs it

        self._add([_event(step, summary=scalar(name, value)) for name, value in metrics.items()])

    def picture(self, step: int, name: str, png: bytes) -> None:
        from PIL import Image
        from tensorboardX.proto import summary_pb2

        width, height = Image.open(io.BytesIO(png)).size
        kind: Any = summary_pb2
        image = kind.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._add([_event(step, summary=kind.Summary(value=[kind.Summary.Value(tag=name, image=image)]))])

    def _add(self, events: list[Any]) -> None:
        """After an error the next ones go to a new file."""
        try:
            writer = self._opened()
            for event in events:
                writer.write_event(event)
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

            assert self._run is not None
            place = self._run.workdir / "tensorboard"
            folder = working_folder(place)
            folder.mkdir(parents=True, exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            if not isinstance(place, Path):
                written = Path(self._writer._file_name)
                self._copy = _Copy(written, append_to(place / written.name, b""))
            self._writer.write_event(_event(self._run.first_step, session_log={"status": _START}))
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
