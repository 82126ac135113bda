"""Several processes of one run on this machine: to try a pod's config, and to use a machine with several GPUs.

    python launch/local.py --processes 2 -- vlc train --config configs/quickstart.py --workdir runs/two
    python launch/local.py --processes 4 --devices 2 -- vlc train ...     # eight emulated CPU devices

On a machine with GPUs each process takes one. Each line of the processes is shown with their number. When one of them
is killed or lost, the others leave, all are started again, and the run goes on from its last checkpoint. SIGTERM asks
all of them to save and to stop.
"""

import argparse
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

FINAL = (2, 3)  # bad input, diverged: another start would end alike


class Job:
    """The processes of one attempt."""

    def __init__(self, command: list[str], count: int, env: dict[str, str]):
        self.processes = []
        for index in range(count):
            child = subprocess.Popen(
                command, env=env | {"VLC_PROCESS": str(index), "VLC_LOCAL_PROCESS": str(index)},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            )  # fmt: skip
            self.processes.append(child)
            threading.Thread(target=_show, args=(index, child), daemon=True).start()

    def signal(self, number: int) -> None:
        for child in self.processes:
            if child.poll() is None:
                child.send_signal(number)

    def wait(self, grace: float) -> list[int]:
        """Statuses of all; when one has failed, the others have so many seconds to leave by themselves."""
        deadline = None
        while any(child.poll() is None for child in self.processes):
            if deadline is None and any(child.poll() for child in self.processes):
                deadline = time.monotonic() + grace
            if deadline is not None and time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
            time.sleep(0.1)
        return [_as_shells_do(child.wait()) for child in self.processes]


def _as_shells_do(status: int) -> int:
    """128 + N for a process that signal N ended."""
    return 128 - status if status < 0 else status


def _show(index: int, child: subprocess.Popen) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        print(f"[{index}] {line}", end="", flush=True)


def free_port() -> int:
    """A port that is free, and so is the next; below those that the system gives to connections of others."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000, 2)
        with contextlib.suppress(OSError), socket.socket() as first, socket.socket() as second:
            first.bind(("", port))
            second.bind(("", port + 1))
            return port


def launch(command: list[str], *, processes: int, devices: int, restarts: int, grace: float) -> int:
    """Runs the command to its end, starting it again where a process was lost; returns its status."""
    env = dict(os.environ, VLC_PROCESSES=str(processes), VLC_LOCAL_PROCESSES=str(processes))
    if devices:
        env |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    stopping = threading.Event()
    job: Job | None = None

    def stop(number: int, frame: object) -> None:
        del number, frame
        stopping.set()
        if job is not None:
            job.signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    statuses = [0]
    for attempt in range(restarts + 1):
        # With one process nothing is set, and it is alone.
        together = {"VLC_COORDINATOR": f"localhost:{free_port()}"} if processes > 1 else {}
        job = Job(command, processes, env | together)
        statuses = job.wait(grace)
        final = [status for status in statuses if status in FINAL]
        if not any(statuses) or stopping.is_set() or final:
            return final[0] if final else max(statuses)
        print(f"launch: the processes ended with {statuses} (attempt {attempt + 1} of {restarts + 1}).", flush=True)
    return max(statuses)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--devices", type=int, default=0, help="emulated CPU devices of each process; 0: real devices")
    parser.add_argument("--restarts", type=int, default=3, help="how often all are started again")
    parser.add_argument("--grace", type=float, default=90, help="seconds for the others to leave when one has failed")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("name the command: launch/local.py --processes 2 -- vlc train ...")
    return launch(
        command, processes=options.processes, devices=options.devices, restarts=options.restarts, grace=options.grace
    )


if __name__ == "__main__":
    sys.exit(main())
