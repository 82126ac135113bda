"""Files of named arrays, read without executing anything: safetensors (one file or shards) and `.npz`."""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import safetensors

from vlc.errors import CheckpointError

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack")
_FLOATS = {"F32", "F16", "BF16"}


@dataclass(frozen=True)
class Entry:
    """Shape and type of an array in a file."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def is_float(self) -> bool:
        """Whether float32 holds its values exactly."""
        return self.dtype in _FLOATS

    def __str__(self) -> str:
        return f"{list(self.shape)} {self.dtype}"


class Weights(Protocol):
    """Named arrays in files.

    Attributes:
        where: The file or folder, for messages.
        entries: What there is, without reading it.
    """

    where: str

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def read(self, name: str) -> np.ndarray:
        """One array as float32.

        Raises:
            CheckpointError: It cannot be read, or holds a number that is not finite.
        """
        ...


class Safetensors:
    """One `.safetensors` file, or the shards that an index names."""

    def __init__(self, path: Path):
        self.where = str(path)
        self._file_of: dict[str, Path] = {}
        self.entries: dict[str, Entry] = {}
        for file, expected in _shards(path).items():
            for name, entry in _header(file).items():
                if expected is None or name in expected:
                    self.entries[name], self._file_of[name] = entry, file
            lacking = sorted((expected or set()) - set(self._file_of))
            if lacking:
                raise CheckpointError(f"{file}: lacks {lacking[0]} and {len(lacking) - 1} more that the index names.")

    def read(self, name: str) -> np.ndarray:
        file = self._file_of[name]
        with _reading(file), safetensors.safe_open(file, framework="numpy") as opened:
            return _finite(_as_float32(opened, name, self.entries[name]), name, file)


def _as_float32(opened: Any, name: str, entry: Entry) -> np.ndarray:
    if entry.dtype != "BF16":
        return np.asarray(opened.get_tensor(name), np.float32)
    return np.asarray(opened.get_tensor(name)).view(ml_dtypes.bfloat16).astype(np.float32).reshape(entry.shape)


def _shards(path: Path) -> dict[Path, set[str] | None]:
    """The files to read, and the names that each must hold where an index says so."""
    if not path.name.endswith(".index.json"):
        return {path: None}
    try:
        names: dict[str, str] = json.loads(path.read_text())["weight_map"]
        shards: dict[Path, set[str] | None] = {}
        for name, file in names.items():
            place = shards.setdefault(path.parent / Path(file).name, set())
            assert place is not None
            place.add(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: the index of the shards cannot be read ({error!r}).") from error
    missing = [file.name for file in shards if not file.is_file()]
    if missing:
        raise CheckpointError(f"{path.parent}: shards named by {path.name} are missing: {', '.join(missing)}.")
    return shards


def _header(file: Path) -> dict[str, Entry]:
    with _reading(file), safetensors.safe_open(file, framework="numpy") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {name: Entry(tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}


class Npz:
    """A `.npz` of big_vision, whose names are paths with `/`."""

    def __init__(self, path: Path):
        self.where = str(path)
        self._path = path
        with _reading(path), zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".npy")]
            self.entries = {name.removesuffix(".npy"): _npy_header(archive, name) for name in names}

    def read(self, name: str) -> np.ndarray:
        with _reading(self._path), np.load(self._path, allow_pickle=False) as opened:
            return _finite(np.asarray(opened[name], np.float32), name, self._path)


def _npy_header(archive: zipfile.ZipFile, name: str) -> Entry:
    with archive.open(name) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise CheckpointError(f"{archive.filename}: {name} holds Python objects, which are never read.")
    known = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16"}
    return Entry(shape, known.get(dtype, str(dtype)))


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turns what a damaged or missing file makes the libraries raise into one message."""
    try:
        yield
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"{file}: no such file.") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{file}: damaged or cut short ({error}). Download it again.") from error


def _finite(array: np.ndarray, name: str, file: Path) -> np.ndarray:
    if not np.isfinite(array).all():
        raise CheckpointError(f"{file}: {name} holds numbers that are not finite; the file is damaged.")
    return array


class Joined:
    """The arrays of one file, and those of another under names that begin with a prefix."""

    def __init__(self, first: Weights, prefix: str, second: Weights):
        self.where = first.where
        self._parts, self._prefix = (first, second), prefix
        self.entries = {**first.entries, **{prefix + name: entry for name, entry in second.entries.items()}}

    def read(self, name: str) -> np.ndarray:
        first, second = self._parts
        return first.read(name) if name in first.entries else second.read(name.removeprefix(self._prefix))


def find_weights(folder: Path, names: tuple[str, ...]) -> Weights:
    """The first of the named files in a folder.

    Raises:
        CheckpointError: There is none; pickles are never opened.
    """
    for name in names:
        if (folder / name).is_file():
            return Safetensors(folder / name)
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise CheckpointError(
            f"{folder}: the weights are in {', '.join(pickles)}, which can run code when opened, so they never are. "
            f"Save the model as safetensors ({names[0]}), with the library that it comes from."
        )
    raise CheckpointError(f"{folder}: no weights there (looked for {', '.join(names)}).")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: The file is missing, damaged, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: a JSON object is meant, it holds {type(found).__name__}.")
    return found


def read_json_if_there(path: Path) -> dict[str, Any]:
    """As `read_json`; empty where there is no such file."""
    return read_json(path) if path.is_file() else {}
