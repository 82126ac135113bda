"""Rows of captions files: JSONL, JSON, CSV, TSV, Parquet. A damaged row is given as the error it is, not raised."""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlc.data.files import open_file, reading
from vlc.errors import DataError

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".json")
CAPTION_FILES = tuple(f"captions{suffix}" for suffix in SUFFIXES)

Row = tuple[str, Mapping[str, Any] | DataError]  # where it stands, and what it holds or why it cannot be used

csv.field_size_limit(1 << 24)  # a long caption is longer than Python's 128 KiB


def read_rows(path: str) -> Iterator[Row]:
    """The rows of a captions file, by its suffix, streamed.

    Raises:
        DataError: The file cannot be opened, or is of no known kind, or as a whole not what its suffix says.
    """
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _tsv, ".parquet": _parquet}
    read = readers.get(PurePath(path).suffix.lower())
    if read is None:
        raise DataError(f"{path}: a captions file ends in {', '.join(SUFFIXES)}.")
    return read(path)


def _jsonl(path: str) -> Iterator[Row]:
    with reading(path), open_file(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    yield where, _object(json.loads(text), where)
            except UnicodeDecodeError as error:
                yield where, _not_utf8(where, error)
            except json.JSONDecodeError as error:
                yield where, DataError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).", "row")
            except RecursionError:
                yield where, DataError(f"{where}: not valid JSON (nested too deeply).", "row")


def _json(path: str) -> Iterator[Row]:
    """A list of objects, as ShareGPT4V has it."""
    try:
        with reading(path), open_file(path) as file:
            rows = json.loads(file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}).", "row") from error
    if not isinstance(rows, list):
        raise DataError(f'{path}: expected a list of objects such as [{{"image": ..., "captions": [...]}}].', "row")
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", _object(row, f"{path}[{number}]")


def _csv(path: str, delimiter: str = ",") -> Iterator[Row]:
    with reading(path), open_file(path) as file:
        # Bytes that are no UTF-8 become surrogates, so that one bad cell does not cost the file.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.DictReader(text, delimiter=delimiter)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"{path}:{reader.line_num}", DataError(f"{path}:{reader.line_num}: {error}.", "row")
                continue
            where = f"{path}:{reader.line_num}"
            values = {name: value for name, value in row.items() if name is not None and value is not None}
            broken = next((name for name, value in values.items() if not _is_utf8(value)), None)
            if broken is None:
                yield where, values
            else:
                yield where, DataError(f"{where}, {broken}: not UTF-8 text. Save the file as UTF-8.", "encoding")


def _tsv(path: str) -> Iterator[Row]:
    return _csv(path, "\t")


def _parquet(path: str) -> Iterator[Row]:
    number = 0
    try:
        with reading(path), open_file(path) as file:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    yield f"{path}[{number}]", row
                    number += 1
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).", "row") from error


def _object(row: Any, where: str) -> Mapping[str, Any] | DataError:
    if isinstance(row, dict):
        return row
    return DataError(f'{where}: expected an object such as {{"image": ..., "captions": [...]}}.', "row")


def _not_utf8(where: str, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{where}: not UTF-8 text (byte {error.start}). Save the file as UTF-8.", "encoding")


def _is_utf8(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in value)
