"""Evenly spaced records of a source, to try something on a part of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from vlc.data.record import Record, Source, Wrapper


@dataclass(frozen=True)
class Sample(Wrapper):
    """`count` records, evenly spaced; all of them where the source has no more.

    Attributes:
        source: Any source.
        count: The most records.
    """

    source: Source
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def __getitem__(self, index: int) -> Record:
        return self.source[self._place(index)]

    def names(self, index: int) -> tuple[str, str]:
        return self.source.names(self._place(index))

    def captions(self, index: int) -> Mapping[str, tuple[str, ...]]:
        return self.source.captions(self._place(index))

    def _place(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return index * len(self.source) // len(self)
