"""ArrayRecord shards of `tf.train.Example`: those of `vlc data build`, and others with an image and captions."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from vlc.data.parts import Parts
from vlc.data.record import Record, Source, flatten_captions, group_captions
from vlc.data.regions import GRAPH, REGIONS, PartsOfPicture
from vlc.data.sources.columns import BY_NAME, IMAGE, Columns
from vlc.data.sources.kind import SourceKind
from vlc.data.sources.parts_of_row import parts_of_row
from vlc.data.sources.tf_example import read_example, write_example
from vlc.errors import DataError
from vlc.storage import exists, find_shards, is_far, join, local_copy, parent, read_bytes

_READ = "readahead_buffer_size:0"  # records are read one by one, in any order
_NAME = ".array_record"
PATTERN = f"*{_NAME}*"
_OPEN_FILES = 256  # of one process; opening another takes a third of a millisecond


@dataclass(frozen=True)
class ArrayRecord(Source):
    """Records of ArrayRecord files, each a `tf.train.Example`.

    `vlc data build` writes the features `key`, `image`, `captions/source`, `captions/text`, `captions/score`,
    `regions` and `graph`; in files from elsewhere `image` (or `image/encoded`, `jpg`) and the caption columns of
    `Columns` are looked for.

    Attributes:
        shards: The files, in order.
        lengths: Records in each.
        columns: How files from elsewhere are read.
    """

    shards: tuple[str, ...]
    lengths: tuple[int, ...]
    columns: Columns = BY_NAME
    _parts: Parts = field(init=False, repr=False, compare=False)

    @classmethod
    def open(cls, pattern: str | Path, columns: Columns = BY_NAME) -> "ArrayRecord":
        """Opens a folder, a file or a glob.

        Raises:
            DataError: Nothing matches, or a file is no ArrayRecord.
        """
        shards = find_shards(str(pattern), PATTERN)
        if not shards:
            raise DataError(f"{pattern}: no ArrayRecord file there.")
        told = _told_lengths(shards)
        return cls(tuple(shards), tuple(told.get(shard) or _length(shard) for shard in shards), columns)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_parts", Parts(self.lengths))

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> Record:
        shard, row = self._parts.find(index)
        where = f"{self.shards[shard]}:{row}"
        try:
            (data,) = _reader(self.shards[shard]).read([row])
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise DataError(f"{where}: cannot be read ({error}).") from error
        try:
            return self._record(read_example(data, where), where)
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: its text is not UTF-8 (byte {error.start}).", "encoding") from error

    def _record(self, features: dict[str, list], where: str) -> Record:
        image = next((features[name] for name in ("image", "image/encoded", "jpg", "png") if features.get(name)), None)
        if not image:
            raise DataError(f"{where}: no feature `image`; it has {', '.join(sorted(features))}.", "row")
        key = features["key"][0].decode() if features.get("key") else where.rsplit("/", 1)[-1]
        url = features["url"][0].decode() if features.get("url") else ""
        if "captions/text" in features:
            sources = [source.decode() for source in features["captions/source"]]
            captions = group_captions(zip(sources, (text.decode() for text in features["captions/text"]), strict=True))
            scores = group_captions(zip(sources, features.get("captions/score") or [], strict=False))
        else:
            captions, scores = self.columns.captions_of(_as_row(features), where), {}
        told = (features.get(f"negatives/{part}") or [] for part in ("caption", "text"))
        pairs = ((caption.decode(), text.decode()) for caption, text in zip(*told, strict=True))
        extra = {"url": url} if url else {}
        return Record(key, image[0], captions, *_parts(features, where), extra, scores, group_captions(pairs))


def to_example(record: Record, image: bytes) -> bytes:
    """A record as `vlc data build` keeps it.

    Args:
        record: Key, captions with their scores and negatives, regions and their graph.
        image: The encoded image.
    """
    pairs, wrong = flatten_captions(record.captions), flatten_captions(record.negatives)
    return write_example(
        {
            "key": [record.key.encode()],
            "image": [image],
            "url": [str(record.extra.get("url") or "").encode()],
            "captions/source": [source.encode() for source, _ in pairs],
            "captions/text": [text.encode() for _, text in pairs],
            **({REGIONS: [_json(region.plain()) for region in record.regions]} if record.regions else {}),
            **({GRAPH: [_json(edge) for edge in record.graph]} if record.graph else {}),
            **({"captions/score": record.flat_scores()} if record.scores else {}),
            **({"negatives/caption": [caption.encode() for caption, _ in wrong]} if wrong else {}),
            **({"negatives/text": [text.encode() for _, text in wrong]} if wrong else {}),
        }
    )


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _parts(features: dict[str, list], where: str) -> PartsOfPicture:
    """Regions and graph, each an object of JSON; in files of before, boxes alone."""
    try:
        row = {name: [json.loads(value) for value in features.get(name) or []] for name in (REGIONS, GRAPH)}
    except ValueError as error:
        raise DataError(f"{where}: a region is not JSON ({error}).", "region") from error
    boxes = features.get("boxes") or []
    row[REGIONS] += [{"box": boxes[i : i + 4]} for i in range(0, len(boxes), 4)]
    return parts_of_row(row, where, {})


def _as_row(features: dict[str, list]) -> dict[str, Any]:
    """Text features as a row of columns; one value stands for itself."""
    row: dict[str, Any] = {}
    for name, values in features.items():
        if name in IMAGE or not values or not isinstance(values[0], bytes):
            continue
        texts = [value.decode("utf-8", "replace") for value in values]
        row[name] = texts if len(texts) > 1 or name == "captions" else texts[0]
    return row


def _reader(path: str) -> ArrayRecordReader:
    """A reader of a file, or of its copy on the disk, which is made when it is first read, and again where it had to
    leave for others."""
    try:
        copy = _copy_of(path)
        return _open(str(copy), os.stat(copy).st_mtime_ns)
    except FileNotFoundError:
        _copy_of.cache_clear()
        copy = _copy_of(path)
        return _open(str(copy), os.stat(copy).st_mtime_ns)


@lru_cache(maxsize=_OPEN_FILES)
def _copy_of(path: str) -> Path:
    return local_copy(path)


def _told_lengths(shards: Sequence[str]) -> dict[str, int]:
    """Records of each shard, where the folder's manifest says so: it need not be copied to be counted."""
    manifest = join(parent(shards[0]), "manifest.json")
    if not is_far(shards[0]) or not exists(manifest):
        return {}
    try:
        listed = json.loads(read_bytes(manifest))["shards"]
        return {join(parent(shards[0]), one["name"]): int(one["records"]) for one in listed}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{manifest}: is no manifest ({error!r}).") from error


@lru_cache(maxsize=_OPEN_FILES)
def _open(path: str, written: int) -> ArrayRecordReader:
    """A reader, for all threads of this process; a file that was rewritten gets a new one."""
    del written
    reader = ArrayRecordReader(path, options=_READ)
    if not reader.ok():
        raise DataError(f"{path}: not a readable ArrayRecord file; it may be cut short.")
    return reader


def _length(path: str) -> int:
    try:
        return _reader(path).num_records()
    except (RuntimeError, ValueError, OSError) as error:
        raise DataError(f"{path}: not a readable ArrayRecord file ({error}).") from error


KIND = SourceKind(
    "ArrayRecord files, those of `vlc data build` among them",
    lambda place: any(_NAME in name for name in (place.path, *place.names)),
    lambda place, columns, _: ArrayRecord.open(place.path, columns),
)
