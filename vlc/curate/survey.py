"""A survey of every record of a source, by which filters, statistics and builds decide."""

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from vlc.curate.duplicates import perceptual_hash
from vlc.data.decoding import examine
from vlc.data.parts import Parts
from vlc.data.record import Source, flatten_captions
from vlc.data.table import TEXT, Table, list_of, write_table
from vlc.data.workers import share_work
from vlc.errors import DataError

_PART = 500  # records between two saves
_SCHEMA = pa.schema(
    {
        "key": TEXT,
        "reason": TEXT,  # why it cannot be used; empty where it can
        "message": TEXT,
        "bytes": pa.int64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "format": TEXT,
        "hash": pa.uint64(),
        "sources": list_of(TEXT),
        "texts": list_of(TEXT),
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
        return self.table.column(name).to_numpy()

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
        lengths = pc.list_value_length(self.table.column("texts"))  # pyright: ignore[reportAttributeAccessIssue]
        return np.repeat(np.arange(len(self)), lengths.to_numpy())

    @cached_property
    def texts(self) -> "Texts":
        """All captions, which stay on disk."""
        return Texts(self.table)

    @cached_property
    def sources(self) -> np.ndarray:
        """The caption source of each caption `[M]`."""
        flat: Any = pc.list_flatten(self.table.column("sources"))  # pyright: ignore[reportAttributeAccessIssue]
        names = flat.combine_chunks().dictionary_encode()
        return np.array(names.dictionary.to_pylist(), object)[names.indices.to_numpy()]

    def skipped(self) -> dict[str, int]:
        """Records that cannot be used, by reason."""
        names, counts = np.unique(self.reasons[~self.usable].astype(str), return_counts=True)
        return dict(zip(names.tolist(), counts.tolist(), strict=True))

    def messages(self, count: int) -> list[str]:
        """What was said of the first records that cannot be used."""
        return [self.table.get("message", int(i)) for i in np.flatnonzero(~self.usable)[:count]]


class Texts:
    """The captions of a survey, read where they are asked for."""

    def __init__(self, table: Table):
        self._parts = [chunk.flatten() for chunk in table.column("texts").chunks]
        self._places = Parts(len(part) for part in self._parts)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: SupportsIndex) -> str:
        part, place = self._places.find(index.__index__())
        return self._parts[part][place].as_py()

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from part.to_pylist()


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
        rows = (row for part in parts for row in Table(part).rows())
        write_table(final, rows, _SCHEMA, dict)
        for part in parts:
            part.unlink()
    return Survey(Table(final))


def _examine_part(source: Source, task: tuple[range, Path]) -> None:
    indices, path = task
    write_table(path, (examine_record(source, index) for index in indices), _SCHEMA, dict)


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
