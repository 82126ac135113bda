"""What a run tells: a progress line, `metrics.jsonl`, TensorBoard. None of them ever stops a run."""

import json
import logging
import math
import sys
import time
from collections import deque
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vlc.parallel import is_primary, print_once
from vlc.storage import Place, append_to
from vlc.train.feed import slow_stage
from vlc.train.tensorboard import Board

_WAIT_SHOWN = 0.05  # a smaller share of waiting is not worth a word
log = logging.getLogger("vlc")


class MetricLog:
    """Writes metrics to `workdir/metrics.jsonl` and `workdir/tensorboard`.

    After a resume the lines of steps that will be taken again are dropped, so that each step stands there once.
    Of several processes only the first writes. Where the disk is full, or gone, the run goes on without a log, says so
    once, and writes again as soon as that works.
    """

    def __init__(self, workdir: Place, first_step: int):
        self._parts: list[_Lines | Board] = [
            _Lines(workdir / "metrics.jsonl", first_step),
            Board(workdir / "tensorboard", first_step),
        ]
        self._failed: set[str] = set()
        if not is_primary():
            self._parts = []

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        for part in self._parts:
            try:
                part.write(step, metrics)
            except OSError as error:
                self._say(part.name, error)

    def close(self) -> None:
        for part in self._parts:
            try:
                part.close()
            except OSError as error:
                self._say(part.name, error)

    def _say(self, name: str, error: OSError) -> None:
        if name not in self._failed:
            log.warning("%s cannot be written (%s); training goes on without.", name, error.strerror)
        self._failed.add(name)


class _Lines:
    """`metrics.jsonl`: an object a line, each in one call to the system."""

    def __init__(self, path: Place, first_step: int):
        self.name = str(path)
        self._path, self._first_step = path, first_step
        self._file: Any = None
        self._torn = False

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        if self._file is None:
            self._file = append_to(self._path, _kept_lines(self._path, self._first_step))
        line = (json.dumps({"step": step, **metrics}) + "\n").encode()
        torn, self._torn = self._torn, True
        if torn:
            self._file.write(b"\n")
        if self._file.write(line) == len(line):
            self._torn = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _kept_lines(path: Place, first_step: int) -> bytes | None:
    """The lines that stay: none of steps after the first, and none that are no lines, such as one that a kill cut
    short. `None` where all stay."""
    if not path.exists():
        return None
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (step := _step_of(line)) is not None and step <= first_step]
    return b"".join(kept) if kept != lines else None


def _step_of(line: bytes) -> float | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, (int, float)) and line.endswith(b"\n") else None


class Progress:
    """One live line on a terminal, a plain line every so often elsewhere; of several processes the first shows it."""

    def __init__(self, steps: int, first_step: int, batch_size: int):
        self.steps, self.batch_size = steps, batch_size
        self._times = deque([(first_step, time.perf_counter())], maxlen=21)
        self._live = Live(console=Console(), refresh_per_second=4) if sys.stdout.isatty() and is_primary() else None
        if self._live:
            self._live.start()

    def update(self, step: int, metrics: dict[str, float]) -> dict[str, float]:
        """Shows the metrics; returns `images_per_second` over the last updates."""
        now = time.perf_counter()
        self._times.append((step, now))
        (old, then) = self._times[0]
        rate = (step - old) / max(now - then, 1e-9)
        terms = "  ".join(f"{k.removeprefix('loss/')} {v:.3f}" for k, v in metrics.items() if k.startswith("loss"))
        left = (self.steps - step) / rate if rate else math.inf
        line = f"step {step}/{self.steps}  {terms}  {rate * self.batch_size:.0f} images/s  {_clock(left)} left"
        if metrics.get("input_wait", 0) > _WAIT_SHOWN:
            line += f"  {metrics['input_wait']:.0%} waiting for input ({slow_stage(metrics)} is slowest)"
        if "mfu" in metrics:
            line += f"  MFU {metrics['mfu']:.1%}"
        if self._live:
            done = int(24 * step / self.steps)
            self._live.update(Text.assemble(("━" * done, "green"), ("━" * (24 - done), "grey37"), "  " + line))
        else:
            print_once(line)
        return {"images_per_second": rate * self.batch_size}

    def close(self) -> None:
        if self._live:
            self._live.stop()


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
