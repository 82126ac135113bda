"""A model as it is stored: the checkpoint of a run, a folder of ours or of another library."""

from pathlib import Path
from typing import Any, Literal

import jax

from vlc.config import config_from_json, has_average
from vlc.errors import CheckpointError, ConfigError
from vlc.interop import (
    Imported,
    base_of,
    import_model,
    is_lora_folder,
    is_native,
    merge_lora,
    read_lora,
    read_native,
    write_lora,
)
from vlc.interop.late_interaction import Role
from vlc.interop.load import abstract_params
from vlc.settings import is_whole
from vlc.storage import Place, from_hub, local_copy, place
from vlc.train.checkpoint import has_checkpoints, open_checkpoints
from vlc.train.restoring import read_meta

Step = int | Literal["last", "best"]


def read_stored(path: str | Path, step: Step = "last", tokenizer: str | Path = "", role: Role = "") -> Imported:
    """Reads a model; LoRA, where it has that, is not merged.

    Args:
        path: See `Model.load`.
        step: Which checkpoint of a run.
        tokenizer: Of another library's model.
        role: Of a text model that reads in two ways.

    Raises:
        ConfigError: `step` is of another type, or a role is named where there is none.
        CheckpointError: There is no model, or it is damaged.
    """
    if not (step in ("last", "best") or is_whole(step)):
        raise ConfigError(f'step is {step!r}; it must be "last", "best", or the number of a checkpoint.')
    there = place(from_hub(path))
    is_run = has_checkpoints(there)
    if not is_run and not there.exists():
        raise CheckpointError(
            f"{path}: no such file or folder. A run's workdir is meant (train first), or another library's model; "
            "one of the hub is hf://ORG/NAME."
        )
    if step != "last" and not is_run:
        raise CheckpointError(f"{path}: --step chooses among the checkpoints of a run, and this is none.")
    folder = None if is_run else local_copy(there)
    ours = folder is None or is_native(folder) or is_lora_folder(folder)
    if tokenizer and ours:
        raise CheckpointError(f"{path}: has its tokenizer; another cannot be named.")
    if role and ours:
        raise ConfigError(f'role="{role}": {path} was written with the one way in which it reads texts.')
    if folder is None:
        return read_run(there, step)
    if is_native(folder):
        return read_native(folder)
    if is_lora_folder(folder):
        return read_lora(folder, _read_base(base_of(folder), folder))
    words = local_copy(from_hub(tokenizer)) if tokenizer else ""
    return import_model(folder, tokenizer=words, role=role)


def read_run(path: Place, step: Step = "last") -> Imported:
    """Reads a checkpoint of a run.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    checkpoints = open_checkpoints(path, read_only=True)
    loaded: dict[str, Any] = {}

    def abstract(meta: dict) -> dict[str, Any]:
        saved, tokenizer, preprocess = read_meta(meta, str(path))
        config = config_from_json(saved)
        loaded.update(config=config, tokenizer=tokenizer, preprocess=preprocess)
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shapes = abstract_params(config, tokenizer)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), shapes)
        return {"ema" if has_average(config.optimizer) else "params": shapes}

    if step == "best":
        step = checkpoints.best_step() or "last"
    try:
        restored = checkpoints.restore(abstract, step=None if step == "last" else int(step))
    finally:
        checkpoints.close()
    if restored is None:
        raise CheckpointError(f"{path}: no finished checkpoint there yet.")
    state, meta = restored
    return Imported(params=next(iter(state.values())), step=meta["step"], **loaded)


def export_lora(path: str | Path, step: Step, folder: Path) -> None:
    """Writes what a run with LoRA has learnt, without the model that it started from (`vlc.interop.write_lora`).

    Raises:
        CheckpointError: It has no LoRA, or the model that it started from cannot be loaded.
    """
    model = read_stored(path, step)
    if not model.config.model.lora.rank:
        raise CheckpointError(f"{path}: has no LoRA (config.model.lora.rank). Use --format safetensors.")
    if not model.config.init:
        raise CheckpointError(f"{path}: started from no other model (config.init), which LoRA would be kept beside.")
    write_lora(model, _read_base(model.config.init, path), folder)


def _read_base(base: str, of: str | Path) -> Imported:
    """The model that LoRA was trained beside."""
    try:
        return merge_lora(read_stored(base))
    except CheckpointError as error:
        raise CheckpointError(f"{of}: its LoRA belongs to {base}, which cannot be loaded. {error}") from error
