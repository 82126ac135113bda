"""WebDataset tar shards with random access, through an index of where each member lies."""

import glob
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlc.data.record import Record, clean_captions
from vlc.data.sources.folder import captions_of
from vlc.errors import DataError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
TEXT_SUFFIXES = ("txt", "json")


@dataclass(frozen=True)
class Entry:
    """One sample: its shard, its key, and `(offset, size)` in bytes of each member by suffix."""

    shard: Path
    key: str
    members: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class WebDataset:
    """Samples of tar shards: an image (`jpg|jpeg|png|webp`) with a `txt` or `json` of the same name.

    A `json` holds `caption`, `text` or `captions`, as a line of `Folder` does; without it the `txt` is the caption.

    Attributes:
        entries: The samples in shard order.
        skipped: Samples left out when the shards were indexed, by reason.
    """

    entries: tuple[Entry, ...]
    skipped: Mapping[str, int]

    @classmethod
    def open(cls, pattern: str | Path) -> "WebDataset":
        """Indexes a folder, one tar, or a glob of them. Reads headers only.

        Raises:
            DataError: Nothing matches, or no shard holds an image with a caption.
        """
        entries: list[Entry] = []
        skipped: dict[str, int] = {}
        shards = find_shards(pattern)
        for shard in shards:
            for entry, reason in _index_shard(shard):
                if reason:
                    skipped[reason] = skipped.get(reason, 0) + 1
                if entry:
                    entries.append(entry)
        if not entries:
            found = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "they are empty"
            raise DataError(f"{pattern}: {len(shards)} shards, but no image with a txt or json beside it ({found}).")
        return cls(tuple(entries), skipped)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Record:
        entry = self.entries[index]
        where = f"{entry.shard}:{entry.key}"
        parts = {}
        try:
            with entry.shard.open("rb") as file:
                for suffix, (offset, size) in entry.members.items():
                    file.seek(offset)
                    parts[suffix] = file.read(size)
        except OSError as error:
            raise DataError(f"{where}: cannot be read ({error.strerror}).") from error
        image = next(parts[suffix] for suffix in IMAGE_SUFFIXES if suffix in parts)
        return Record(entry.key, image, clean_captions(_captions(parts, where), where))


def find_shards(pattern: str | Path) -> list[Path]:
    """The tar files that a folder, a file name or a glob stands for, sorted.

    Raises:
        DataError: None is there.
    """
    path = Path(pattern)
    found = path.glob("*.tar") if path.is_dir() else map(Path, glob.glob(str(pattern)))
    shards = sorted(found)
    if not shards:
        raise DataError(f"{pattern}: no tar shard there. Give a folder with *.tar files, one file, or a quoted glob.")
    return shards


def _captions(parts: Mapping[str, bytes], where: str) -> dict:
    try:
        if "json" in parts:
            row = json.loads(parts["json"])
            if isinstance(row, dict) and ("txt" not in parts or {"captions", "caption", "text"} & row.keys()):
                return captions_of(row, where)
        return {"text": [parts["txt"].decode("utf-8")]}
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: its text is not valid UTF-8 JSON or text ({error}).") from error
    except KeyError as error:
        raise DataError(f"{where}: its json is not an object with a caption, and there is no txt.") from error


def _index_shard(shard: Path):
    """Yields `(entry or None, reason or None)` for the samples of one shard, in order."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    cut = False
    try:
        size = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if member.offset_data + member.size > size:
                    cut = True
                    break
                key, _, suffix = member.name.rpartition(".")
                suffix = suffix.lower()
                if suffix in IMAGE_SUFFIXES + TEXT_SUFFIXES:
                    groups.setdefault(key, {})[suffix] = (member.offset_data, member.size)
            cut = cut or not _ends_here(shard, tar.offset)
    except (tarfile.TarError, EOFError):
        cut = True
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror}).") from error
    if cut:
        yield None, "shard cut short"
    for key, members in groups.items():
        if not any(suffix in members for suffix in IMAGE_SUFFIXES):
            yield None, "without image"
        elif not any(suffix in members for suffix in TEXT_SUFFIXES):
            yield None, "without caption"
        else:
            yield Entry(shard, key, members), None


def _ends_here(shard: Path, offset: int) -> bool:
    """Whether the tar's end mark, a block of zeros, stands at or just before the offset; a cut tar has none."""
    with shard.open("rb") as file:
        file.seek(max(offset - tarfile.BLOCKSIZE, 0))
        return bytes(tarfile.BLOCKSIZE) in file.read(3 * tarfile.BLOCKSIZE)
