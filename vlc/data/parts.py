"""One sequence made of several, such as the shards of a dataset."""

from collections.abc import Iterable

import numpy as np


class Parts:
    """Finds in which part a position lies.

    Attributes:
        starts: Position of the first record of each part, and the number of all after the last.
    """

    def __init__(self, lengths: Iterable[int]):
        self.starts = np.cumsum([0, *lengths])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def find(self, index: int) -> tuple[int, int]:
        """The part, and the position in it.

        Raises:
            IndexError: There is no such position.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return part, index - int(self.starts[part])
