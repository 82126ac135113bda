"""How long process 0 takes to hear the processes of a large pod with long host names, and how it names missing ones.

    python benchmarks/roll_call.py [--processes 4096] [--out benchmarks/results/roll_call.json]

The others are stand-ins: sockets that say what a process says at the start, several hundred to a real process.
"""

import argparse
import json
import multiprocessing
import socket
import time
from pathlib import Path

from vlc.errors import StartError
from vlc.parallel import ProcessInfo
from vlc.parallel.rendezvous import _hear, _send, rendezvous

SAME = {"config": "0123456789ab", "version of vlc": "1", "version of jax": "1"}
EACH = 512  # stand-ins of a real process


def host(index: int) -> str:
    """A name of 63 letters, the longest label of a host name."""
    return f"{index:05d}-".ljust(63, "x")


def stand_in(port: int, count: int, indices: list[int], heard) -> None:
    """Says hello as these processes, then waits for the answers."""
    connections = []
    for index in indices:
        while True:
            try:
                connections.append(socket.create_connection(("localhost", port), timeout=30))
                break
            except OSError:
                time.sleep(0.1)
        _send(connections[-1], {"hello": index, "count": count, "host": host(index), "about": SAME})
    answers = [_hear(connection, 120) for connection in connections]
    heard.put(sum(bool(answer and "go" in answer) for answer in answers))


def call(count: int, missing: int, timeout: float) -> tuple[float, int, str]:
    """Seconds, how many were told to go, and the error."""
    with socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
    heard = multiprocessing.Queue()
    present = list(range(1, count - missing))
    parts = [present[start : start + EACH] for start in range(0, len(present), EACH)]
    children = [multiprocessing.Process(target=stand_in, args=(port, count, part, heard)) for part in parts]
    for child in children:
        child.start()
    begun, error = time.perf_counter(), ""
    try:
        watch = rendezvous(
            ProcessInfo(0, count, f"localhost:{port}"), SAME, timeout=timeout, heartbeat_timeout=300, leave=print
        )
        watch.close()
    except StartError as problem:
        error = str(problem)
    seconds = time.perf_counter() - begun
    told = sum(heard.get(timeout=180) for _ in children)
    for child in children:
        child.join()
    return seconds, told, error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=4096)
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    seconds, told, _ = call(options.processes, 0, 60)
    _, _, error = call(options.processes, 100, 15)
    found = {"processes": options.processes, "letters of a host name": 63, "seconds": round(seconds, 2),
             "told to go": told, "with 100 missing": error}  # fmt: skip
    print(json.dumps(found, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
