"""A rendezvous before the processes of a run start, and a watch that notices when one of them is lost.

`jax.distributed` aborts without a name when a process does not come, and a process that died may leave the others
waiting in a collective. So each process keeps one plain TCP connection to process 0. At the start it says who it is and
what it is about to run; from then on it sends heartbeats. When a process is lost, all others name it and exit.
"""

import json
import os
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vlc.errors import StartError
from vlc.parallel.process_info import ProcessInfo
from vlc.parallel.stop import Stop

EXIT_LOST = 76  # another process is gone; start all of them again
_RETRY = 0.2  # seconds between two attempts to reach process 0
_LONGEST = 1 << 16  # bytes of a message; a connection that sends more is closed
_OTHER_FILES = 1024  # that a process opens besides the connections to the others
_NAMED = 5  # processes that a message names; of the others it says how many there are


@dataclass
class Watch:
    """The connections of a run that has started. None of the methods waits for another process.

    Attributes:
        place: This process's.
        peers: Its connections by the number of the process there: all others for process 0, 0 for the others.
        silence: Seconds without a beat after which a process is taken for lost.
        leave: Called with the message and the exit status when another process is gone; does not return.
        hosts: The hosts of the processes that this one is connected to, as they told at the rendezvous.
        stop: How all agree to stop early.
    """

    process: ProcessInfo
    peers: dict[int, socket.socket]
    heartbeat_timeout: float
    leave: Callable[[str, int], None]
    hosts: dict[int, str]
    stop: Stop = field(init=False)
    _closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.stop = Stop(self.process, self._tell)

    def begin(self) -> "Watch":
        """Beats and listens from now on, in two threads."""
        for run in (self._beat, self._listen):
            threading.Thread(target=run, name="vlc-watch", daemon=True).start()
        return self

    def close(self) -> None:
        """Tells the others that this process is done, so that it is not taken for lost."""
        self._tell({"bye": True})
        self._closing.set()

    def fail(self, message: str, status: int) -> None:
        """Tells the others why this process stops, so that they stop with the same status."""
        who = _named(self.process.index, {self.process.index: socket.gethostname()})
        self._tell({"gone": who, "why": f"stopped: {message}"[: _LONGEST // 2], "status": status})
        self._closing.set()

    def _tell(self, message: dict[str, Any], *, but: int = -1) -> None:
        with self._lock:
            for index, connection in self.peers.items():
                if index != but:
                    _send(connection, message)

    def _beat(self) -> None:
        while not self._closing.wait(min(1.0, self.heartbeat_timeout / 4)):
            self._tell({"beat": True})

    def _listen(self) -> None:
        waiting = selectors.DefaultSelector()
        heard, texts = {}, {}
        for index, connection in self.peers.items():
            waiting.register(connection, selectors.EVENT_READ, index)
            heard[index], texts[index] = time.monotonic(), b""
        while heard and not self._closing.is_set():
            for key, _ in waiting.select(timeout=min(1.0, self.heartbeat_timeout / 4)):
                index, connection = key.data, self.peers[key.data]
                try:
                    data = connection.recv(_LONGEST)
                except OSError:
                    data = b""
                heard[index] = time.monotonic()
                *lines, texts[index] = (texts[index] + data).split(b"\n")
                messages = [json.loads(line) for line in lines]
                for message in messages:
                    if "gone" in message:
                        self._lost(message["gone"], message["why"], message["status"], reported_by=index)
                    elif "stop" in message:
                        self.stop.hear(index, message)
                if any("bye" in message for message in messages):
                    waiting.unregister(connection)
                    del heard[index]
                elif not data:
                    self._lost(_named(index, self.hosts), "is gone: its connection was closed", EXIT_LOST)
            now = time.monotonic()
            for index, last in heard.items():
                if now - last > self.heartbeat_timeout:
                    why = f"has been silent for {self.heartbeat_timeout:.0f} s"
                    self._lost(_named(index, self.hosts), why, EXIT_LOST)

    def _lost(self, who: str, why: str, status: int, *, reported_by: int = -1) -> None:
        if self._closing.is_set():
            return
        self._tell({"gone": who, "why": why, "status": status}, but=reported_by)
        self._closing.set()
        self.leave(f"{who} of {self.process.count} {why}", status)


def rendezvous(
    process: ProcessInfo, must_agree: dict[str, str], *, timeout: float, heartbeat_timeout: float,
    leave: Callable[[str, int], None] | None = None,
) -> Watch:  # fmt: skip
    """Waits until every process is there and all are about to run the same.

    Args:
        place: This process's.
        about: What must be equal everywhere, by name: versions, the config's digest.
        patience: Seconds to wait for the others.
        silence: See `Watch`.
        leave: See `Watch`; by default the message goes to stderr and the process ends at once.

    Raises:
        StartError: Processes are missing (each is named), came twice, or are about to run something else.
    """
    deadline = time.monotonic() + timeout
    join = _lead if process.index == 0 else _follow
    peers, hosts = join(process, must_agree, deadline, timeout)
    for connection in peers.values():
        connection.settimeout(heartbeat_timeout)
    return Watch(process, peers, heartbeat_timeout, leave or _leave_at_once, hosts).begin()


def _leave_at_once(message: str, status: int) -> None:
    """Called from a thread: the main one may wait in a collective for ever, and nothing else would end it."""
    print(f"vlc: {message}. This process leaves with status {status}.", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(status)


def _named(index: int, hosts: dict[int, str]) -> str:
    return f"process {index} ({hosts[index]})" if index in hosts else f"process {index}"


def _lead(process: ProcessInfo, must_agree: dict[str, str], deadline: float, timeout: float) -> tuple[dict, dict]:
    """Process 0: collects the others, then tells all of them to start, or why not."""
    came: dict[int, socket.socket] = {}
    hosts = {0: socket.gethostname()}
    problem = ""
    _allow_connections(process.count)
    with _listening(process) as door:
        while len(came) < process.count - 1 and not problem:
            left = deadline - time.monotonic()
            if left <= 0:
                problem = _missing(process, hosts, timeout)
                break
            door.settimeout(left)
            try:
                connection, _ = door.accept()
            except TimeoutError:
                continue
            hello = _hear(connection, min(left, 5.0))
            if hello is None or not {"hello", "count", "host", "about"} <= hello.keys():
                connection.close()  # not one of ours, such as a port scanner
                continue
            index = hello["hello"]
            problem = _objection(process, must_agree, hello, hosts)
            came[index if index not in came else -1 - len(came)] = connection
            hosts.setdefault(index, hello["host"])
    for connection in came.values():
        _send(connection, {"stop": problem} if problem else {"go": True, "host": hosts[0]})
    if problem:
        raise StartError(problem)
    return came, hosts


def _listening(process: ProcessInfo) -> socket.socket:
    _, port = process.address
    try:
        return socket.create_server(("", port), backlog=process.count, reuse_port=False)
    except OSError as error:
        raise StartError(
            f"Process 0 cannot listen on port {port} ({error.strerror}). Is another run on this host? Name another "
            "port by --coordinator."
        ) from error


def _allow_connections(count: int) -> None:
    """Raises the limit of open files, which is often 1,024, to what a connection to each process takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _missing(process: ProcessInfo, hosts: dict[int, str], timeout: float) -> str:
    missing = [process.name(i) for i in range(process.count) if i not in hosts]
    there = [_named(i, hosts) for i in sorted(hosts)]
    return (
        f"{len(missing)} of {process.count} processes did not come within {timeout:.0f} s: {_some(missing)}. "
        f"There are: {_some(there)}. Look at the logs of those that are missing, and whether they reach "
        f"{process.coordinator}."
    )


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f", and {more} more" if more > 0 else "")


def _objection(process: ProcessInfo, must_agree: dict[str, str], hello: dict[str, Any], hosts: dict[int, str]) -> str:
    """Why the run cannot start with this process; empty where it can."""
    index, who = hello["hello"], f"process {hello['hello']} ({hello['host']})"
    if hello["count"] != process.count:
        return f"{who} was started as one of {hello['count']} processes, process 0 as one of {process.count}."
    if index in hosts:
        return f"Two processes say that they are number {index}: on {hosts[index]} and on {hello['host']}."
    for name, value in must_agree.items():
        if hello["about"].get(name) != value:
            return (
                f"{who} has another {name} than process 0: {hello['about'].get(name)} instead of {value}. All "
                "processes must run the same."
            )
    return ""


def _follow(process: ProcessInfo, must_agree: dict[str, str], deadline: float, timeout: float) -> tuple[dict, dict]:
    """Another process: connects to process 0, and waits for its answer."""
    reason = ""
    while (left := deadline - time.monotonic()) > 0:
        try:
            connection = socket.create_connection(process.address, timeout=min(left, 5.0))
        except OSError as error:
            reason = error.strerror or str(error)
            time.sleep(_RETRY)
            continue
        hello = {"hello": process.index, "count": process.count, "host": socket.gethostname(), "about": must_agree}
        _send(connection, hello)
        # Process 0 knows which processes are missing, so its answer is awaited a little longer than it waits itself.
        word = _hear(connection, left + 10.0)
        if word and "go" in word:
            return {0: connection}, {0: word["host"]}
        connection.close()
        if word and "stop" in word:
            raise StartError(word["stop"])
        reason = "it closed the connection"
        time.sleep(_RETRY)
    raise StartError(
        f"{process.name(0)} was not reached at {process.coordinator} within {timeout:.0f} s ({reason}); this is "
        f"process {process.index} of {process.count}. Is process 0 running, and is the port open between the hosts?"
    )


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    try:
        connection.sendall(json.dumps(message).encode() + b"\n")
    except OSError:
        return  # it is gone, which the listener finds


def _hear(connection: socket.socket, timeout: float) -> dict[str, Any] | None:
    """One message; `None` where none comes in time, or it is none."""
    deadline = time.monotonic() + timeout
    text = b""
    try:
        while not text.endswith(b"\n") and len(text) < _LONGEST:
            connection.settimeout(max(deadline - time.monotonic(), 1e-3))
            waiting = connection.recv(_LONGEST, socket.MSG_PEEK)
            data = connection.recv(waiting.find(b"\n") + 1 or len(waiting))  # what comes after is the watch's
            if not data:
                return None
            text += data
        message = json.loads(text)
    except (OSError, ValueError):
        return None
    return message if isinstance(message, dict) else None
