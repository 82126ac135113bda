"""`vlc data build`: any source to ArrayRecord shards, in parallel, to be stopped and gone on with at any moment.

The records are chosen first, all of them looked at (`vlc.data.survey`), so that every shard is a function of the source
and the settings alone: what is written does not depend on workers, or on how often the build was stopped.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from PIL import Image

from vlc.data.files import write_whole
from vlc.data.filters import parse_filters
from vlc.data.images import decode
from vlc.data.join import Joined, join_captions
from vlc.data.record import Record, Source, skipped_of
from vlc.data.selection import Selection, select
from vlc.data.sources import ArrayRecord, Columns
from vlc.data.sources.array_record import to_example
from vlc.data.workers import share_work
from vlc.errors import DataError

MANIFEST = "manifest.json"
FORMAT = "vlc-data-1"
NAME = "vlc_data"  # of the dataset, as tfds sees it
_OPTIONS = "group_size:1,uncompressed"  # records are read one by one, and JPEG does not shrink
_WORK = ".build"
_GOES_ON = "What is finished is kept: the same command goes on."
_SCHEMA = {
    "key": "bytes",
    "image": "encoded bytes",
    "url": "bytes",
    "captions/source": "bytes*",
    "captions/text": "bytes*",
    "captions/score": "float*, similarity with the image, NaN where unknown",
    "boxes": "float*, left top right bottom as shares",
}


@dataclass(frozen=True)
class Plan:
    """What a build is a function of.

    Attributes:
        source: The spec, for the manifest and to refuse another source in the same folder.
        filters: Steps, see `vlc.data.filters`.
        columns: How columns are read, as `open_source` was told.
        join: A file with more captions, joined to the source (`vlc.data.join`).
        records: How many were taken of the source, evenly spaced; 0: all.
        shard_records: Records in each shard but the last.
        shorter_side: Larger images are scaled down until their shorter side is this, and kept as JPEG; 0: all are
            kept as they are.
        quality: Of such a JPEG.
        split: What tfds calls the records.
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


def build(source: Source, plan: Plan, out: str | Path, *, workers: int = 1) -> dict[str, Any]:
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
    out = Path(out)
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        _check_same(manifest["plan"], plan, out)
        shutil.rmtree(out / _WORK, ignore_errors=True)  # killed at the very last moment
        return manifest
    parse_filters(plan.filters)  # so that a slip of the pen leaves nothing behind
    work = out / _WORK
    work.mkdir(parents=True, exist_ok=True)
    _keep_plan(work / "plan.json", plan, source, out)
    try:
        if plan.join:
            source = join_captions(source, plan.join, work, columns=Columns.parse(plan.columns))
        selection = select(source, plan.filters, work, workers=workers)
        if not len(selection):
            raise DataError(f"{plan.source}: no record is left. {_counts(selection)}")
        count = -(-len(selection) // plan.shard_records)
        names = [f"{NAME}-{plan.split}.array_record-{i:05d}-of-{count:05d}" for i in range(count)]
        tasks = [(out, i, name) for i, name in enumerate(names)]
        shards = list(share_work(_write_shard, (selection, plan), tasks, workers))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror}). {_GOES_ON}") from error
    manifest = _manifest(plan, source, selection, shards)
    _write_tfds(out, plan, shards)
    _write_json(out / MANIFEST, manifest)
    shutil.rmtree(work)
    return manifest


def _manifest(plan: Plan, source: Source, selection: Selection, shards: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "schema": _SCHEMA,
        "plan": _plain(plan),
        "records": sum(shard["records"] for shard in shards),
        "captions": sum(shard["captions"] for shard in shards),
        "joined": source.table.notes if isinstance(source, Joined) else {},
        "left out": {
            "index": skipped_of(source),
            "records": selection.table.notes["skipped"],
            "filters": selection.dropped,
            "examples": selection.table.notes["messages"],
        },
        "shards": shards,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a dataset.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = " The build was stopped: run the same command again." if (folder / _WORK).exists() else ""
        raise DataError(f"{path}: cannot be read ({error.strerror}).{hint}") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not a manifest of `vlc data build` (format {FORMAT}).")
    return manifest


def verify(folder: str | Path) -> list[str]:
    """Reads a whole dataset again.

    Returns:
        What is wrong, a line each; empty when nothing is.
    """
    folder = Path(folder)
    problems = []
    for shard in read_manifest(folder)["shards"]:
        path = folder / shard["name"]
        if not path.exists():
            problems.append(f"{path}: is missing")
        elif path.stat().st_size != shard["bytes"]:
            problems.append(f"{path}: has {path.stat().st_size} bytes, not {shard['bytes']}")
        elif _checksum(path) != shard["sha256"]:
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
    done = out / _WORK / f"{name}.json"
    if done.exists() and (out / name).exists():
        line = json.loads(done.read_text())
        if (out / name).stat().st_size == line["bytes"]:
            return line
    partial = out / _WORK / name
    first = number * plan.shard_records
    indices = range(first, min(first + plan.shard_records, len(selection)))
    captions = _write_records(partial, (selection[index] for index in indices), plan)
    if ArrayRecord.open(partial).lengths != (len(indices),):
        raise DataError(f"{partial}: was not written whole.")
    line = {
        "name": name,
        "records": len(indices),
        "captions": captions,
        "bytes": partial.stat().st_size,
        "sha256": _checksum(partial),
    }
    os.replace(partial, out / name)
    _write_json(done, line)
    return line


def _write_records(path: Path, records: Iterable[Record], plan: Plan) -> int:
    """Writes records; the number of their captions."""
    captions = 0
    try:
        writer = ArrayRecordWriter(str(path), _OPTIONS)
        for record in records:
            captions += len(record.all_captions())
            writer.write(to_example(record, encode_image(record, plan)))
        writer.close()
    except RuntimeError as error:  # what it makes of a full disk, in `write` or only in `close`
        said = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be written ({said}). {_GOES_ON}") from error
    return captions


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


def _write_tfds(out: Path, plan: Plan, shards: Sequence[dict[str, Any]]) -> None:
    """`dataset_info.json` and `features.json`, by tfds itself."""
    import tensorflow_datasets as tfds

    text = tfds.features.Text()
    features = tfds.features.FeaturesDict(
        {
            "key": text,
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "url": text,
            "captions": tfds.features.Sequence({"source": text, "text": text}),
        }
    )
    tfds.folder_dataset.write_metadata(
        data_dir=str(out),
        features=features,
        split_infos=[
            tfds.core.SplitInfo(
                name=plan.split,
                shard_lengths=[shard["records"] for shard in shards],
                num_bytes=sum(shard["bytes"] for shard in shards),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=epath.Path(out), dataset_name=NAME, split=plan.split, filetype_suffix="array_record"
                ),
            )
        ],
        description=f"Written by `vlc data build` from {plan.source}.",
        check_data=False,
    )


def _keep_plan(path: Path, plan: Plan, source: Source, out: Path) -> None:
    kept = _plain(plan) | {"records in the source": len(source)}
    if path.exists():
        before = json.loads(path.read_text())
        if before != kept:
            raise DataError(_differences(before, kept, out))
    else:
        _write_json(path, kept)


def _check_same(before: dict[str, Any], plan: Plan, out: Path) -> None:
    if before != _plain(plan):
        raise DataError(_differences(before, _plain(plan), out))


def _differences(before: dict[str, Any], now: dict[str, Any], out: Path) -> str:
    changed = [key for key in now if before.get(key) != now[key]]
    lines = [f"  {key}: {before.get(key)!r} there, {now[key]!r} asked for" for key in changed]
    return "\n".join(
        [f"{out} holds a dataset that was built otherwise:", *lines, "Choose another --out, or delete it."]
    )


def _plain(plan: Plan) -> dict[str, Any]:
    return asdict(plan) | {"filters": list(plan.filters)}


def _counts(selection: Selection) -> str:
    parts = [f"{count} {reason}" for reason, count in selection.skipped.items()]
    parts += [f"{step['images']} dropped by {step['step']}" for step in selection.dropped if step["images"]]
    return f"Left out: {', '.join(parts) or 'nothing'}." + "".join(
        f"\n  {message}" for message in selection.table.notes["messages"][:3]
    )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_json(path: Path, value: Any) -> None:
    """JSON of which equal values give equal bytes; a reader never sees half of it."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
