"""A part of a source: some of its records, with some of their captions."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vlc.data.filters import Filtered, parse_filters, run_filters
from vlc.data.record import Record, Source, skipped_of
from vlc.data.sources import open_source
from vlc.data.survey import Survey, survey
from vlc.data.table import Table, write_table

_SCHEMA = pa.schema({"index": pa.int64(), "captions": pa.list_(pa.int32())})


@dataclass(frozen=True)
class Selection:
    """Records of a source that were chosen once, before training.

    Attributes:
        source: What they are chosen from.
        table: Index and, where not all are kept, the positions of the captions that are.
    """

    source: Source
    table: Table

    @property
    def skipped(self) -> dict[str, int]:
        """Records left out of the source's index, and those left out here, by reason."""
        total = dict(skipped_of(self.source))
        for reason, count in self.table.notes["skipped"].items():
            total[reason] = total.get(reason, 0) + count
        return total

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """What each filter dropped."""
        return self.table.notes["filters"]

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        record = self.source[self.table.get("index", index)]
        kept = self.table.get("captions", index)
        if kept is None:
            return record
        pairs = [(name, text) for name, texts in record.captions.items() for text in texts]
        captions: dict[str, tuple[str, ...]] = {}
        for position in kept:
            name, text = pairs[position]
            captions[name] = (*captions.get(name, ()), text)
        return replace(record, captions=captions)


def select(source: Source, filters: Sequence[str], folder: Path, *, workers: int = 0) -> Selection:
    """Surveys a source, applies filters, and keeps which records are left.

    Args:
        source: Any source.
        filters: Steps, see `vlc.data.filters`; the records that cannot be used are left out in any case.
        folder: Where the survey and the selection are kept; found there again by a later call.
        workers: Processes of the survey.

    Raises:
        ConfigError: A filter is unknown or malformed.
    """
    path = folder / f"selection-{zlib.crc32(repr(list(filters)).encode()):08x}.arrow"
    if not path.exists():
        steps = parse_filters(filters)
        found = survey(source, folder, workers=workers)

        def open_survey(spec: str) -> Survey:
            other = folder / f"other-{zlib.crc32(spec.encode()):08x}"
            return survey(open_source(spec), other, workers=workers)

        left = run_filters(found, steps, open_survey)
        notes = {"filters": list(left.counts), "skipped": found.skipped(), "messages": found.messages(10)}
        write_table(path, _rows(found, left), _SCHEMA, lambda: notes)
    return Selection(source, Table(path))


def _rows(found: Survey, left: Filtered) -> Iterable[tuple[int, list[int] | None]]:
    ends = np.cumsum(np.bincount(found.owner, minlength=len(found)))
    for index in np.flatnonzero(left.images):
        kept = left.captions[(ends[index - 1] if index else 0) : ends[index]]
        yield int(index), None if kept.all() else np.flatnonzero(kept).tolist()
