"""Arrays as the pieces that each process holds of them, in a few large files; and back, on any other mesh.

A process writes what it holds into files of its own, in a folder of its own, and last an index of them. Whoever reads
takes the pieces that it needs from whatever folders have them. Nothing is renamed or merged, so that it is the same on
a disk and in a bucket.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np

from vlc.errors import DataError
from vlc.storage import Place, read_range, write_whole
from vlc.train.damage import Damaged

INDEX = "index.json"
_FILE = 128 << 20  # bytes of a file, unless one piece is larger
_AT_ONCE = 8  # requests


@dataclass(frozen=True)
class Piece:
    """A block of an array.

    Attributes:
        path: The array's.
        start: Where the block begins, in each axis.
        shape: Its size in each axis.
        dtype: The array's.
        file: Name of the file.
        offset: Where it begins there, in bytes.
        size: Its bytes.
        crc: Their CRC-32.
    """

    path: str
    start: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    file: str
    offset: int
    size: int
    crc: int


Held = dict[str, list[tuple[tuple[int, ...], np.ndarray]]]  # by path: where a block begins, and the block


def held_here(tree: Mapping[str, jax.Array]) -> Held:
    """Copies, on the host, of what is this process's to write of arrays by path: each block belongs to one process."""
    for array in tree.values():
        array.copy_to_host_async()
    held: Held = {}
    for path, array in tree.items():
        own = (shard for shard in array.addressable_shards if shard.replica_id == 0)
        held[path] = [
            (tuple(part.start or 0 for part in shard.index), np.array(shard.data, copy=True)) for shard in own
        ]
    return held


def write_pieces(folder: Place, held: Held) -> None:
    """Writes what `held_here` gave; the index last, so that where it is, all is."""
    pieces: list[Piece] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sent = []
        for number, group in enumerate(_in_files(held)):
            name, offset, parts = f"data-{number:04d}.bin", 0, []
            for path, start, block in group:
                data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).tobytes()
                pieces.append(
                    Piece(path, start, block.shape, str(block.dtype), name, offset, len(data), zlib.crc32(data))
                )
                parts.append(data)
                offset += len(data)
            sent.append(pool.submit(write_whole, folder / name, b"".join(parts)))
            if len(sent) >= _AT_ONCE:  # no more of them in memory at once
                sent.pop(0).result()
        for one in sent:
            one.result()
    text = json.dumps([asdict(piece) for piece in pieces]).encode()
    write_whole(folder / INDEX, text)


def _in_files(held: Held) -> Iterator[list[tuple[str, tuple[int, ...], np.ndarray]]]:
    group: list[tuple[str, tuple[int, ...], np.ndarray]] = []
    size = 0
    for path, blocks in held.items():
        for start, block in blocks:
            if group and size + block.nbytes > _FILE:
                yield group
                group, size = [], 0
            group.append((path, start, block))
            size += block.nbytes
    if group:
        yield group


class Pieces:
    """The pieces of several folders, to put arrays together from.

    Raises:
        Damaged: An index is missing or none.
    """

    def __init__(self, folders: Mapping[Place, str]):
        """
        Args:
            folders: Each with the SHA-256 of its index.
        """
        self._of: dict[str, list[tuple[Place, Piece]]] = {}
        for folder, known in folders.items():
            for piece in _read_index(folder, known):
                self._of.setdefault(piece.path, []).append((folder, piece))

    def read(self, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Arrays with the shardings that they are asked for with; each process reads what it needs.

        Raises:
            Damaged: A piece is missing, cut short or changed.
            OSError: The store cannot be read.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            blocks = dict(zip(wanted, pool.map(lambda path: self._blocks(path, wanted[path]), wanted), strict=True))
        return {path: self._array(blocks[path], like) for path, like in wanted.items()}

    def _blocks(self, path: str, like: jax.ShapeDtypeStruct) -> dict[tuple, np.ndarray]:
        """What this process needs of an array, by place."""
        indices = {
            _bounds(index, like.shape) for index in like.sharding.addressable_devices_indices_map(like.shape).values()
        }
        read: dict[Piece, np.ndarray] = {}
        return {bounds: self._block(path, bounds, like.dtype, read) for bounds in indices}

    def _block(self, path: str, bounds: tuple, dtype: Any, read: dict[Piece, np.ndarray]) -> np.ndarray:
        made = np.zeros([stop - start for start, stop in bounds], dtype)
        filled = 0
        for folder, piece in self._of.get(path, []):
            common = [(max(a, p), min(b, p + n)) for (a, b), p, n in zip(bounds, piece.start, piece.shape, strict=True)]
            if any(a >= b for a, b in common):
                continue
            if piece not in read:
                read[piece] = _read_piece(folder, piece)
            there = tuple(slice(a - p, b - p) for (a, b), p in zip(common, piece.start, strict=True))
            here = tuple(slice(a - p, b - p) for (a, b), (p, _) in zip(common, bounds, strict=True))
            made[here] = read[piece][there]
            filled += int(np.prod([b - a for a, b in common], dtype=np.int64))
        if filled != made.size:
            raise Damaged(f"a part of {path} is missing")
        return made

    def _array(self, blocks: dict[tuple, np.ndarray], like: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: blocks[_bounds(index, like.shape)])


def _bounds(index: Any, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _read_index(folder: Place, known: str) -> list[Piece]:
    try:
        text = (folder / INDEX).read_bytes()
        if hashlib.sha256(text).hexdigest() != known:
            raise Damaged(f"the checksum of {folder / INDEX} is wrong")
        listed = json.loads(text)
        return [Piece(**one | {"start": tuple(one["start"]), "shape": tuple(one["shape"])}) for one in listed]
    except FileNotFoundError as error:
        raise Damaged(f"{folder / INDEX} is missing") from error
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{folder / INDEX} is no index ({error!r})") from error


def _read_piece(folder: Place, piece: Piece) -> np.ndarray:
    place = folder / piece.file
    data = _read_bytes(place, piece)
    if zlib.crc32(data) != piece.crc:
        raise Damaged(f"the checksum of {piece.path} in {place} is wrong")
    return np.frombuffer(data, np.uint8).view(np.dtype(piece.dtype)).reshape(piece.shape)


def _read_bytes(place: Place, piece: Piece) -> bytes:
    if not piece.size:
        return b""
    try:
        return read_range(place, piece.offset, piece.size)
    except DataError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, FileNotFoundError):
            raise error.__cause__ from None
        raise Damaged(str(error)) from error
