"""What checkpoints have in common, wherever they lie: what travels with them, how they are checked, which one is used.

A checkpoint holds the parts of the train state, each an item of its own, and `meta` (config, tokenizer,
preprocessing, what was seen): it can be loaded without anything else, and the parameters without the optimizer. It
carries a checksum, shape and dtype of every array; one that is proven damaged is set aside and the one before is used,
and an array that does not fit the model is an error that names every difference.
"""

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer, tokenizer_from_json
from vlc.errors import CheckpointError, ConfigError, DataError
from vlc.parallel import allgather_objects
from vlc.storage import Place
from vlc.train.damage import Damaged, read_patiently

log = logging.getLogger("vlc")


def make_meta(config: dict[str, Any], tokenizer: Tokenizer | None, preprocess: Preprocess | None) -> dict[str, Any]:
    """What travels with the weights, as JSON."""
    return {
        "config": config,
        "tokenizer": tokenizer.to_json() if tokenizer is not None else None,
        "preprocess": preprocess.to_json() if preprocess is not None else None,
    }


def read_meta(meta: dict[str, Any], where: str) -> tuple[dict[str, Any], Tokenizer | None, Preprocess | None]:
    """Undoes `make_meta`.

    Raises:
        CheckpointError: A part is missing: a model without its tokenizer or preprocessing gives wrong answers quietly.
            Only a model without the tower does without.
    """
    config = meta.get("config") or {}
    towers = config.get("model", {})
    for part, tower in (("config", ""), ("tokenizer", "text"), ("preprocess", "image")):
        if not meta.get(part) and towers.get(tower, {}).get("layers") != 0:
            raise CheckpointError(f"{where}: the checkpoint has no {part}, so it cannot be used as it was trained.")
    words, pixels = meta.get("tokenizer"), meta.get("preprocess")
    try:
        tokenizer = tokenizer_from_json(words) if words else None
        preprocess = Preprocess.from_json(pixels) if pixels else None
    except (CheckpointError, ConfigError, DataError) as error:
        raise CheckpointError(f"{where}: {error}") from error
    return config, tokenizer, preprocess


class Restoring(ABC):
    """Finished checkpoints of a run, to be restored from.

    Attributes:
        path: Where they lie, a folder each.
        read_only: Nothing is ever written or moved.
    """

    path: Place
    read_only: bool

    @abstractmethod
    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, in order."""

    @abstractmethod
    def best_step(self) -> int | None:
        """The step with the best score; the newest where none was scored."""

    @abstractmethod
    def best_score(self) -> float:
        """The score of that step; minus infinity where none was scored."""

    @abstractmethod
    def save(self, step: int, state: Any, meta: dict[str, Any], *, score: float | None = None) -> None:
        """Starts to save; returns when the state may be changed. Errors of the save before surface here.

        Args:
            step: Number of updates done.
            state: The train state, a dict of trees.
            meta: JSON; `arrays` and `checksum` are added to it.
            score: Larger is better; decides which checkpoint is kept as the best.

        Raises:
            CheckpointError: The disk is full, or the folder cannot be written.
        """

    def copy(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Starts to save on the hosts' own disks alone, where they have such copies (`vlc.train.two_levels`)."""
        del step, state, meta

    @abstractmethod
    def wait(self) -> None:
        """Waits until the last save can be restored.

        Raises:
            CheckpointError: It could not be written.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of threads and files; a save that is under way is finished."""

    @abstractmethod
    def _read_item(self, step: int, name: str, abstract: Any) -> Any:
        """A part of a checkpoint into its shapes and shardings; `meta`, where `abstract` is `None`."""

    @abstractmethod
    def _set_aside(self, steps: list[int]) -> None:
        """Takes damaged checkpoints out of the way, without losing them."""

    @abstractmethod
    def _lost(self) -> tuple[list[str], Place]:
        """What was set aside, and where it is."""

    def restore(self, make_abstract: Callable[[dict], Any], *, step: int | None = None) -> tuple[Any, dict] | None:
        """The newest sound checkpoint, or that of one step.

        A checkpoint that is proven damaged is set aside (when not read-only) and the one before is
        tried. One that cannot be read for another reason is tried again, then reported, and stays where it is.

        Args:
            make_abstract: From the meta to the trees of shapes, dtypes and shardings to restore into, by name of the
                part; parts may be left out. It is free to raise `CheckpointError` when the meta does not fit.
            step: Only this one.

        Returns:
            State and meta, or `None` when there is no checkpoint.

        Raises:
            CheckpointError: All are damaged, now or at an earlier start; one cannot be read; the step does not exist;
                or the arrays do not fit the model.
        """
        steps = allgather_objects(self.steps())[0]
        if step is not None and step not in steps:
            raise CheckpointError(f"{self.path}: no checkpoint of step {step}. There are: {steps}.")
        reasons = []
        for candidate in [step] if step is not None else reversed(steps):
            try:
                return self._restore_one(candidate, make_abstract)
            except Damaged as damage:
                reasons.append(f"step {candidate}: {damage}")
                log.warning("Checkpoint of step %d is damaged (%s).", candidate, damage)
                if not self.read_only:
                    self._set_aside([candidate])
        if reasons:
            raise CheckpointError(f"{self.path}: no sound checkpoint is left.\n  " + "\n  ".join(reasons))
        self._check_nothing_was_lost()
        return None

    def _check_nothing_was_lost(self) -> None:
        """Refuses to begin from nothing where an earlier start has set every checkpoint aside."""
        if self.read_only:
            return
        lost, place = self._lost()
        if lost:
            raise CheckpointError(
                f"{self.path}: no checkpoint is left, and {place} holds what an earlier start found damaged: "
                f"{', '.join(lost)}. To begin again from step 0 name another --workdir, or remove that folder; to look "
                "at one again move it back."
            )

    def _restore_one(self, step: int, make_abstract: Callable[[dict], Any]) -> tuple[Any, dict]:
        meta = self.read_meta(step)
        abstract = make_abstract(meta)
        check_fit(abstract, meta["arrays"], f"{self.path}/{step}")
        return self._restore_arrays(step, abstract, meta), meta

    def _restore_arrays(self, step: int, abstract: Any, meta: dict) -> Any:
        """The state, checked twice where it has to be; `Damaged` where it is."""
        wrong = ""
        for _ in range(2):  # a wrong sum may be a bad read: damage is what is found twice
            state = {name: self._restore_item(step, name, part) for name, part in abstract.items()}
            sums = array_checksums(state)
            wrong = next((path for path, found in sums.items() if found != meta["arrays"][path]["checksum"]), "")
            if not wrong:
                return state
        raise Damaged(f"the checksum of {wrong} is wrong")

    def read_meta(self, step: int) -> dict:
        """The meta of one step; `Damaged` where it is."""
        meta: Any = None
        for _ in range(2):
            meta = self._restore_item(step, "meta", None)
            if not seal_problem(meta):
                return meta
        raise Damaged(seal_problem(meta))

    def _restore_item(self, step: int, name: str, abstract: Any) -> Any:
        return read_patiently(lambda: self._read_item(step, name, abstract), f"its {name}", self.path / str(step))


def seal(meta: dict[str, Any]) -> dict[str, Any]:
    return meta | {"checksum": _digest(meta)}


def seal_problem(meta: Any) -> str:
    """What is wrong with the meta of a checkpoint; empty where nothing is."""
    if not isinstance(meta, dict) or "checksum" not in meta:
        return "its meta is incomplete"
    sound = _digest({key: value for key, value in meta.items() if key != "checksum"}) == meta["checksum"]
    return "" if sound else "the checksum of its meta is wrong"


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def paths_of(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def describe(state: Any) -> dict[str, dict[str, Any]]:
    sums = array_checksums(state)
    return {
        path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "checksum": sums[path]}
        for path, leaf in paths_of(state).items()
    }


def array_checksums(state: Any) -> dict[str, int]:
    """The checksum of every array, by its path."""
    return {path: int(value) for path, value in paths_of(jax.device_get(_checksum_tree(state))).items()}


@jax.jit
def _checksum_tree(state: Any) -> Any:
    return jax.tree.map(_checksum, state)


def _checksum(x: jax.Array) -> jax.Array:
    """A sum of the bits, each weighted by its place, modulo 2^32: the same on any mesh, and changed by any one bit."""
    words = jax.lax.bitcast_convert_type(x, {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize])
    place, stride = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(range(x.ndim)):
        place = place + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) * jnp.uint32(stride % 2**32)
        stride *= x.shape[axis]
    weight = (place * jnp.uint32(2654435761)) | jnp.uint32(1)  # odd, so that every bit of a word counts
    return jnp.sum(words.astype(jnp.uint32) * weight, dtype=jnp.uint32)


def check_fit(abstract: Any, arrays: dict[str, dict[str, Any]], where: str) -> None:
    """Raises a `CheckpointError` that names every array that the model has otherwise than the checkpoint."""
    problems = []
    for path, leaf in paths_of(abstract).items():
        saved = arrays.get(path)
        if saved is None:
            problems.append(f"{path}: the model needs {leaf.shape} {leaf.dtype}, the checkpoint lacks it")
        elif tuple(saved["shape"]) != leaf.shape or saved["dtype"] != str(leaf.dtype):
            have = f"{tuple(saved['shape'])} {saved['dtype']}"
            problems.append(f"{path}: the model needs {leaf.shape} {leaf.dtype}, the checkpoint has {have}")
    if problems:
        raise CheckpointError(f"{where} does not fit the model:\n  " + "\n  ".join(problems))
