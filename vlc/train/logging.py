"""What a run tells: a progress line, `metrics.jsonl`, TensorBoard."""

import json
import math
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from vlc.parallel import is_primary, print_once
from vlc.train.feed import slow_stage

_WAIT_SHOWN = 0.05  # a smaller share of waiting is not worth a word


class MetricLog:
    """Writes metrics to `workdir/metrics.jsonl` and `workdir/tensorboard`.

    After a resume the lines of steps that will be taken again are dropped, so that each step stands there once.
    Of several processes only the first writes.
    """

    def __init__(self, workdir: Path, first_step: int):
        self._writes = is_primary()
        if not self._writes:
            return
        self.path = workdir / "metrics.jsonl"
        _drop_from(self.path, first_step)
        from tensorboardX import SummaryWriter  # slow to import, and only the primary process needs it

        self._file = self.path.open("a")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=first_step)

    def write(self, step: int, metrics: dict[str, Any]) -> None:
        if not self._writes:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writes:
            self._file.close()
            self._board.close()


def _drop_from(path: Path, first_step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # the line that was being written when the run was killed
        if row["step"] <= first_step:
            kept.append(line + "\n")
    path.write_text("".join(kept))


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
