"""The records of an evaluation that keeps its images in memory."""

from collections.abc import Sequence

from vlc.data.record import Record, Source, coming
from vlc.errors import DataError
from vlc.inference import Model


def good_records(source: Source, count: int) -> list[Record]:
    """Up to `count` records that can be read, evenly spaced.

    Raises:
        DataError: None can be read.
    """
    total = min(count, len(source))
    records, problems = [], []
    for index in coming(source, (i * len(source) // total for i in range(total))):
        try:
            records.append(source[index])
        except DataError as error:
            problems.append(str(error))
    if not records:
        raise DataError(f"No record can be read. The first says: {problems[0] if problems else 'the source is empty'}")
    return records


def readable(model: Model, records: Sequence[Record]) -> tuple[list[Record], dict[str, int]]:
    """The records whose images decode, and how many others there were, by reason."""
    kept, skipped = [], {}
    for record in records:
        try:
            model.preprocess(record.image, where=record.key)
            kept.append(record)
        except DataError as error:
            skipped[error.reason] = skipped.get(error.reason, 0) + 1
    if not kept:
        raise DataError(f"No image can be decoded ({skipped}).")
    return kept, skipped


def main_captions(record: Record) -> tuple[str, ...]:
    """Scenes are retrieved by their first long caption; other data by all captions of the image."""
    return record.captions["long"][:1] if "scene" in record.extra else record.all_captions()
