"""A dataset of ArrayRecord shards with a manifest: written shard by shard, so that a stopped writer goes on.

What `vlc data build` and `vlc caption --data` share. Each finished shard has a line in the work folder; when all are
there, the manifest is written and the work folder goes.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath

from vlc.data.record import Record
from vlc.data.sources import ArrayRecord
from vlc.data.sources.array_record import to_example
from vlc.errors import DataError
from vlc.storage import write_whole

MANIFEST = "manifest.json"
FORMAT = "vlc-data-1"
NAME = "vlc_data"  # of the dataset, as tfds sees it
WORK = ".build"
GOES_ON = "What is finished is kept: the same command goes on."
SCHEMA = {
    "key": "bytes",
    "image": "encoded bytes",
    "url": "bytes",
    "captions/source": "bytes*",
    "captions/text": "bytes*",
    "captions/score": "float*, similarity with the image, NaN where unknown",
    "regions": "bytes*, JSON: box as shares, mask, captions, label, ... of each",
    "graph": "bytes*, JSON: parent, child and words of each edge",
}
_OPTIONS = "group_size:1,uncompressed"  # records are read one by one, and JPEG does not shrink


def shard_names(split: str, count: int) -> list[str]:
    """File names as tfds writes them."""
    return [f"{NAME}-{split}.array_record-{i:05d}-of-{count:05d}" for i in range(count)]


def finished_shard(out: Path, name: str) -> dict[str, Any] | None:
    """The line of a shard that is there, or `None`."""
    done = out / WORK / f"{name}.json"
    if not (done.exists() and (out / name).exists()):
        return None
    line = json.loads(done.read_text())
    return line if (out / name).stat().st_size == line["bytes"] else None


def write_shard(
    out: Path, name: str, records: Iterable[tuple[Record, bytes]], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes a shard, which appears under its name only when it is complete.

    Args:
        out: The folder of the dataset.
        name: Of the shard.
        records: Records with their encoded images.
        more: What else its line says; read after the last record, so that it may count them.

    Returns:
        Its line: `name`, `records`, `captions`, `bytes`, `sha256`, and `more`.

    Raises:
        DataError: The disk is full.
    """
    partial = out / WORK / name
    count, captions = _write_records(partial, records)
    if count and ArrayRecord.open(partial).lengths != (count,):
        raise DataError(f"{partial}: was not written whole.")
    line = {
        "name": name,
        "records": count,
        "captions": captions,
        "bytes": partial.stat().st_size,
        "sha256": checksum(partial),
        **more,
    }
    os.replace(partial, out / name)
    write_json(out / WORK / f"{name}.json", line)
    return line


def _write_records(path: Path, records: Iterable[tuple[Record, bytes]]) -> tuple[int, int]:
    """How many records and captions were written."""
    count = captions = 0
    try:
        writer = ArrayRecordWriter(str(path), _OPTIONS)
        for record, image in records:
            count, captions = count + 1, captions + len(record.all_captions())
            writer.write(to_example(record, image))
        writer.close()
    except RuntimeError as error:  # how ArrayRecord reports a full disk, in `write` or only in `close`
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: cannot be written ({reason}). {GOES_ON}") from error
    return count, captions


def _write_tfds(out: Path, made_by: str, split: str, shards: Sequence[Mapping[str, Any]]) -> None:
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
                name=split,
                shard_lengths=[shard["records"] for shard in shards],
                num_bytes=sum(shard["bytes"] for shard in shards),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=epath.Path(out), dataset_name=NAME, split=split, filetype_suffix="array_record"
                ),
            )
        ],
        description=f"Written by {made_by}.",
        check_data=False,
    )


def start_dataset(out: Path, plan: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest where the dataset is there; else makes ready to write it, or to go on.

    Args:
        out: The folder.
        plan: What the dataset is a function of.
        more: What else must be the same to go on.

    Raises:
        DataError: The folder holds another dataset, or the beginning of one.
    """
    if (out / MANIFEST).exists():
        manifest = read_manifest(out)
        _check_same(manifest["plan"], plan, out)
        shutil.rmtree(out / WORK, ignore_errors=True)  # killed at the very last moment
        return manifest
    path, described = out / WORK / "plan.json", plan | dict(more)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        _check_same(json.loads(path.read_text()), described, out)
    else:
        write_json(path, described)
    return None


def finish_dataset(
    out: Path, plan: dict[str, Any], shards: Sequence[dict[str, Any]], more: Mapping[str, Any], *, made_by: str,
    split: str,
) -> dict[str, Any]:  # fmt: skip
    """Writes what tfds needs and then the manifest, and takes the work folder away.

    Args:
        out: The folder.
        plan: What the dataset is a function of.
        shards: Their lines, in order.
        more: What else the manifest says.
        made_by: For the description.
        split: What tfds calls the records.
    """
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA,
        "plan": plan,
        "records": sum(shard["records"] for shard in shards),
        "captions": sum(shard["captions"] for shard in shards),
        **more,
        "shards": shards,
    }
    _write_tfds(out, made_by, split, shards)
    write_json(out / MANIFEST, manifest)
    shutil.rmtree(out / WORK, ignore_errors=True)
    return manifest


def _check_same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raises `DataError` with what differs."""
    if before != now:
        changed = [key for key in now if before.get(key) != now[key]]
        lines = [f"  {key}: {before.get(key)!r} there, {now[key]!r} asked for" for key in changed]
        head, last = f"{out} holds a dataset that was built otherwise:", "Choose another --out, or delete it."
        raise DataError("\n".join([head, *lines, last]))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a dataset.

    Raises:
        DataError: There is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = " The build was stopped: run the same command again." if (folder / WORK).exists() else ""
        raise DataError(f"{path}: cannot be read ({error.strerror}).{hint}") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"{path}: not a manifest of `vlc data build` (format {FORMAT}).")
    return manifest


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """JSON of which equal values give equal bytes; a reader never sees half of it."""
    write_whole(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
