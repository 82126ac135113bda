"""Faults in runs of two processes: each must end with the very examples and losses of a run that nothing happened to.

    python benchmarks/faults.py --out benchmarks/results/faults.json        # as root, on Linux

Killed, stopped and interrupted processes, a full disk, a damaged checkpoint, a lost network: for each the seconds from
the fault until the launcher had noticed that processes had ended, and whether the run came to its end by itself (else
by the same command again).
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
STEPS, SILENCE = 20, 10


class Run:
    """A run under launch/local.py, with what it said."""

    def __init__(self, folder: Path):
        self.folder, self.said = folder, ""
        self.start()

    def start(self) -> None:
        local = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes", "2", "--devices", "2"]
        train = [sys.executable, "-m", "vlc.cli", "train", "--config", "configs/quickstart.py:smoke"]
        settings = [f"--config.steps={STEPS}", "--config.log_every=1", "--config.checkpoint.every=4"]
        settings += [
            "--config.objectives.filip.weight=0.0",
            "--config.eval.every=1000",
            "--heartbeat-timeout",
            str(SILENCE),
        ]
        self.job = subprocess.Popen(
            [*local, "--grace", "20", "--", *train, "--workdir", str(self.folder), *settings],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.job.stdout is not None
        for line in self.job.stdout:
            self.said += line

    def wait_for(self, text: str, timeout: float = 240) -> None:
        end = time.monotonic() + timeout
        while not re.search(text, self.said):
            if time.monotonic() > end:
                raise SystemExit(f"{text} was not said:\n{self.said}")
            time.sleep(0.02)

    def pid(self, index: int) -> int:
        wanted, number = {b"train", b"vlc.cli", str(self.folder).encode()}, f"VLC_PROCESS={index}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                if wanted <= set(words) and number in (path / "environ").read_bytes().split(b"\0"):
                    return int(path.name)
        raise SystemExit(f"process {index} is not there")

    def hit(self, index: int, number: int) -> None:
        os.kill(self.pid(index), number)

    def metrics(self) -> dict[int, dict]:
        rows = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return {row["step"]: row for row in rows if "loss" in row}

    def steps(self) -> list[int]:
        return sorted(int(path.name) for path in (self.folder / "checkpoints").iterdir() if path.name.isdigit())


def killed(index: int) -> Callable[[Run], None]:
    return lambda run: run.hit(index, signal.SIGKILL)


def stopped(index: int) -> Callable[[Run], None]:
    return lambda run: run.hit(index, signal.SIGSTOP)


def terminated(run: Run) -> None:
    run.hit(1, signal.SIGTERM)


def launcher_terminated(run: Run) -> None:
    run.job.send_signal(signal.SIGTERM)


def both_killed(run: Run) -> None:
    for index in (0, 1):
        run.hit(index, signal.SIGKILL)


def damaged(run: Run) -> None:
    """The newest checkpoint loses a byte's bit, and a process dies."""
    newest = run.folder / "checkpoints" / str(run.steps()[-1])
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 16
    largest.write_bytes(data)
    run.hit(1, signal.SIGKILL)


def full_disk(run: Run) -> None:
    """All that is left of the disk is taken until the run complains, then given back."""
    hog = run.folder / "hog"
    with contextlib.suppress(OSError), hog.open("wb") as file:
        while True:
            file.write(b"\0" * 65536)
    run.wait_for("could not be written|No space left")
    run.job.wait(120)
    hog.unlink()


def no_network(run: Run) -> None:
    """All packets between the two processes are dropped until they notice, then let through again."""
    open_now = [one for index in (0, 1) for one in psutil.Process(run.pid(index)).net_connections()]
    ports = {str(one.laddr.port) for one in open_now if one.laddr}
    rules = [["-p", "tcp", f"--{way}", port, "-j", "DROP"] for port in ports for way in ("dport", "sport")]
    for rule in rules:
        subprocess.run(["iptables", "-I", "INPUT", *rule], check=True)
    try:
        run.wait_for("has been silent")
    finally:
        for rule in rules:
            subprocess.run(["iptables", "-D", "INPUT", *rule], check=True)


FAULTS: dict[str, tuple[str, Callable[[Run], None]]] = {
    "kill -9 of process 1": ("step 6/", killed(1)),
    "kill -9 of process 0": ("step 6/", killed(0)),
    "kill -9 while a checkpoint is written": ("step 8/", killed(1)),
    "kill -9 of both": ("step 7/", both_killed),
    "kill -9 before the first step": ("on 4 cpu", killed(1)),
    "SIGTERM to process 1": ("step 6/", terminated),
    "SIGTERM to the launcher": ("step 6/", launcher_terminated),
    "SIGSTOP of process 1": ("step 6/", stopped(1)),
    "SIGSTOP of process 0": ("step 6/", stopped(0)),
    "newest checkpoint damaged": ("step 10/", damaged),
    "disk full": ("step 6/", full_disk),
    "network lost": ("step 6/", no_network),
}


def try_fault(name: str, wanted: dict[int, dict]) -> dict:
    when, fault = FAULTS[name]
    folder = Path(tempfile.mkdtemp(prefix="vlc-fault-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=True)
    try:
        run = Run(folder / "run")
        run.wait_for(when)
        begun = time.monotonic()
        fault(run)
        run.wait_for("launch: the processes ended|Asked to stop|could not be written|No space left")
        noticed = time.monotonic() - begun
        by_itself = run.job.wait(300) == 0
        if not by_itself:
            run.start()
            if run.job.wait(300):
                return {"recovered": False, "said": run.said[-2000:]}
        rows = run.metrics()
        same = rows.keys() == wanted.keys() and all(
            row["seen"] == wanted[step]["seen"] and abs(row["loss"] / wanted[step]["loss"] - 1) < 1e-4
            for step, row in rows.items()
        )
        return {"recovered": same, "by itself": by_itself, "seconds until noticed": round(noticed, 1)}
    finally:
        subprocess.run(["umount", "-l", str(folder)])
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--faults", nargs="*", default=list(FAULTS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        undisturbed = Run(Path(name) / "run")
        if undisturbed.job.wait(300):
            raise SystemExit(undisturbed.said)
        wanted = undisturbed.metrics()
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.faults:
        found[name] = try_fault(name, wanted)
        print(name, found[name], flush=True)
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
