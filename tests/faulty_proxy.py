"""A proxy before a bucket server that delays, refuses, resets connections and cuts replies short, as networks do."""

import contextlib
import http.client
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}


@dataclass
class Faults:
    """What goes wrong.

    Attributes:
        delay: Seconds before every reply.
        busy_until: Time (`time.monotonic`) until which all is answered by 503.
        reset_every: Every so many-th request its connection is reset; 0: none.
        cut_every: Every so many-th reply with a body ends after half of it; 0: none.
        busy_at: The request from which on all is answered by 503, for `busy_for` seconds; 0: none.
        forbidden: All is answered by 403.
        requests: How many there were.
    """

    delay: float = 0.0
    busy_until: float = 0.0
    reset_every: int = 0
    cut_every: int = 0
    busy_at: int = 0
    busy_for: float = 0.0
    forbidden: bool = False
    requests: int = 0
    _count: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@contextlib.contextmanager
def faulty_proxy(upstream: str, faults: Faults) -> Iterator[str]:
    """Serves an upstream server with faults; gives the proxy's URL."""
    address = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            number = next(faults._count)
            faults.requests = number
            if number == faults.busy_at:
                faults.busy_until = time.monotonic() + faults.busy_for
            body = self._body()
            time.sleep(faults.delay)
            if faults.reset_every and number % faults.reset_every == 0:
                self._reset()
            elif time.monotonic() < faults.busy_until:
                self._send(503, [], b"busy")
            elif faults.forbidden:
                self._send(403, [], b"forbidden")
            else:
                self._pass_on(number, body)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                chunks = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _pass_on(self, number: int, body: bytes) -> None:
            server = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
            given = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
            server.request(self.command, self.path, body, given)
            answer = server.getresponse()
            data = answer.read()
            headers = [(name, value.replace(upstream, self._own())) for name, value in answer.getheaders()]
            cut = bool(faults.cut_every and data and number % faults.cut_every == 0)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._send(answer.status, headers, data, cut=cut, length=length)
            server.close()

        def _own(self) -> str:
            return f"http://127.0.0.1:{self.server.server_address[1]}"

        def _send(
            self, status: int, headers: list, data: bytes, *, cut: bool = False, length: str | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in _HOP | {"server", "date"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def _reset(self) -> None:
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().handle()

    for method in ("GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"):
        setattr(Handler, f"do_{method}", Handler.forward)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
