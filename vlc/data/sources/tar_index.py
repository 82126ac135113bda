"""What a tar shard holds: where the image and the text of each sample lie, found by its headers.

They stand between the members, so that a shard in a bucket is read from front to back, in blocks; only members that are
longer than a block are jumped over. One request for each header would take longer than all bytes do.
"""

import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vlc.errors import DataError
from vlc.storage import open_file, reading, version_of

# Of several images of one sample the first in this order, open_clip's, is taken: `0.jpg`, not its mask `0.png`.
IMAGE_SUFFIXES = (
    "jpg", "png", "jpeg", "webp", "jfif", "gif", "bmp", "tif", "tiff", "avif", "jp2",
)  # fmt: skip
MEMBERS = ("image", "txt", "json")  # kinds of members that are read

Place = tuple[int, int, str]  # offset, size and suffix of a member
Samples = dict[str, dict[str, Place]]  # by key, the members of each kind


def index_shard(shard: str, notes: dict[str, Any]) -> Iterator[Sequence]:
    """Yields the rows of a shard's table; notes what is left out, and by which rule members are paired."""
    skipped: dict[str, int] = notes["skipped"]

    def leave_out(reason: str) -> None:
        skipped[reason] = skipped.get(reason, 0) + 1

    members = list(_members(shard, leave_out))
    samples, left = _paired(members, _by_last_dot)
    if members and not any(_is_pair(sample) for sample in samples.values()):
        others, others_left = _paired(members, _by_first_dot)
        if any(_is_pair(sample) for sample in others.values()):
            samples, left, notes["pairing"] = others, others_left, "first dot"
    for reason in left:
        leave_out(reason)
    for key, sample in samples.items():
        if "image" not in sample:
            leave_out("without image")
        elif sample.keys() == {"image"}:
            leave_out("without caption")
        else:
            places = (sample.get(name, (None, None, "")) for name in MEMBERS)
            yield mend_name(key), *(value for place in places for value in place[:2])


def _members(shard: str, leave_out: Callable[[str], None]) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, offset and size of the files of a shard."""
    size, _ = version_of(shard)
    seen: dict[str, tuple[int, int]] = {}  # what hard links may stand for
    with reading(shard), open_file(shard) as file:
        cut = False
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if not any(name for _, name in (_by_last_dot(member.name), _by_first_dot(member.name))):
                        continue
                    if PurePosixPath(member.name).name.startswith("._"):
                        continue  # what macOS writes beside a file, under its suffix
                    if member.islnk() and member.linkname in seen:
                        yield member.name, seen[member.linkname]
                    elif not member.isfile() or member.islnk():
                        leave_out("not a file")
                    elif _is_unsafe(member.name):
                        leave_out("unsafe path")
                    elif member.offset_data + member.size > size:
                        cut = True
                        break
                    else:
                        seen[member.name] = (member.offset_data, member.size)
                        yield member.name, seen[member.name]
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
) -> tuple[Samples, list[str]]:
    """Members by key and kind, and why others are left out: of two of one name the later counts, of two images that
    which comes first in `IMAGE_SUFFIXES`."""
    samples: Samples = {}
    left: list[str] = []
    for name, (offset, size) in members:
        key, kind = rule(name)
        if not kind:
            continue
        sample, suffix = samples.setdefault(key, {}), name.rpartition(".")[2].lower()
        if kind in sample:
            left.append("member twice" if sample[kind][2] == suffix else "second image")
            if kind == "image" and IMAGE_SUFFIXES.index(sample[kind][2]) < IMAGE_SUFFIXES.index(suffix):
                continue
        sample[kind] = (offset, size, suffix)
    return samples, left


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


def mend_name(name: str) -> str:
    """A file name as text: bytes that are no UTF-8, which Python carries as surrogates, are marked as lost."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _is_unsafe(name: str) -> bool:
    """Whether a member's name would lead out of the folder that the shard were unpacked in."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name


def _ends_here(file, offset: int) -> bool:
    """Whether the tar's end mark, a block of zeros, stands at or just before the offset; a cut tar has none."""
    file.seek(max(offset - tarfile.BLOCKSIZE, 0))
    return bytes(tarfile.BLOCKSIZE) in file.read(3 * tarfile.BLOCKSIZE)
