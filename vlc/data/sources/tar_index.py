"""What a tar shard holds: where the image and the text of each sample lie, found by reading headers alone."""

import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vlc.data.files import open_file, reading, version_of
from vlc.errors import DataError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tiff")
MEMBERS = ("image", "txt", "json")  # kinds of members that are read

Samples = dict[str, dict[str, tuple[int, int]]]  # by key, offset and size of the members of each kind


def index_shard(shard: str, notes: dict[str, Any]) -> Iterator[Sequence]:
    """Yields the rows of a shard's table; notes what is left out, and by which rule members are paired."""
    skipped: dict[str, int] = notes["skipped"]

    def leave_out(reason: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    members = list(_members(shard, leave_out))
    samples, again = _paired(members, _by_last_dot)
    if members and not any(_is_pair(sample) for sample in samples.values()):
        others, others_again = _paired(members, _by_first_dot)
        if any(_is_pair(sample) for sample in others.values()):
            samples, again, notes["pairing"] = others, others_again, "first dot"
    for _ in range(again):
        leave_out("member twice")
    for key, sample in samples.items():
        if "image" not in sample:
            leave_out("without image")
        elif sample.keys() == {"image"}:
            leave_out("without caption")
        else:
            places = (sample.get(name, (None, None)) for name in MEMBERS)
            yield key, *(value for place in places for value in place)


def _members(shard: str, leave_out: Callable[[str], None]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, offset and size of the files of a shard."""
    size, _ = version_of(shard)
    with reading(shard), open_file(shard) as file:
        cut = False
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not any(name for _, name in (_by_last_dot(member.name), _by_first_dot(member.name))):
                        continue
                    if not member.isfile():
                        leave_out("not a file")
                    elif _is_unsafe(member.name):
                        leave_out("unsafe path")
                    elif member.offset_data + member.size > size:
                        cut = True
                        break
                    else:
                        yield member.name, (member.offset_data, member.size)
                cut = cut or not _ends_here(file, tar.offset)
        except (tarfile.TarError, EOFError):
            refuse_compressed(shard)
            cut = True
        if cut:
            leave_out("shard cut short")


def _by_last_dot(name: str) -> tuple[str, str]:
    """Key and kind of a member, the suffix being what stands after the last dot; the kind is empty for other files."""
    key, _, suffix = name.rpartition(".")
    return key, _kind_of(suffix) if key else ""


def _by_first_dot(name: str) -> tuple[str, str]:
    """As WebDataset itself has it: all after the first dot of the file name is the suffix, as in `s0.input.jpg`."""
    folder, slash, file = name.rpartition("/")
    key, _, suffixes = file.partition(".")
    return f"{folder}{slash}{key}", _kind_of(suffixes.rpartition(".")[2]) if key else ""


def _kind_of(suffix: str) -> str:
    kind = "image" if suffix.lower() in IMAGE_SUFFIXES else suffix.lower()
    return kind if kind in MEMBERS else ""


def _paired(
    members: Sequence[tuple[str, tuple[int, int]]], rule: Callable[[str], tuple[str, str]]
) -> tuple[Samples, int]:
    """Members by key and kind, and how many there are of one kind that a sample has already; the later counts."""
    samples: Samples = {}
    again = 0
    for name, place in members:
        key, kind = rule(name)
        if kind:
            sample = samples.setdefault(key, {})
            again += kind in sample
            sample[kind] = place
    return samples, again


def _is_pair(sample: Mapping[str, Any]) -> bool:
    return "image" in sample and len(sample) > 1


_COMPRESSED = {b"\x1f\x8b": ("gzip", "gunzip"), b"BZh": ("bzip2", "bunzip2"), b"\xfd7zXZ": ("xz", "unxz"),
               b"(\xb5/\xfd": ("zstd", "unzstd")}  # fmt: skip


def refuse_compressed(path: str) -> None:
    """Raises `DataError` where a file is a compressed tar."""
    with reading(path), open_file(path) as file:
        start = file.read(8)
    for magic, (name, command) in _COMPRESSED.items():
        if start.startswith(magic):
            raise DataError(
                f"{path}: is compressed ({name}). Records are read at random from within a shard, which only a "
                f"plain tar allows (and images do not shrink). Unpack it: {command} < {path} > NAME.tar"
            )


def _is_unsafe(name: str) -> bool:
    """Whether a member's name would lead out of the folder that the shard were unpacked in."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name


def _ends_here(file, offset: int) -> bool:
    """Whether the tar's end mark, a block of zeros, stands at or just before the offset; a cut tar has none."""
    file.seek(max(offset - tarfile.BLOCKSIZE, 0))
    return bytes(tarfile.BLOCKSIZE) in file.read(3 * tarfile.BLOCKSIZE)
