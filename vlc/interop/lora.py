"""What LoRA has learnt: merged into the matrices, or as a small folder beside the model that it was made for."""

import json
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import numpy as np

from vlc.errors import CheckpointError
from vlc.interop.load import Imported, abstract_params, fill, paths_of
from vlc.interop.native import check_empty, checked_weights, read_description, sha256_of, write_tensors, write_text
from vlc.interop.rules import read_arrays, rule
from vlc.interop.weights import read_json
from vlc.models.lora import NAMES, is_lora, merged
from vlc.train.restoring import array_checksums, make_meta

META, WEIGHTS = "lora.json", "lora.safetensors"


def merge_lora(model: Imported) -> Imported:
    """The same function without LoRA: each matrix with what was learnt beside it added in."""
    lora = model.config.model.lora
    if not lora.rank:
        return model
    ours = paths_of(model.params)
    plain = {path: value for path, value in ours.items() if not is_lora(path)}
    for path in plain:
        first, second = (ours.get(f"{path.removesuffix('kernel')}{name}") for name in NAMES)
        if path.endswith("/kernel") and first is not None and second is not None:
            plain[path] = merged(plain[path], first, second, lora.alpha / lora.rank)
    config = model.config.copy_and_resolve_references()
    config.model.lora.rank = 0
    return replace(model, config=config, params=fill(abstract_params(config, model.tokenizer), plain))


def is_lora_folder(folder: Path) -> bool:
    """Whether `write_lora` wrote it."""
    return (folder / META).is_file()


def write_lora(model: Imported, base: Imported, folder: Path) -> None:
    """Writes what a model has that the one it started from has not: LoRA's matrices, and whatever else was trained.

    Args:
        model: With LoRA, not merged.
        base: That `config.init` of the model names.
        folder: New or empty.

    Raises:
        CheckpointError: The folder holds something, or the disk is full.
    """
    check_empty(folder)
    known = {path: np.asarray(value) for path, value in paths_of(base.params).items()}
    ours = {path: np.asarray(value) for path, value in paths_of(model.params).items()}
    own = {path: x for path, x in ours.items() if path not in known or not np.array_equal(known[path], x)}
    write_tensors(folder / WEIGHTS, own)
    meta = make_meta(model.config.to_dict(), model.tokenizer, model.preprocess)
    used = {"base": model.config.init, "base_checksums": _checksums(base, ours.keys() - own.keys())}
    rest = {"step": model.step, "notes": list(model.notes), "sha256": sha256_of(folder / WEIGHTS)}
    write_text(folder / META, json.dumps(meta | used | rest, indent=1))


def base_of(folder: Path) -> str:
    """The path of the model that it was made for."""
    return str(read_json(folder / META).get("base", ""))


def read_lora(folder: Path, base: Imported) -> Imported:
    """What `write_lora` wrote, with the rest from the model that it was made for; not merged.

    Raises:
        CheckpointError: A part is missing or damaged, or it was made for another model.
    """
    meta, config, tokenizer, preprocess = read_description(folder / META)
    weights = checked_weights(folder / WEIGHTS, meta)
    shapes = abstract_params(config, tokenizer)
    ours, theirs = paths_of(shapes), paths_of(base.params)
    own = {path: shape for path, shape in ours.items() if path in weights.entries}
    rest = {path: theirs[path] for path in ours.keys() - own.keys() if path in theirs}
    same = all(x.shape == ours[path].shape for path, x in rest.items()) and len(own) + len(rest) == len(ours)
    if not same or _checksums(base, rest) != meta.get("base_checksums"):
        raise CheckpointError(f"{folder}: was made for another model than {meta.get('base')} is; weights differ.")
    arrays = read_arrays([rule(path, path) for path in own], weights, own, ignored=lambda *_: False)
    params = fill(shapes, arrays | {path: np.asarray(x) for path, x in rest.items()})
    return Imported(config, params, tokenizer, preprocess, tuple(meta.get("notes", ())), int(meta.get("step", 0)))


def _checksums(model: Imported, paths: Container[str]) -> dict[str, int]:
    """Of the arrays that are taken from a model."""
    return array_checksums({path: x for path, x in paths_of(model.params).items() if path in paths})
