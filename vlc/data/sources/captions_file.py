"""Rows of captions files: JSONL, JSON, CSV, TSV, Parquet. A damaged row is given as the error it is, not raised."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlc.data.files import open_file, reading
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.errors import DataError

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet", ".json", ".txt")
# What a captions file is called where only its folder is named: ours, Hugging Face's ImageFolder, Flickr8k's.
CAPTION_FILES = (
    *(f"captions{suffix}" for suffix in SUFFIXES),
    *(f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet")),
    "Flickr8k.token.txt",
    "results_20130124.token",  # Flickr30k
)
_DELIMITERS = (",", "\t", ";", "|")
_TOKEN_ROW = re.compile(r"(?P<image>\S.*)#\d+\t(?P<caption>.*)")  # Flickr8k.token.txt: name.jpg#0<TAB>caption

Row = tuple[str, Mapping[str, Any] | DataError]  # where it stands, and what it holds or why it cannot be used

csv.field_size_limit(1 << 24)  # a long caption is longer than Python's 128 KiB


def read_rows(path: str, columns: Columns | None = None) -> Iterator[Row]:
    """The rows of a captions file, by its suffix, streamed.

    Args:
        path: The file.
        columns: How its columns are read; a header must then name an image and captions. `None`: any header will do.

    Raises:
        DataError: The file cannot be opened, is of no known kind, or as a whole is not what its suffix says.
    """
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _table, ".tsv": _table, ".parquet": _parquet, ".txt": _table}
    name = PurePath(path).name
    read = _tokens if name.endswith((".token.txt", ".token")) else readers.get(PurePath(path).suffix.lower())
    if read is None:
        raise DataError(f"{path}: a captions file ends in {', '.join(SUFFIXES)}.")
    return read(path, columns)


def _jsonl(path: str, columns: Columns | None) -> Iterator[Row]:
    encoding = _encoding(columns)
    with reading(path), open_file(path) as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 and encoding == "utf-8" else encoding).strip()
                if text:
                    yield where, _object(json.loads(text), where)
            except UnicodeDecodeError as error:
                yield where, _not_utf8(where, error)
            except json.JSONDecodeError as error:
                yield where, DataError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).", "row")
            except RecursionError:
                yield where, DataError(f"{where}: not valid JSON (nested too deeply).", "row")


def _json(path: str, columns: Columns | None) -> Iterator[Row]:
    """A list of objects, as ShareGPT4V has it."""
    encoding = _encoding(columns)
    try:
        with reading(path), open_file(path) as file:
            rows = json.loads(file.read().decode("utf-8-sig" if encoding == "utf-8" else encoding))
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}).", "row") from error
    if not isinstance(rows, list):
        raise DataError(f'{path}: expected a list of objects such as [{{"image": ..., "captions": [...]}}].', "row")
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", _object(row, f"{path}[{number}]")


def _table(path: str, columns: Columns | None) -> Iterator[Row]:
    """CSV and its kin; what separates columns is found from the first line."""
    with reading(path), open_file(path) as file:
        text = _text(file, _encoding(columns))
        first = text.readline()
        delimiter, names = _header(first, path, columns)
        lines: Iterable[str] = text if names is None else _chain(first, text)
        if names is None:  # a header, which may go on over several lines
            text.seek(0)
            lines = text
        reader = csv.DictReader(lines, names, delimiter=delimiter)
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
                yield where, DataError(f"{where}, {broken}: {_NOT_UTF8}", "encoding")


def _chain(first: str, rest: Iterable[str]) -> Iterator[str]:
    yield first
    yield from rest


def _header(first: str, path: str, columns: Columns | None) -> tuple[str, list[str] | None]:
    """What separates the columns, and their names where the file has no header but `columns` counts them."""
    cells = {delimiter: next(csv.reader([first], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    if columns is not None and columns.by_position:
        delimiter = max(_DELIMITERS, key=lambda one: len(cells[one]))
        return delimiter, [str(number + 1) for number in range(len(cells[delimiter]))]
    known = [delimiter for delimiter in _DELIMITERS if columns is not None and columns.fits(cells[delimiter])]
    if known or columns is None:
        return known[0] if known else max(_DELIMITERS, key=lambda one: len(cells[one])), None
    widest = max(cells.values(), key=len)
    if columns.looks_like_a_row(widest):
        raise DataError(
            f"{path}: has no header; its first line is {first.strip()[:100]!r}. Write a line such as "
            "image,caption before it, or count the columns: --columns image=1,text=2."
        )
    raise DataError(
        f"{path}: {columns.what_is_missing(widest)}; its header is {', '.join(widest) or 'empty'}. Say which column is "
        "which: --columns image=COLUMN,text=COLUMN."
    )


def _tokens(path: str, columns: Columns | None) -> Iterator[Row]:
    """Flickr8k's own: a file name, the number of the caption, and the caption."""
    with reading(path), open_file(path) as file:
        for number, line in enumerate(_text(file, _encoding(columns)), 1):
            where = f"{path}:{number}"
            found = _TOKEN_ROW.fullmatch(line.strip())
            if not line.strip():
                continue
            if not _is_utf8(line):
                yield where, DataError(f"{where}: {_NOT_UTF8}", "encoding")
            elif found:
                yield where, found.groupdict()
            else:
                yield where, DataError(f"{where}: not NAME.jpg#NUMBER, a tab, and a caption.", "row")


def _parquet(path: str, columns: Columns | None) -> Iterator[Row]:
    number = 0
    try:
        with reading(path), open_file(path) as file:
            table = pq.ParquetFile(file)
            if columns is not None and not columns.fits(table.schema_arrow.names):
                found = table.schema_arrow.names
                raise DataError(f"{path}: {columns.what_is_missing(found)}; it has {', '.join(found)}.")
            for batch in table.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    yield f"{path}[{number}]", row
                    number += 1
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).", "row") from error


def _object(row: Any, where: str) -> Mapping[str, Any] | DataError:
    if isinstance(row, dict):
        return row
    return DataError(f'{where}: expected an object such as {{"image": ..., "captions": [...]}}.', "row")


_NOT_UTF8 = "not UTF-8 text. Save the file as UTF-8, or name its encoding, as in --encoding latin-1."


def _not_utf8(where: str, error: UnicodeDecodeError) -> DataError:
    return DataError(f"{where}: {_NOT_UTF8} (byte {error.start})", "encoding")


def _text(file: IO[bytes], encoding: str) -> io.TextIOWrapper:
    """Bytes that are no UTF-8 become surrogates, so that one bad cell does not cost the file."""
    name = "utf-8-sig" if encoding == "utf-8" else encoding
    return io.TextIOWrapper(file, encoding=name, errors="surrogateescape", newline="")


def _encoding(columns: Columns | None) -> str:
    return (columns or BY_NAME).encoding


def _is_utf8(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in value)
