"""vlc's own exchange folder: `model.safetensors` with our names, and `vlc.json` with all that the weights need."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from vlc.config import Config, config_from_json
from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer
from vlc.errors import CheckpointError, ConfigError
from vlc.interop.load import Imported, abstract_params, fill, paths_of
from vlc.interop.rules import read_arrays, rule
from vlc.interop.weights import Safetensors, read_json
from vlc.storage import write_whole
from vlc.train.restoring import make_meta, read_meta

META, WEIGHTS = "vlc.json", "model.safetensors"


def is_native(folder: Path) -> bool:
    """Whether `write_native` wrote it."""
    return (folder / META).is_file()


def write_native(model: Imported, folder: Path) -> None:
    """Writes a model with its config, tokenizer and preprocessing; the description last, which marks a whole folder.

    Raises:
        CheckpointError: The folder holds something, or the disk is full.
    """
    check_empty(folder)
    write_tensors(folder / WEIGHTS, {path: np.asarray(value) for path, value in paths_of(model.params).items()})
    meta = make_meta(model.config.to_dict(), model.tokenizer, model.preprocess)
    own = {"step": model.step, "notes": list(model.notes), "sha256": sha256_of(folder / WEIGHTS)}
    write_text(folder / META, json.dumps(meta | own, indent=1))


def read_native(folder: Path) -> Imported:
    """Reads what `write_native` wrote.

    Raises:
        CheckpointError: A part is missing or damaged, or arrays do not fit the config.
    """
    meta, config, tokenizer, preprocess = read_description(folder / META)
    weights = checked_weights(folder / WEIGHTS, meta)
    shapes = abstract_params(config, tokenizer)
    ours = paths_of(shapes)
    arrays = read_arrays([rule(path, path) for path in ours], weights, ours, ignored=lambda *_: False)
    return Imported(
        config, fill(shapes, arrays), tokenizer, preprocess, tuple(meta.get("notes", ())), int(meta.get("step", 0))
    )


def check_empty(folder: Path) -> None:
    """Raises `CheckpointError` where a model would be written over something."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: there is something already; name a folder that is new or empty.")


def write_tensors(path: Path, arrays: dict[str, Any]) -> None:
    """Writes a safetensors file as a whole or not at all."""
    metadata = {"format": "pt"}  # transformers asks for it, whoever wrote the arrays
    _write(path, safetensors.numpy.save(arrays, metadata=metadata))


def write_text(path: Path, text: str) -> None:
    """Writes a text file as a whole or not at all."""
    _write(path, (text + "\n").encode())


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}).") from error


def read_description(path: Path) -> tuple[dict[str, Any], Config, Tokenizer | None, Preprocess | None]:
    """What lies beside weights of ours: all of it, and its config, tokenizer and preprocessing.

    Raises:
        CheckpointError: It is missing or damaged, or a part of it is.
    """
    meta = read_json(path)
    saved, tokenizer, preprocess = read_meta(meta, str(path.parent))
    try:
        return meta, config_from_json(saved), tokenizer, preprocess
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def checked_weights(path: Path, meta: dict[str, Any]) -> Safetensors:
    """The arrays of a file whose checksum its description has.

    Raises:
        CheckpointError: The file is missing, damaged, or another.
    """
    weights = Safetensors(path)
    if sha256_of(path) != meta.get("sha256"):
        raise CheckpointError(f"{path}: the checksum is not that of its description; the file was damaged or changed.")
    return weights


def sha256_of(path: Path) -> str:
    """The checksum of a file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
