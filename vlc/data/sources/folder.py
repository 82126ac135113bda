"""Images named by a captions file: JSONL, JSON, CSV, TSV, Parquet, and the files of ImageFolder and Flickr8k."""

import array
import hashlib
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from vlc.data.record import CaptionTypeError, flatten_captions, group_captions, mend_text
from vlc.data.sources.captions_file import CAPTION_FILES, SUFFIXES, read_rows
from vlc.data.sources.columns import BY_NAME, Columns
from vlc.data.sources.kind import Location, SourceKind
from vlc.data.sources.listed import SCHEMA, Listed, as_structs, image_root
from vlc.data.table import Table, kept_table, write_table
from vlc.errors import DataError
from vlc.storage import is_folder, join, parent


@dataclass(frozen=True)
class Folder(Listed):
    """Images by path or URL, with the captions that a file gives them.

    A JSONL line is `{"image": "a.jpg", "caption": "..."}` or `{"image": "a.jpg", "captions": ["...", "..."]}` or, by
    source, `{"image": "a.jpg", "captions": {"alt": ["..."], "long": ["..."]}}`; `regions` and `graph` are optional. The
    columns of a CSV, TSV or Parquet file are known by their names (`vlc.data.sources.columns`), those of DreamLIP's and
    ShareGPT4V's releases among them. An image may stand in several rows. `twins` names images that differ in one thing.
    """

    @classmethod
    def open(cls, path: str | Path, columns: Columns = BY_NAME) -> "Folder":
        """Reads the captions file of a folder, or the file itself.

        Rows that cannot be used are left out and counted in `skipped`.

        Raises:
            DataError: There is no captions file, none of its rows can be used, or a string stands where a list of
                captions is meant.
        """
        path = str(path)
        if is_folder(path):
            path = _captions_file(path)
        if PurePath(path).stem == "metadata":  # ImageFolder has any column of text
            columns = replace(columns, any_text=True)
        root = columns.names.get("root") or parent(path)
        table = captions_table(path, columns)
        if not len(table):
            skipped = table.notes["skipped"]
            first = table.notes["first"]
            raise DataError(
                f"{path}: the file holds no image that can be used."
                + (f" {sum(skipped.values())} rows were left out; the first says: {first}" if first else "")
            )
        return cls(image_root(root, table.get("image", 0)), table)


def _captions_file(folder: str) -> str:
    """The captions file of a folder, or of its folder `train` (ImageFolder).

    Raises:
        DataError: There is none.
    """
    found = Location(folder)
    for place in (found, found.below("train")):
        name = next((name for name in CAPTION_FILES if name in place.names), None)
        if name:
            return join(place.path, name)
    raise DataError(f"{folder}: none of {', '.join(CAPTION_FILES)} is in this folder.")


def captions_table(path: str, columns: Columns) -> Table:
    """The images that a captions file names with their captions, found again or made and kept."""
    return kept_table("captions", [path], parent(path), lambda out: _index(path, columns, out), columns.settings())


def digest_of(name: str) -> int:
    """64 bits that stand for a name, where millions of them are looked for again."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _index(path: str, columns: Columns, out: Path) -> None:
    """Writes the table of a captions file: a row of the file at a time, then those of one image put together.

    In memory are eight bytes a row.
    """
    skipped: dict[str, int] = {}
    first: list[str] = []
    digests = array.array("Q")

    def rows() -> Iterator[tuple[Any, ...]]:
        for where, row in read_rows(path, columns):
            try:
                values = _values(row, columns, where)
            except CaptionTypeError:
                raise
            except DataError as error:
                skipped[error.reason] = skipped.get(error.reason, 0) + 1
                first[:] = first or [str(error)]
                continue
            digests.append(digest_of(values[0]))
            yield values

    def notes() -> dict[str, Any]:
        return {"skipped": skipped, "first": first[0] if first else "", "rows": len(digests)}

    single = out.with_name(f".rows-{secrets.token_hex(4)}-{out.name}")
    try:
        write_table(single, rows(), SCHEMA, notes)
        groups = _groups(np.frombuffer(digests, np.uint64)) if digests else []
        if len(groups) == len(digests):
            os.replace(single, out)
        else:
            write_table(out, _joined(Table(single), groups), SCHEMA, notes)
    finally:
        single.unlink(missing_ok=True)


def _values(row: Mapping[str, Any] | DataError, columns: Columns, where: str) -> tuple[Any, ...]:
    """A row of the table: image, captions, regions, URL, negatives and twins."""
    if isinstance(row, DataError):
        raise row
    image, captions = columns.image_of(row, where), columns.captions_of(row, where)
    url, wrong = row.get("url"), flatten_captions(columns.negatives_of(row, captions, where))
    return (
        image,
        as_structs(captions),
        columns.parts_of(row, where).plain() or None,
        mend_text(url) if isinstance(url, str) else None,
        [{"caption": caption, "text": text} for caption, text in wrong],
        list(columns.twins_of(row, where)),
    )


def _groups(digests: np.ndarray) -> list[np.ndarray]:
    """The rows of each image, in the order in which the images come first."""
    order = np.argsort(digests, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(digests[order])) + 1)
    return sorted(groups, key=lambda rows: rows[0])


def _joined(table: Table, groups: Sequence[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """What all rows of an image say of it: their captions, negatives and twins in order, and the regions and URL of the
    first that has any."""
    for rows in groups:
        by_image: dict[str, list[Any]] = {}  # two names of one digest stay two images
        for row in rows.tolist():
            image, *values = (table.get(name, row) for name in SCHEMA.names)
            known = by_image.setdefault(image, [image, [], None, None, [], []])
            known[1] += values[0]
            known[2:4] = [old if old is not None else new for old, new in zip(known[2:4], values[1:3], strict=True)]
            known[4] += values[3] or []
            known[5] += values[4] or []
        for image, captions, regions, url, wrong, twins in by_image.values():
            sources = group_captions((caption["source"], caption["text"]) for caption in captions)
            yield image, as_structs(sources), regions, url, wrong, list(dict.fromkeys(twins))


def _is_captions_file(place: Location) -> bool:
    if place.is_folder:
        return any(name in place.names or name in place.below("train").names for name in CAPTION_FILES)
    return place.path.lower().endswith((*SUFFIXES, ".token")) and place.is_file


KIND = SourceKind(
    "a captions file, or a folder with one",
    _is_captions_file,
    lambda place, columns, _: Folder.open(place.path, columns),
)
