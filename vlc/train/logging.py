"""What a run tells: a progress line, `metrics.jsonl`, tools such as TensorBoard. None of them ever stops a run."""

import json
import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vlc.parallel import is_primary, print_once
from vlc.storage import Place, append_to
from vlc.track import Background, known_to, open_trackers
from vlc.train.feed import slow_stage

_WAIT_SHOWN = 0.05  # a smaller share of waiting is not worth a word
log = logging.getLogger("vlc")


class MetricLog:
    """Writes metrics to `workdir/metrics.jsonl`, and tells the tools of `config.track`.

    After a resume the lines of steps that will be taken again are dropped, so that each step stands there once; a tool
    that cannot go back is not told again what it has. One that was not there before is told all that there is.
    Of several processes only the first writes. Where the disk is full, or gone, the run goes on without a log, says so
    once, and writes again as soon as that works.
    """

    def __init__(
        self, workdir: Place, first_step: int, tools: Sequence[str] = (), config: Mapping[str, Any] | None = None
    ):
        """
        Args:
            workdir: The run's.
            first_step: The step that this start goes on from.
            tools: Of `vlc.track.TRACKERS`.
            config: As JSON, for them.
        """
        self._lines: _Lines | None = None
        self._tools: list[Background] = []
        self._told: set[tuple[int, str]] = set()
        self._said = False
        if is_primary():
            self._lines = _Lines(workdir / "metrics.jsonl", first_step)
            self._open_tools(workdir, first_step, tools, config or {})

    def _open_tools(self, workdir: Place, first_step: int, tools: Sequence[str], config: Mapping[str, Any]) -> None:
        before = known_to(workdir)
        rows = _rows(workdir / "metrics.jsonl")
        self._told = {(int(row["step"]), name) for row in rows if row["step"] > first_step for name in row}
        self._tools = open_trackers(tools, workdir, config, first_step)
        for tool, background in zip(tools, self._tools, strict=True):
            if tool not in before and not background.tracker.goes_back:
                for row in rows:
                    background.write(int(row["step"]), _numbers(row))

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
        if self._lines is not None:
            self._try(lambda lines: lines.write(step, metrics))
        numbers = _numbers(metrics)
        new = {name: value for name, value in numbers.items() if (step, name) not in self._told}
        for tool in self._tools:
            told = numbers if tool.tracker.goes_back else new
            if told:
                tool.write(step, told)

    def pictures(self, step: int, pngs: Mapping[str, bytes]) -> None:
        """Shows pictures, by name, where a tool can."""
        for tool in self._tools:
            for name, png in pngs.items():
                tool.picture(step, name, png)

    def close(self) -> None:
        self._try(lambda lines: lines.close())
        for tool in self._tools:
            tool.close()

    def _try(self, call: Callable[["_Lines"], Any]) -> None:
        if self._lines is None:
            return
        try:
            call(self._lines)
        except OSError as error:
            if not self._said:
                log.warning("%s cannot be written (%s); training goes on without.", self._lines.name, error.strerror)
            self._said = True


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float)) and name != "step"}


def _rows(path: Place) -> list[dict[str, Any]]:
    """The whole lines of the log; none where it cannot be read."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines if _step_of(line) is not None]


class _Lines:
    """`metrics.jsonl`: an object a line, each in one call to the system."""

    def __init__(self, path: Place, first_step: int):
        self.name = str(path)
        self._path, self._first_step = path, first_step
        self._file: Any = None
        self._torn = False

    def write(self, step: int, metrics: Mapping[str, Any]) -> None:
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
