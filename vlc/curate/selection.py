"""A part of a source: some of its records, with some of their captions."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vlc.curate.filters import Filtered, parse_filters, run_filters
from vlc.curate.survey import Survey, survey
from vlc.data.record import Record, Source, Wrapper, add_counts, flatten_captions, group_captions
from vlc.data.sources import open_source
from vlc.data.table import Table, list_of, write_table
from vlc.errors import DataError

_SCHEMA = pa.schema({"index": pa.int64(), "captions": list_of(pa.int32())})


@dataclass(frozen=True)
class Selection(Wrapper):
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
        return add_counts(self.source.skipped, self.table.notes["skipped"])

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the first of them."""
        return (*self.source.problems, *self.table.notes["messages"])

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """What each filter dropped."""
        return self.table.notes["filters"]

    def __len__(self) -> int:
        return len(self.table)

    def _place(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self.table.get("index", index)

    def names(self, index: int) -> tuple[str, str]:
        return self.source.names(self._place(index))

    def captions(self, index: int) -> Mapping[str, tuple[str, ...]]:
        captions, kept = self.source.captions(self._place(index)), self.table.get("captions", index)
        if kept is None:
            return captions
        pairs = flatten_captions(captions)
        return group_captions(pairs[position] for position in kept)

    def __getitem__(self, index: int) -> Record:
        record = self.source[self._place(index)]
        kept = self.table.get("captions", index)
        if kept is None:
            return record
        pairs = flatten_captions(record.captions)
        scores = [(source, score) for (source, _), score in zip(pairs, record.flat_scores(), strict=True)]
        return replace(
            record,
            captions=group_captions(pairs[position] for position in kept),
            scores=group_captions(scores[position] for position in kept) if record.scores else {},
        )


def select(source: Source, filters: Sequence[str], folder: Path, *, workers: int = 0) -> Selection:
    """Surveys a source, applies filters, and keeps which records are left.

    Args:
        source: Any source.
        filters: Steps, see `vlc.curate.filters`; the records that cannot be used are left out in any case.
        folder: Where the survey and the selection are kept; found there again by a later call.
        workers: Processes of the survey.

    Raises:
        ConfigError: A filter is unknown or malformed.
        DataError: The source has another number of records than when they were selected.
    """
    path = folder / f"selection-{zlib.crc32(repr(list(filters)).encode()):08x}.arrow"
    if not path.exists():
        steps = parse_filters(filters)
        found = survey(source, folder, workers=workers)

        def open_survey(spec: str) -> Survey:
            other = folder / f"other-{zlib.crc32(spec.encode()):08x}"
            return survey(open_source(spec), other, workers=workers)

        left = run_filters(found, steps, open_survey)
        notes = {
            "of": len(source),
            "filters": list(left.counts),
            "skipped": found.skipped(),
            "messages": found.messages(10),
        }
        write_table(path, _rows(found, left), _SCHEMA, lambda: notes)
    table = Table(path)
    if table.notes["of"] != len(source):
        raise DataError(
            f"{path}: was selected from {table.notes['of']:,} records, and the source has {len(source):,} now. Use the "
            "data as it was, or another workdir."
        )
    return Selection(source, table)


def _rows(found: Survey, left: Filtered) -> Iterable[tuple[int, list[int] | None]]:
    ends = np.cumsum(np.bincount(found.owner, minlength=len(found)))
    for index in np.flatnonzero(left.images):
        kept = left.captions[(ends[index - 1] if index else 0) : ends[index]]
        yield int(index), None if kept.all() else np.flatnonzero(kept).tolist()
