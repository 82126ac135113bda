"""Where the time of a run goes: steps, and what is not steps."""

import contextlib
import time
from collections.abc import Iterator

PARTS = ("start", "compilation", "input", "checkpoint", "evaluation")


class Goodput:
    """Adds up what is spent beside training steps; the rest of the time are the steps, the goodput."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()
        self._seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    def add(self, part: str, seconds: float) -> None:
        """Counts seconds to a part of `PARTS`."""
        self._seconds[part] += seconds

    @contextlib.contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Counts the block's time to a part."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(part, time.perf_counter() - begun)

    def started(self) -> None:
        """All time until now was the start."""
        self.add("start", time.perf_counter() - self._begun)

    def shares(self) -> dict[str, float]:
        """Shares of the time since the beginning: of each part, and `steps`."""
        total = max(time.perf_counter() - self._begun, 1e-9)
        shares = {part: seconds / total for part, seconds in self._seconds.items()}
        return {"steps": max(0.0, 1 - sum(shares.values())), **shares}

    def line(self) -> str:
        """In words, without what took no time: `goodput 91%; compilation 6%, start 3%`."""
        shares = self.shares()
        rest = ", ".join(f"{part} {shares[part]:.0%}" for part in PARTS if shares[part] >= 0.005)
        return f"goodput {shares['steps']:.0%}" + (f"; {rest}" if rest else "")
