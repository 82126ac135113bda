"""Bags of records that look alike, so that those of one bag stand side by side in a batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from vlc.errors import ConfigError, DataError
from vlc.storage import local_copy


@dataclass(frozen=True)
class Bags:
    """Bags, and how many records of each are used at which step.

    Attributes:
        members: Numbers of records, those that are most alike first.
        sizes: From which step on how many of each bag: `((0, 3), (500, 5))`.
    """

    members: Int[np.ndarray, "M S"]
    sizes: tuple[tuple[int, int], ...]

    def size_at(self, step: int) -> int:
        """Records of a bag in the batch of a step."""
        return max(entry for entry in self.sizes if entry[0] <= step)[1]

    def place(self, batch: int, row: int, rows: int) -> tuple[int, int]:
        """The number of the bag, of all that training takes one after another, that a row of a batch is of, and its
        place in it. A batch that is no multiple of the size ends with a part of a bag."""
        before = 0
        ends = [step for step, _ in self.sizes[1:]]
        for (first, size), end in zip(self.sizes, [*ends, batch], strict=True):
            before += max(0, min(end, batch) - first) * -(-rows // size)
        return before + row // self.size_at(batch), row % self.size_at(batch)


def read_bags(path: str | Path, sizes: Mapping[int, int], records: int, rows: int) -> Bags:
    """Reads what `vlc data bags` wrote.

    Args:
        path: The file.
        sizes: From which step on how many of each bag; empty: all.
        records: Of the data that it is to be of.
        rows: Of a batch.

    Raises:
        DataError: It cannot be read, or is of other data.
        ConfigError: The sizes are more than its bags or a batch have, or do not begin at step 0.
    """
    found = read_file(path)
    if found["records"] != records:
        raise DataError(
            f"{path}: is of data with {found['records']:,} records, and these have {records:,}: mine their own with "
            "vlc data bags."
        )
    members = np.asarray(found["bags"], np.int64)
    chosen = tuple(sorted(sizes.items())) or ((0, members.shape[1]),)
    if chosen[0][0] != 0:
        raise ConfigError(f"config.data.bag_sizes begins at step {chosen[0][0]}; it must say the size at step 0.")
    for step, size in chosen:
        if not 2 <= size <= min(members.shape[1], rows):
            raise ConfigError(
                f"config.data.bag_sizes: {size} at step {step} is not from 2 to {min(members.shape[1], rows)} (the "
                f"bags of {path} have {members.shape[1]}, a batch {rows})."
            )
    return Bags(members, chosen)


def read_file(path: str | Path) -> dict[str, Any]:
    """A file of bags as it is: `records`, `size` and `bags`.

    Raises:
        DataError: It cannot be read, or is none.
    """
    try:
        found = json.loads(local_copy(path).read_text(encoding="utf-8"))
        bags: Sequence[Sequence[int]] = found["bags"]
        right = bags and all(len(bag) == found["size"] and max(bag) < found["records"] for bag in bags)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no file of bags, as vlc data bags writes it ({error}).") from error
    if not right:
        raise DataError(f"{path}: its bags are not all of {found['size']} records, or there is none.")
    return found
