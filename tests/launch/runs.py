"""Small runs of several processes, watched from outside."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.conftest import ROOT

VLC = [sys.executable, "-m", "vlc.cli"]


def train_command(workdir, steps, *more):
    """CLIP alone on scenes, which compiles in a few seconds, with the captioner's random hiding kept out."""
    return [
        *VLC, "train", "--config", str(ROOT / "configs" / "quickstart.py") + ":smoke", "--workdir", str(workdir),
        f"--config.steps={steps}", "--config.objectives.filip.weight=0.0", "--config.objectives.caption.weight=0.0",
        "--config.model.decoder.layers=0", "--config.eval.every=100000", "--config.checkpoint.every=5", *more,
    ]  # fmt: skip


def launch(processes, devices, command, **options):
    """Starts launch/local.py; its output is a pipe."""
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    local = [
        sys.executable,
        str(ROOT / "launch" / "local.py"),
        "--processes",
        str(processes),
        "--devices",
        str(devices),
    ]
    return subprocess.Popen(
        [*local, *flags, "--", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def read_until(job, text, timeout=180):
    """The lines until one that holds the text."""
    lines, end = [], time.monotonic() + timeout
    assert job.stdout is not None
    for line in job.stdout:
        lines.append(line)
        if text in line:
            return lines
        if time.monotonic() > end:
            break
    raise AssertionError(f"{text!r} was not said:\n{''.join(lines)}")


def children(workdir):
    """The training processes of a run, by their number."""
    found = {}
    for process in psutil.process_iter():
        try:
            if "train" in process.cmdline() and str(workdir) in process.cmdline():
                environment = process.environ()
                index = environment.get("VLC_PROCESS") or environment.get("SLURM_PROCID")
                if index is not None:
                    found[int(index)] = process.pid
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def hit(workdir, index, number=signal.SIGKILL):
    """Sends a signal to one process of a run."""
    os.kill(children(workdir)[index], number)


def metrics(workdir):
    """The rows of training metrics by step."""
    rows = map(json.loads, (Path(workdir) / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows if "loss" in row}
