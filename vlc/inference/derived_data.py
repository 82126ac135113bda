"""A data set that is made of another by a model: shard by shard, and on from where it stopped."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vlc.curate.shards import GOES_ON, MANIFEST, finish_dataset, finished_shard, shard_names, start_dataset, write_shard
from vlc.data.record import Record, Source, add_counts
from vlc.errors import ConfigError, DataError
from vlc.inference.model import Model
from vlc.storage import made_for

# Records of some of the source's numbers with their images as bytes; counts in the second why others are left out.
MakeRecords = Callable[[range, dict[str, int]], Iterator[tuple[Record, bytes]]]


def write_derived(
    source: Source, out: str | Path, plan: dict[str, Any], make: MakeRecords, *, made_by: str, nothing: str
) -> dict[str, Any]:
    """Writes the records that `make` gives, and counts what it leaves out. Stopped and called again it goes on.

    Args:
        source: What is read.
        out: The folder.
        plan: All that the data set is a function of, with its `shard_records`.
        make: Gives the records.
        made_by: For the manifest.
        nothing: What is missing where no record is left, for the error.

    Raises:
        ConfigError: A shard has no record.
        DataError: The folder holds another data set, no record is left, or the disk is full.
    """
    if plan["shard_records"] < 1:
        raise ConfigError("--shard-records must be 1 or more.")
    with made_for(out, first=(MANIFEST,), resumed=True) as folder:
        manifest = start_dataset(folder, plan, {})
        try:
            return manifest or _write(source, folder, plan, make, made_by, nothing)
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror}). {GOES_ON}") from error


def in_chunks(source: Source, images: range, size: int, left_out: dict[str, int]) -> Iterator[list[Record]]:
    """The records of some numbers that can be read, so many numbers at a time; others are counted."""
    for start in range(0, len(images), size):
        records = []
        for number in images[start : start + size]:
            try:
                records.append(source[number])
            except DataError as error:
                left_out[error.reason] = left_out.get(error.reason, 0) + 1
        yield records


def decodable(model: Model, records: list[Record], left_out: dict[str, int]) -> list[Record]:
    """Those whose images a model can see; others are counted."""
    kept = []
    for record in records:
        try:
            model.preprocess(record.image, where=record.key)
            kept.append(record)
        except DataError as error:
            left_out[error.reason] = left_out.get(error.reason, 0) + 1
    return kept


def _write(
    source: Source, folder: Path, plan: dict[str, Any], make: MakeRecords, made_by: str, nothing: str
) -> dict[str, Any]:
    shards, size = [], plan["shard_records"]
    for number, name in enumerate(shard_names("train", -(-len(source) // size))):
        line = finished_shard(folder, name)
        if line is None:
            more: dict[str, Any] = {"left out": {}}
            images = range(number * size, min((number + 1) * size, len(source)))
            line = write_shard(folder, name, make(images, more["left out"]), more)
        shards.append(line)
    left_out = add_counts(*(shard.pop("left out") for shard in shards))
    if not any(shard["records"] for shard in shards):
        raise DataError(f"{folder}: {nothing} ({left_out}).")
    more = {"left out": {"index": source.skipped, "records": left_out}}
    return finish_dataset(folder, plan, shards, more, made_by=made_by, split="train")
