"""`vlc data build`: any source to ArrayRecord shards, in parallel; it can be stopped and resumed at any moment.

The records are chosen first, by a survey of all of them (`vlc.curate.survey`). So every shard is a function of the
source and the settings alone, whatever the number of workers and however often the build was stopped.
"""

import collections
import io
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlc.curate.edits import Tally, add_wrong_texts, check_rules, find_reader
from vlc.curate.filters import parse_filters
from vlc.curate.join import Joined, join_captions
from vlc.curate.selection import Selection, select
from vlc.curate.shards import (
    GOES_ON,
    MANIFEST,
    WORK,
    checksum,
    finish_dataset,
    finished_shard,
    read_manifest,
    shard_names,
    start_dataset,
    write_shard,
)
from vlc.data.decoding import decode
from vlc.data.record import Record, Source
from vlc.data.sources import ArrayRecord, Columns
from vlc.data.workers import share_work
from vlc.errors import DataError
from vlc.storage import local_copy, made_for


@dataclass(frozen=True)
class Plan:
    """What a build is a function of.

    Attributes:
        source: The spec, for the manifest and to refuse another source in the same folder.
        filters: Steps, see `vlc.curate.filters`.
        columns: How columns are read, as for `open_source`.
        join: A file with more captions, joined to the source (`vlc.curate.join`).
        records: How many were taken of the source, evenly spaced; 0: all.
        shard_records: Records in each shard but the last.
        shorter_side: Larger images are scaled down until their shorter side is this, and kept as JPEG; 0: all are
            kept as they are.
        quality: Of such a JPEG.
        split: What tfds calls the records.
        negatives: The most wrong texts that are made for each caption (`vlc.curate.edits`); 0: none.
        rules: That make them; empty: the usual ones.
        reader: What reads the captions for the rules, set by `build`.
    """

    source: str
    filters: tuple[str, ...] = ()
    join: str = ""
    columns: str = ""
    records: int = 0
    shard_records: int = 4096
    shorter_side: int = 0
    quality: int = 92
    split: str = "train"
    negatives: int = 0
    rules: tuple[str, ...] = ()
    reader: str = ""


def build(source: Source, plan: Plan, out: str | os.PathLike[str], *, workers: int = 1) -> dict[str, Any]:
    """Writes a source as a dataset: shards, `manifest.json`, and what tfds needs to read it.

    Stopped and called again with the same plan it goes on; with another it refuses.

    Args:
        source: Any source.
        plan: What is written.
        out: The folder.
        workers: Processes.

    Returns:
        The manifest.

    Raises:
        DataError: The folder holds another dataset, no record is left, or the disk is full.
    """
    parse_filters(plan.filters)  # so that a mistyped filter leaves nothing behind
    if plan.negatives:
        plan = replace(plan, rules=check_rules(plan.rules), reader=find_reader().name)
    with made_for(out, first=(MANIFEST,), resumed=True) as folder:
        return _build(source, plan, folder, workers)


def _build(source: Source, plan: Plan, out: Path, workers: int) -> dict[str, Any]:
    manifest = start_dataset(out, _plain(plan), {"records in the source": len(source)})
    if manifest is not None:
        return manifest
    work = out / WORK
    try:
        if plan.join:
            source = join_captions(source, plan.join, work, columns=Columns.parse(plan.columns))
        selection = select(source, plan.filters, work, workers=workers)
        if not len(selection):
            raise DataError(f"{plan.source}: no record is left. {_counts(selection)}")
        count = -(-len(selection) // plan.shard_records)
        tasks = [(out, i, name) for i, name in enumerate(shard_names(plan.split, count))]
        shards = list(share_work(_write_shard, (selection, plan), tasks, workers))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}). {GOES_ON}") from error
    more = {
        "joined": source.table.notes if isinstance(source, Joined) else {},
        "left out": {
            "index": source.skipped,
            "records": selection.table.notes["skipped"],
            "filters": selection.dropped,
            "examples": selection.table.notes["messages"],
        },
        **({"negatives": _sum_up([shard["negatives"] for shard in shards])} if plan.negatives else {}),
    }
    made_by = f"`vlc data build` from {plan.source}"
    return finish_dataset(out, _plain(plan), shards, more, made_by=made_by, split=plan.split)


def verify(folder: str | Path) -> list[str]:
    """Reads a whole dataset again.

    Returns:
        What is wrong, a line each; empty when nothing is.
    """
    folder = local_copy(folder)
    problems = []
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["name"]
        if not path.exists():
            problems.append(f"{path}: is missing")
        elif path.stat().st_size != shard["bytes"]:
            problems.append(f"{path}: has {path.stat().st_size} bytes, not {shard['bytes']}")
        elif checksum(path) != shard["sha256"]:
            problems.append(f"{path}: its checksum is wrong")
        else:
            problems += _read_all(path, shard["records"])
    known = {shard["name"] for shard in read_manifest(folder)["shards"]}
    problems += [
        f"{path}: is not in the manifest" for path in sorted(folder.glob("*.array_record*")) if path.name not in known
    ]
    return problems


def _read_all(path: Path, count: int) -> list[str]:
    try:
        source = ArrayRecord.open(path)
        if len(source) != count:
            return [f"{path}: holds {len(source)} records, not {count}"]
        for index in range(count):
            decode(_encoded(source[index]), where=f"{path}:{index}", needed=lambda *_: (8, 8))
    except DataError as error:
        return [str(error)]
    return []


def _encoded(record: Record) -> bytes:
    assert isinstance(record.image, bytes)
    return record.image


def _write_shard(shared: tuple[Selection, Plan], task: tuple[Path, int, str]) -> dict[str, Any]:
    """Writes one shard, unless it is there; its line for the manifest."""
    selection, plan = shared
    out, number, name = task
    line = finished_shard(out, name)
    if line is not None:
        return line
    first = number * plan.shard_records
    indices = range(first, min(first + plan.shard_records, len(selection)))
    records, made = (selection[index] for index in indices), {}
    if plan.negatives:
        records = _with_wrong_texts(records, plan, made)
    return write_shard(out, name, ((record, encode_image(record, plan)) for record in records), made)


def _with_wrong_texts(records: Iterator[Record], plan: Plan, made: dict[str, Any]) -> Iterator[Record]:
    """Records with wrong texts; after the last, `made` says what was made."""
    reader, tally = find_reader(), Tally()
    for record in records:
        yield add_wrong_texts(record, reader, plan.negatives, plan.rules, tally)
    made["negatives"] = tally.plain()


def _sum_up(made: list[dict[str, Any]]) -> dict[str, Any]:
    """What was made for the shards together."""
    texts = collections.Counter()
    for one in made:
        texts.update(one["texts"])
    return {name: sum(one[name] for one in made) for name in ("captions", "records")} | {"texts": dict(texts)}


def encode_image(record: Record, plan: Plan) -> bytes:
    """The image as it is kept: pixels become PNG, images larger than asked for a smaller JPEG."""
    if isinstance(record.image, np.ndarray):
        return _save(Image.fromarray(record.image), "png")
    if not plan.shorter_side or min(Image.open(io.BytesIO(record.image)).size) <= plan.shorter_side:
        return record.image
    least = float(plan.shorter_side)

    def needed(width: float, height: float) -> tuple[float, float]:
        scale = least / min(width, height)
        return width * scale, height * scale

    picture = decode(record.image, where=record.key, needed=needed)
    scale = least / min(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return _save(picture.resize(size, Image.Resampling.BICUBIC), "jpeg", quality=plan.quality)


def _save(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _plain(plan: Plan) -> dict[str, Any]:
    """As the manifest has it; what makes wrong texts only where some are made."""
    plain = asdict(plan) | {"filters": list(plan.filters), "rules": list(plan.rules)}
    left = () if plan.negatives else ("negatives", "rules", "reader")
    return {name: value for name, value in plain.items() if name not in left}


def _counts(selection: Selection) -> str:
    parts = [f"{count} {reason}" for reason, count in selection.skipped.items()]
    parts += [f"{step['images']} dropped by {step['step']}" for step in selection.dropped if step["images"]]
    return f"Left out: {', '.join(parts) or 'nothing'}." + "".join(
        f"\n  {message}" for message in selection.table.notes["messages"][:3]
    )
