"""What will be read soon is asked for now, many requests at once: a bucket answers late, but all of them together."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

_AT_ONCE = 8  # lists of requests
_MOST = 1 << 29  # bytes that wait to be read; what was never read leaves first

Range = tuple[str, int, int]  # an object, and offset and size of a range in it


class Ahead:
    """Replies that were asked for and not yet read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._replies: OrderedDict[Range, tuple[Future[list[bytes | None]], int]] = OrderedDict()
        self._bytes = 0
        self._pool: ThreadPoolExecutor | None = None

    def ask(self, ranges: Sequence[Range], read: Callable[[Sequence[Range]], list[bytes | None]]) -> None:
        """Begins to read those that nobody has begun to read.

        Args:
            ranges: What will be asked for.
            read: Gives the bytes of each; `None` where they did not come.
        """
        with self._lock:
            new = [wanted for wanted in dict.fromkeys(ranges) if wanted not in self._replies]
            if not new:
                return
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_AT_ONCE, "vlc-ahead")
            coming = self._pool.submit(read, new)
            self._replies.update({wanted: (coming, number) for number, wanted in enumerate(new)})
            self._bytes += sum(size for _, _, size in new)
            while self._bytes > _MOST:
                (_, _, size), _ = self._replies.popitem(last=False)
                self._bytes -= size

    def take(self, wanted: Range) -> bytes | None:
        """The reply, waited for; `None` where it was not asked for, or did not come."""
        with self._lock:
            coming, number = self._replies.pop(wanted, (None, 0))
            self._bytes -= wanted[2] if coming is not None else 0
        return None if coming is None else coming.result()[number]


AHEAD = Ahead()
