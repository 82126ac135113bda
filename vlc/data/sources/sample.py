"""Evenly spaced records of a source, to try something on a part of it."""

from dataclasses import dataclass

from vlc.data.record import Record, Source, skipped_of


@dataclass(frozen=True)
class Sample:
    """`count` records, evenly spaced; all of them where the source has no more.

    Attributes:
        source: Any source.
        count: Records at the most.
    """

    source: Source
    count: int

    @property
    def skipped(self) -> dict[str, int]:
        """Records left out of the source's index, by reason."""
        return skipped_of(self.source)

    def __len__(self) -> int:
        return min(self.count, len(self.source))

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self.source[index * len(self.source) // len(self)]
