"""Rows of captions files: JSONL, JSON, CSV, TSV, Parquet. A damaged row is given as the error it is, not raised."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlc.data.sources.columns import BY_NAME, Columns
from vlc.errors import DataError
from vlc.storage import open_file, reading

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
    with reading(path), open_file(path) as file:
        for number, line in enumerate(_text(file, columns), 1):
            where = f"{path}:{number}"
            try:
                if not _is_utf8(line):
                    yield where, DataError(f"{where}: {_NOT_UTF8}", "encoding")
                elif line.strip():
                    yield where, _object(json.loads(line), where)
            except json.JSONDecodeError as error:
                yield where, DataError(f"{where}: not valid JSON ({error.msg} at column {error.colno}).", "row")
            except RecursionError:
                yield where, DataError(f"{where}: not valid JSON (nested too deeply).", "row")


def _json(path: str, columns: Columns | None) -> Iterator[Row]:
    """A list of objects, as ShareGPT4V has it; or, as many tools write under this suffix, an object a line."""
    if _is_lines(path, columns):
        yield from _jsonl(path, columns)
        return
    try:
        with reading(path), open_file(path) as file:
            text = _text(file, columns).read()
        if not _is_utf8(text):
            raise DataError(f"{path}: {_NOT_UTF8}", "encoding")
        rows = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}).", "row") from error
    if not isinstance(rows, list):
        raise DataError(f'{path}: expected a list of objects such as [{{"image": ..., "captions": [...]}}].', "row")
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", _object(row, f"{path}[{number}]")


def _table(path: str, columns: Columns | None) -> Iterator[Row]:
    """CSV and its kin; what separates columns is found from the first line."""
    with reading(path), open_file(path) as file:
        text = _text(file, columns)
        first = text.readline()
        delimiter, names = _header(first, path, columns)
        lines: Iterable[str] = text if names is None else _chain(first, text)
        if names is None:  # a header, which may go on over several lines
            text.seek(0)
            lines = text
        quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL  # a tab is in no caption, a quote in many
        reader = csv.DictReader(lines, names, delimiter=delimiter, quoting=quoting)
        _check_header(reader.fieldnames or (), path)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"{path}:{reader.line_num}", DataError(f"{path}:{reader.line_num}: {error}.", "row")
                continue
            yield f"{path}:{reader.line_num}", _cells(row, f"{path}:{reader.line_num}", delimiter)


def _check_header(names: Sequence[str], path: str) -> None:
    again = next((name for name in names if name and list(names).count(name) > 1), None)
    if again is not None:
        raise DataError(f"{path}: two of its columns are called {again!r}; name them apart in its first line.", "row")


def _cells(row: Mapping[Any, Any], where: str, delimiter: str) -> Mapping[str, Any] | DataError:
    """A row by the names of its columns, or what is wrong with it."""
    if None in row:
        more = len(row[None])
        return DataError(
            f"{where}: has {more} more cell{'s' if more > 1 else ''} than the header. A caption that holds "
            f"{delimiter!r} must stand in double quotes.",
            "row",
        )
    values = {name: value for name, value in row.items() if value is not None}
    broken = next((name for name, value in values.items() if not _is_utf8(value)), None)
    if broken is not None:
        return DataError(f"{where}, {broken}: {_NOT_UTF8}", "encoding")
    return {name: _unquoted(value) for name, value in values.items()} if delimiter == "\t" else values


def _unquoted(cell: str) -> str:
    """A cell of a TSV that was quoted by a program, which doubles the quotes within."""
    inner = cell[1:-1].replace('""', "")
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner:
        return cell[1:-1].replace('""', '"')
    return cell


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
        for number, line in enumerate(_text(file, columns), 1):
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
            if columns is not None:
                _refuse_images_within(table.schema_arrow, path)
            if columns is not None and not columns.fits(table.schema_arrow.names):
                found = table.schema_arrow.names
                raise DataError(f"{path}: {columns.what_is_missing(found)}; it has {', '.join(found)}.")
            for batch in table.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    yield f"{path}[{number}]", row
                    number += 1
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).", "row") from error


def _refuse_images_within(schema: pa.Schema, path: str) -> None:
    """A captions file names images; one that holds them is of another kind."""
    within = [
        field.name
        for field in schema
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
        or (pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0)
    ]  # fmt: skip
    if within:
        raise DataError(
            f"{path}: holds the images themselves (column {within[0]!r}), which Parquet cannot read at random. "
            "Save them as Arrow once, which vlc reads as it is (pip install datasets): "
            f"python -c \"import datasets; datasets.load_dataset('parquet', data_files='{path}', split='train')"
            ".save_to_disk('DIR')\""
        )


def _object(row: Any, where: str) -> Mapping[str, Any] | DataError:
    if isinstance(row, dict):
        return row
    return DataError(f'{where}: expected an object such as {{"image": ..., "captions": [...]}}.', "row")


_NOT_UTF8 = "not UTF-8 text. Save the file as UTF-8, or name its encoding, as in --encoding latin-1."


def _is_lines(path: str, columns: Columns | None) -> bool:
    """Whether each line of a file is an object of its own."""
    with reading(path), open_file(path) as file:
        lines = (line for line in _text(file, columns) if line.strip())
        first, second = next(lines, ""), next(lines, "")
    try:
        return isinstance(json.loads(first), dict) and second.lstrip().startswith("{")
    except (json.JSONDecodeError, RecursionError):
        return False


def _text(file: IO[bytes], columns: Columns | None) -> io.TextIOWrapper:
    """The text of a file, its encoding named by the columns or by its first bytes.

    Bytes that are none become surrogates, so that one bad cell does not cost the file.
    """
    start = file.read(4)
    file.seek(0)
    encoding = (columns or BY_NAME).encoding
    if encoding == "utf-8":
        encoding = "utf-16" if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    return io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline="")


def _is_utf8(value: str) -> bool:
    return value.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in value)
