"""Datasets prepared by TensorFlow Datasets as ArrayRecord, read without TensorFlow."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from google.protobuf import json_format

from vlc.data.record import CaptionTypeError, Record, Source, clean_captions
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.kind import Location, SourceKind
from vlc.errors import DataError
from vlc.storage import exists, is_far, join, local_copy

INFO_FILE = "dataset_info.json"
PREFIX = "tfds:"
_LABEL_CAPTION = "a photo of a {}."


@dataclass(frozen=True)
class Tfds(Source):
    """One split of a prepared dataset.

    The image is the first image feature; captions are the text features that `Columns` knows, sequences of them
    included, and of a labelled dataset the names of its classes, as the caption source `label`.

    Attributes:
        name: `mnist`, `coco_captions/2014:1.1.0`, or the folder of a prepared dataset.
        split: `train`, `test[:10%]`, ...
        columns: How captions are found.
    """

    name: str
    split: str = "train"
    columns: Columns = BY_NAME
    _opened: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, name: str, split: str = "", columns: Columns = BY_NAME) -> "Tfds":
        """Opens a prepared dataset; nothing is ever downloaded.

        Raises:
            DataError: It is not prepared, has no such split or no image, or its files cannot be read at random.
        """
        source = cls(name, split or "train", columns)
        source._open()
        return source

    def _open(self) -> dict[str, Any]:
        if self._opened:
            return self._opened
        import tensorflow_datasets as tfds  # slow to import, and needed by this source only

        builder = _builder(tfds, self.name)
        features = builder.info.features
        images = [name for name, feature in (features or {}).items() if isinstance(feature, tfds.features.Image)]
        if not images:
            raise DataError(f"{self.name}: no image among its features ({', '.join(features or {})}).")
        labels = {
            name: feature.names for name, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)
        }
        data = _data_source(builder, self.name, self.split, {images[0]: tfds.decode.SkipDecoding()})
        self._opened.update(data=data, image=images[0], labels=labels, folder=str(builder.data_dir))
        return self._opened

    @property
    def folder(self) -> str:
        """Where its files are."""
        return self._open()["folder"]

    def classes(self) -> tuple[np.ndarray, list[str]]:
        """The class of every record `[N]`, -1 where the record cannot be read, and the names of the classes.

        Raises:
            DataError: The dataset has no classes with names, or a record has no class.
        """
        opened = self._open()
        feature, names = next(((f, names) for f, names in opened["labels"].items() if names), ("", []))
        if not feature:
            raise DataError(f"{self.name}: has no classes with names.")
        return np.asarray([self._class(index, feature) for index in range(len(self))]), list(names)

    def _class(self, index: int, feature: str) -> int:
        try:
            example = self._example(index)
        except DataError:
            return -1
        if example[feature] < 0:
            raise DataError(f"{self._where(index)}: has no class; the split {self.split} cannot be scored.")
        return int(example[feature])

    def _where(self, index: int) -> str:
        return f"{self.name}:{self.split}[{index}]"

    def _example(self, index: int) -> dict[str, Any]:
        try:
            return self._open()["data"][index]
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{self._where(index)}: cannot be read ({error}).") from error

    def __reduce__(self):
        return Tfds, (self.name, self.split, self.columns)

    def __len__(self) -> int:
        return len(self._open()["data"])

    def __getitem__(self, index: int) -> Record:
        opened, where = self._open(), self._where(index)
        example = self._example(index)
        row = {name: _plain(value) for name, value in example.items() if name != opened["image"]}
        captions: dict[str, Any] = {
            name: [_LABEL_CAPTION.format(names[row.pop(name)].replace("_", " "))]
            for name, names in opened["labels"].items()
            if names and isinstance(row.get(name), int) and row[name] >= 0
        }
        texts = _flatten(row)
        try:
            captions |= self.columns.captions_of(texts, where)
        except DataError as error:
            if not captions or isinstance(error, CaptionTypeError):
                raise
        key = texts.get("key") or texts.get("image/filename") or texts.get("file_name") or f"{self.split}-{index:08d}"
        return Record(str(key), example[opened["image"]], clean_captions(captions, where))


def _data_source(builder: Any, name: str, split: str, decoders: dict[str, Any]) -> Any:
    try:
        data = builder.as_data_source(split=split, decoders=decoders)
        len(data)  # an empty range is found here
    except NotImplementedError as error:
        raise DataError(
            f"{name}: was prepared as {builder.info.file_format.value}, which cannot be read at random. Prepare it "
            'again: tfds.builder(NAME, file_format="array_record").download_and_prepare()'
        ) from error
    except ValueError as error:
        raise DataError(
            f"{name}: no split {split!r} ({_first_line(error)}). Its splits: {', '.join(builder.info.splits)}."
        ) from error
    return data


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _builder(tfds: Any, name: str) -> Any:
    if exists(join(name, INFO_FILE)):
        return _builder_of_folder(tfds, name)
    try:
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except tfds.core.registered.DatasetNotFoundError as error:
        raise DataError(f"{name}: tensorflow_datasets knows no such dataset, and there is no such folder.") from error
    except (ValueError, AssertionError) as error:  # a malformed name; a version or config that does not exist
        raise DataError(f"{name}: {_first_line(error)}") from error
    if not exists(join(str(builder.data_dir), INFO_FILE)):
        raise DataError(
            f"{name}: not prepared; looked in {builder.data_dir}. Prepare it once (this downloads): "
            f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{name}', "
            "file_format='array_record').download_and_prepare()\", or set TFDS_DATA_DIR to where it is."
        )
    return _builder_of_folder(tfds, str(builder.data_dir)) if is_far(builder.data_dir) else builder


def _builder_of_folder(tfds: Any, folder: str) -> Any:
    here = str(local_copy(folder))
    try:
        return tfds.builder_from_directory(here)
    except (json_format.Error, ValueError, KeyError, OSError) as error:
        raise DataError(f"{folder}: its metadata is damaged ({_first_line(error)}).") from error


def _plain(value: Any) -> Any:
    """Bytes to text, arrays to lists, as JSON would have them."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist()) if value.ndim else _plain(value.item())
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _flatten(row: Mapping[str, Any]) -> dict[str, Any]:
    """`{"captions": {"text": [...]}}`, as coco_captions has it, to `{"captions": [...]}`; other nesting is dropped."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            texts = value.get("text", value.get("caption"))
            sources = value.get("source")
            if isinstance(texts, list) and isinstance(sources, list):
                flat[name] = {}
                for source, text in zip(sources, texts, strict=True):
                    flat[name].setdefault(source, []).append(text)
            elif texts is not None:
                flat[name] = texts if isinstance(texts, list) else [texts]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            flat[name] = [part[key] for part in value for key in ("text", "caption", "raw") if key in part]
        else:
            flat[name] = value
    return flat


def _matches(place: Location) -> bool:
    return place.path.startswith(PREFIX) or (INFO_FILE in place.names and "manifest.json" not in place.names)


KIND = SourceKind(
    "a dataset prepared by TensorFlow Datasets",
    _matches,
    lambda place, columns, _: Tfds.open(place.path.removeprefix(PREFIX), place.split, columns),
)
