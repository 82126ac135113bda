"""A survey of every record of a source, by which filters, statistics and builds decide."""

import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from vlc.curate.duplicates import perceptual_hash
from vlc.data.images import examine
from vlc.data.record import Source, flatten_captions
from vlc.data.table import Table, write_table
from vlc.data.workers import share_work
from vlc.errors import DataError

_PART = 500  # records between two saves
_SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "reason": pa.string(),  # why it cannot be used; empty where it can
        "message": pa.string(),
        "bytes": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "format": pa.string(),
        "hash": pa.uint64(),
        "sources": pa.list_(pa.string()),
        "texts": pa.list_(pa.string()),
    }
)


@dataclass(frozen=True)
class Survey:
    """What was found, a row a record, in the order of the source."""

    table: Table

    def __len__(self) -> int:
        return len(self.table)

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers `[N]`."""
        return self.table.column(name).to_numpy(zero_copy_only=False)

    @cached_property
    def reasons(self) -> np.ndarray:
        """Why each record cannot be used `[N]`; empty where it can."""
        return np.array(self.table.column("reason").to_pylist(), object)

    @cached_property
    def usable(self) -> np.ndarray:
        """Whether each record can be used `[N]`."""
        return self.reasons == ""

    @cached_property
    def owner(self) -> np.ndarray:
        """The record of each caption `[M]`; captions stand in the order of the records."""
        return np.repeat(np.arange(len(self)), self.table.column("texts").value_lengths().to_numpy())

    @cached_property
    def texts(self) -> list[str]:
        """All captions."""
        return self.table.column("texts").flatten().to_pylist()

    @cached_property
    def sources(self) -> np.ndarray:
        """The caption source of each caption `[M]`."""
        return np.array(self.table.column("sources").flatten().to_pylist(), object)

    def skipped(self) -> dict[str, int]:
        """Records that cannot be used, by reason."""
        names, counts = np.unique(self.reasons[~self.usable].astype(str), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def messages(self, count: int) -> list[str]:
        """What was said of the first records that cannot be used."""
        return [self.table.get("message", int(i)) for i in np.flatnonzero(~self.usable)[:count]]


def survey(source: Source, folder: Path, *, workers: int = 0) -> Survey:
    """Looks at every record, and keeps what it finds in a folder, from which a run that was stopped goes on.

    Each image is read to its end at reduced scale, so that truncated ones are found.

    Args:
        source: Any source.
        folder: Kept by the caller; of one source only.
        workers: Processes.
    """
    final = folder / "survey.arrow"
    if not final.exists():
        ranges = [range(start, min(start + _PART, len(source))) for start in range(0, len(source), _PART)]
        parts = [folder / f"survey-{indices.start:012d}.arrow" for indices in ranges]
        todo = [(indices, part) for indices, part in zip(ranges, parts, strict=True) if not part.exists()]
        for _ in share_work(_examine_part, source, todo, workers):
            pass
        rows = (row for part in parts for row in _rows(Table(part)))
        write_table(final, rows, _SCHEMA, dict)
        for part in parts:
            part.unlink()
    return Survey(Table(final))


def _examine_part(source: Source, task: tuple[range, Path]) -> None:
    indices, path = task
    write_table(path, (examine_record(source, index) for index in indices), _SCHEMA, dict)


def _rows(table: Table):
    columns = [table.column(name).to_pylist() for name in _SCHEMA.names]
    return zip(*columns, strict=True)


def examine_record(source: Source, index: int) -> tuple[Any, ...]:
    """The row of one record."""
    key = ""
    try:
        record = source[index]
        key = record.key
        captions = flatten_captions(record.captions)
        if isinstance(record.image, np.ndarray):
            height, width = record.image.shape[:2]
            picture, kind, size = Image.fromarray(record.image), "pixels", record.image.nbytes
        else:
            seen = examine(record.image, where=key)
            width, height, picture, kind, size = seen.width, seen.height, seen.picture, seen.format, len(record.image)
    except DataError as error:
        return (key, error.reason, str(error)[:500], 0, 0, 0, "", 0, [], [])
    names, texts = [name for name, _ in captions], [text for _, text in captions]
    return (key, "", "", size, width, height, kind, perceptual_hash(picture), names, texts)


@lru_cache(maxsize=1 << 16)
def script_of(letter: str) -> str:
    """The script of a letter, by the first word of its Unicode name: `latin`, `cjk`, `cyrillic`, ...; else empty."""
    return unicodedata.name(letter, "").partition(" ")[0].partition("-")[0].lower() if letter.isalpha() else ""


def scripts_of(text: str) -> dict[str, int]:
    """Letters by script."""
    counts: dict[str, int] = {}
    for letter in text:
        script = script_of(letter)
        if script:
            counts[script] = counts.get(script, 0) + 1
    return counts
