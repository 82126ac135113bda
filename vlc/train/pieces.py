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
from vlc.train.restoring import paths_of

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


def held_here(tree: Mapping[str, jax.Array], *, copies: bool = False) -> Held:
    """Copies, on the host, of what is this process's to write of arrays by path.

    Args:
        tree: The arrays.
        copies: Every block that this process's devices hold, each once; else each block belongs to one process.
    """
    for array in tree.values():
        array.copy_to_host_async()
    return {path: _blocks_of(array, copies) for path, array in tree.items()}


def _blocks_of(array: jax.Array, copies: bool) -> list[tuple[tuple[int, ...], np.ndarray]]:
    own = {
        tuple(part.start or 0 for part in shard.index): shard
        for shard in array.addressable_shards
        if copies or shard.replica_id == 0
    }
    return [(start, np.array(shard.data, copy=True)) for start, shard in own.items()]


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
        for path, found in self._of.items():  # several processes may have written the same block
            first = {(piece.start, piece.shape): (folder, piece) for folder, piece in reversed(found)}
            self._of[path] = list(first.values())

    def blocks(self) -> dict[str, Piece]:
        """The pieces by a name that is the same for the same block, wherever it was written."""
        every = (piece for found in self._of.values() for _, piece in found)
        return {hashlib.sha256(f"{p.path} {p.start} {p.shape}".encode()).hexdigest()[:16]: p for p in every}

    def read_block(self, piece: Piece) -> np.ndarray:
        """A block, checked; `Damaged` where it is."""
        folder = next(folder for folder, other in self._of[piece.path] if other is piece)
        return _read_piece(folder, piece)

    def cover(self, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> bool:
        """Whether all is there that this process needs of these arrays."""
        return all(
            self._filled(path, bounds) == _size(bounds)
            for path, like in wanted.items()
            for bounds in _needed_here(like)
        )

    def _filled(self, path: str, bounds: "Bounds") -> int:
        return sum(_size(_common(bounds, piece)) for _, piece in self._of.get(path, []))

    def read_tree(self, name: str, abstract: Any) -> Any:
        """A part of a checkpoint: see `read`."""
        like = paths_of({name: abstract})
        found = self.read(like)
        return jax.tree.unflatten(jax.tree.structure(abstract), [found[path] for path in like])

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
        read: dict[Piece, np.ndarray] = {}
        return {bounds: self._block(path, bounds, like.dtype, read) for bounds in _needed_here(like)}

    def _block(self, path: str, bounds: "Bounds", dtype: Any, read: dict[Piece, np.ndarray]) -> np.ndarray:
        made = np.zeros([stop - start for start, stop in bounds], dtype)
        filled = 0
        for folder, piece in self._of.get(path, []):
            common = _common(bounds, piece)
            if not _size(common):
                continue
            if piece not in read:
                read[piece] = _read_piece(folder, piece)
            there = tuple(slice(a - p, b - p) for (a, b), p in zip(common, piece.start, strict=True))
            here = tuple(slice(a - p, b - p) for (a, b), (p, _) in zip(common, bounds, strict=True))
            made[here] = read[piece][there]
            filled += _size(common)
        if filled != made.size:
            raise Damaged(f"a part of {path} is missing")
        return made

    def _array(self, blocks: dict[tuple, np.ndarray], like: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.make_array_from_callback(like.shape, like.sharding, lambda index: blocks[_bounds(index, like.shape)])


Bounds = tuple[tuple[int, int], ...]  # where a block begins and ends, in each axis


def _bounds(index: Any, shape: tuple[int, ...]) -> Bounds:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))


def _needed_here(like: jax.ShapeDtypeStruct) -> set[Bounds]:
    """The blocks of an array that this process's devices hold."""
    indices = like.sharding.addressable_devices_indices_map(like.shape).values()
    return {_bounds(index, like.shape) for index in indices}


def _common(bounds: Bounds, piece: Piece) -> Bounds:
    """What a block and a piece have in common; of no size where that is nothing."""
    return tuple(
        (max(a, p), max(min(b, p + n), a, p)) for (a, b), p, n in zip(bounds, piece.start, piece.shape, strict=True)
    )


def _size(bounds: Bounds) -> int:
    return int(np.prod([b - a for a, b in bounds], dtype=np.int64))


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
