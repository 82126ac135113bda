"""Hugging Face `datasets` saved to disk, read as the Arrow files that they are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from vlc.data.parts import Parts
from vlc.data.record import Record, Source
from vlc.data.sources.columns import BY_NAME, IMAGE, Columns
from vlc.data.sources.kind import SourceKind
from vlc.errors import DataError
from vlc.storage import exists, join, local_copy, read_bytes

STATE_FILE, DICT_FILE = "state.json", "dataset_dict.json"


@dataclass(frozen=True)
class HuggingFace(Source):
    """A dataset that `datasets.save_to_disk` wrote, on the local disk. Nothing of it is executed.

    The image is an `Image` column (bytes within, or a path), or one of bytes or of paths; captions are the columns that
    `Columns` knows.

    Attributes:
        folder: Where it lies.
        columns: How captions are found.
    """

    folder: str
    columns: Columns = BY_NAME
    _opened: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: str, split: str = "", columns: Columns = BY_NAME) -> "HuggingFace":
        """Opens a dataset, or one split of a saved `DatasetDict`.

        Raises:
            DataError: It is incomplete or damaged, or the split is not there.
        """
        folder = str(local_copy(folder))  # Arrow files are mapped into memory
        if exists(join(folder, DICT_FILE)):
            splits = _json(join(folder, DICT_FILE))["splits"]
            if (split or "train") not in splits:
                raise DataError(f"{folder}: no split {split or 'train'!r}. There are: {', '.join(splits)}.")
            folder = join(folder, split or "train")
        source = cls(folder, columns)
        source._open()
        return source

    def _open(self) -> dict[str, Any]:
        if self._opened:
            return self._opened
        files = [join(self.folder, part["filename"]) for part in _json(join(self.folder, STATE_FILE))["_data_files"]]
        batches: list[pa.RecordBatch] = []
        for path in files:
            try:
                batches += _batches(path)
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{path}: not a readable Arrow file ({error}).") from error
        if not batches:
            raise DataError(f"{self.folder}: holds no record.")
        schema = batches[0].schema
        image = self.columns.names.get("image") or next((n for n in schema.names if n.lower() in IMAGE), None)
        if image is None or image not in schema.names:
            raise DataError(f"{self.folder}: no image column; it has {', '.join(schema.names)}.")
        self._opened.update(
            batches=batches, parts=Parts(len(batch) for batch in batches), image=image, names=schema.names
        )
        return self._opened

    def __reduce__(self):
        return HuggingFace, (self.folder, self.columns)

    def __len__(self) -> int:
        return len(self._open()["parts"])

    def __getitem__(self, index: int) -> Record:
        opened = self._open()
        part, place = opened["parts"].find(index)
        row = {name: opened["batches"][part].column(name)[place].as_py() for name in opened["names"]}
        where = f"{self.folder}[{index}]"
        image, name = self._image(row.pop(opened["image"]), where)
        key = row.get("key") or row.get("id") or name or f"{index:08d}"
        url = row.get("url")
        extra = {"url": url} if isinstance(url, str) else {}
        captions = self.columns.captions_of(row, where)
        wrong = self.columns.negatives_of(row, captions, where)
        return Record(str(key), image, captions, *self.columns.parts_of(row, where), extra, negatives=wrong)

    def _image(self, value: Any, where: str) -> tuple[bytes, str]:
        """Encoded bytes, and a path where one is known."""
        name = ""
        if isinstance(value, Mapping):
            name, value = value.get("path") or "", value.get("bytes") or value.get("path")
        if isinstance(value, str):
            return read_bytes(join(self.folder, value)), value
        if not isinstance(value, bytes):
            raise DataError(f"{where}: its image is neither bytes nor a path.", "image")
        return value, name


def _batches(path: str) -> list[pa.RecordBatch]:
    """All batches of a file that is mapped, not read."""
    with pa.memory_map(path) as file:
        try:
            return list(pa.ipc.open_stream(file))
        except pa.ArrowInvalid:
            reader = pa.ipc.open_file(file)
            return [reader.get_batch(i) for i in range(reader.num_record_batches)]


def _json(path: str) -> Any:
    try:
        return json.loads(read_bytes(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not valid JSON ({error}).", "row") from error


KIND = SourceKind(
    "a Hugging Face dataset that `save_to_disk` wrote",
    lambda place: bool({STATE_FILE, DICT_FILE} & place.names),
    lambda place, columns, _: HuggingFace.open(place.path, place.split, columns),
)
