"""Checkpoints that can be trusted: atomic, asynchronous, with checksums and types of their own.

Orbax restores a flipped byte and casts a wrong dtype without a word. So each checkpoint carries a checksum, shape and
dtype of every array; one that is proven damaged is moved aside and the one before is used, and an array that does not
fit the model is an error that names every difference. A disk that cannot be read proves nothing: `vlc.train.damage`.

A checkpoint holds the parts of the train state, each an item of its own, and `meta` (config, tokenizer,
preprocessing, what was seen): it can be loaded without anything else, and the parameters without the optimizer.
"""

import contextlib
import hashlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from vlc.data.images import Preprocess
from vlc.data.tokenizers import Tokenizer, tokenizer_from_json
from vlc.errors import CheckpointError, ConfigError, DataError
from vlc.parallel import is_primary, primary_first
from vlc.train.damage import Damaged, read_patiently

_NO_SCORE = -1e30
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


class Checkpoints:
    """The checkpoints of one run, in `workdir/checkpoints/STEP`."""

    def __init__(self, workdir: str | Path, *, keep_last: int = 2, keep_best: int = 1, read_only: bool = False):
        self.path = (Path(workdir) / "checkpoints").absolute()
        for name in ("absl", "orbax"):  # hundreds of lines on a damaged file or a full disk; the error says it in one
            logging.getLogger(name).setLevel(logging.CRITICAL)
        keep: list[Any] = [checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            keep.append(checkpoint_managers.BestN(get_metric_fn=lambda m: m["score"], n=keep_best))
        self._options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
            best_fn=lambda metrics: metrics["score"],
            enable_async_checkpointing=not read_only,
            read_only=read_only,
            create=not read_only,
        )
        if read_only and not self.path.is_dir():
            raise CheckpointError(f"{self.path.parent}: no checkpoint there (looked for {self.path}). Train first.")
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        """Opens the folder, which reads the score of every checkpoint; one whose score is damaged is moved aside."""

        def opened() -> ocp.CheckpointManager:
            return ocp.CheckpointManager(self.path, options=self._options)

        try:
            return read_patiently(opened, "the list of checkpoints", self.path)
        except Damaged as damage:
            wrong = [step for step in self._folders() if not _is_json(self.path / step / "metrics" / "metrics")]
            if self._options.read_only or not wrong:
                raise CheckpointError(f"{self.path}: {damage}. Look at {', '.join(wrong) or 'its files'}.") from damage
            log.warning("Checkpoints of steps %s are damaged (their scores).", ", ".join(wrong))
            self._set_aside(wrong)
            return opened()

    def _folders(self) -> list[str]:
        return sorted((path.name for path in self.path.glob("*") if path.name.isdigit()), key=int)

    def steps(self) -> list[int]:
        """Steps that have a finished checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step with the best score; the newest where none was scored."""
        return self._manager.best_step()

    def best_score(self) -> float:
        """The score of that step; minus infinity where none was scored."""
        step = self.best_step()
        metrics: Any = self._manager.metrics(step) if step is not None else None
        return metrics["score"] if metrics and metrics["score"] > _NO_SCORE else -math.inf

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
        if step in self._manager.all_steps():
            return
        sealed = _seal(meta | {"step": step, "arrays": _describe(state)})
        parts = {name: ocp.args.StandardSave({"tree": part}) for name, part in state.items()}
        items = ocp.args.Composite(**parts, meta=ocp.args.JsonSave(sealed))
        try:
            self._manager.save(step, args=items, metrics={"score": _NO_SCORE if score is None else float(score)})
        except (ValueError, OSError, RuntimeError) as error:
            raise self._failed(step, error) from error

    def wait(self) -> None:
        """Waits until the last save is on disk.

        Raises:
            CheckpointError: It could not be written.
        """
        try:
            self._manager.wait_until_finished()
        except (ValueError, OSError, RuntimeError) as error:
            raise self._failed(None, error) from error

    def _failed(self, step: int | None, error: Exception) -> CheckpointError:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        at = "the last checkpoint" if step is None else f"the checkpoint of step {step}, or the one before,"
        kept = f"Kept: {self.steps()}." if self.steps() else "None is on disk yet."
        return CheckpointError(f"{self.path}: {at} could not be written ({first[:200]}). {kept} Is the disk full?")

    def close(self) -> None:
        self._manager.close()

    def restore(self, make_abstract: Callable[[dict], Any], *, step: int | None = None) -> tuple[Any, dict] | None:
        """The newest sound checkpoint, or that of one step.

        A checkpoint that is proven damaged is moved to `workdir/damaged` (when not read-only) and the one before is
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
        steps = self.steps()
        if step is not None and step not in steps:
            raise CheckpointError(f"{self.path}: no checkpoint of step {step}. There are: {steps}.")
        reasons = []
        for candidate in [step] if step is not None else reversed(steps):
            try:
                return self._restore_one(candidate, make_abstract)
            except Damaged as damage:
                reasons.append(f"step {candidate}: {damage}")
                log.warning("Checkpoint of step %d is damaged (%s).", candidate, damage)
                if not self._options.read_only:
                    self._move_aside(candidate)
        if reasons:
            raise CheckpointError(f"{self.path}: no sound checkpoint is left.\n  " + "\n  ".join(reasons))
        self._check_nothing_was_lost()
        return None

    def _check_nothing_was_lost(self) -> None:
        """Refuses to begin from nothing where an earlier start has moved every checkpoint aside."""
        lost = sorted(path.name for path in self._damaged.glob("*")) if not self._options.read_only else []
        if lost:
            raise CheckpointError(
                f"{self.path}: no checkpoint is left, and {self._damaged} holds what an earlier start found damaged: "
                f"{', '.join(lost)}. To begin again from step 0 name another --workdir, or remove that folder; to look "
                "at one again move it back."
            )

    def _restore_one(self, step: int, make_abstract: Callable[[dict], Any]) -> tuple[Any, dict]:
        meta = self.read_meta(step)
        abstract = make_abstract(meta)
        _check_fit(abstract, meta["arrays"], f"{self.path}/{step}")
        wrong = ""
        for _ in range(2):  # a wrong sum may be a bad read: damage is what is found twice
            state = {
                name: self._restore_item(step, name, ocp.args.StandardRestore({"tree": part}))["tree"]
                for name, part in abstract.items()
            }
            sums = array_checksums(state)
            wrong = next((path for path, found in sums.items() if found != meta["arrays"][path]["checksum"]), "")
            if not wrong:
                return state, meta
        raise Damaged(f"the checksum of {wrong} is wrong")

    def read_meta(self, step: int) -> dict:
        """The meta of one step; `Damaged` where it is."""
        meta: Any = None
        for _ in range(2):
            meta = self._restore_item(step, "meta", ocp.args.JsonRestore())
            if not _seal_problem(meta):
                return meta
        raise Damaged(_seal_problem(meta))

    def _restore_item(self, step: int, name: str, args: Any) -> Any:
        return read_patiently(
            lambda: self._manager.restore(step, args=ocp.args.Composite(**{name: args}))[name],
            f"its {name}",
            self.path / str(step),
        )

    @property
    def _damaged(self) -> Path:
        return self.path.parent / "damaged"

    def _move_aside(self, step: int) -> None:
        self._manager.close()
        self._set_aside([str(step)])
        self._manager = self._open()

    def _set_aside(self, steps: list[str]) -> None:
        with primary_first(f"damaged {steps}"):
            for step in steps if is_primary() else []:
                self._rename_damaged(step)

    def _rename_damaged(self, step: str) -> None:
        target = self._damaged / step
        number = 1
        while target.exists():
            target = target.with_name(f"{step}-{number}")
            number += 1
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.path / step).rename(target)
        log.warning("It was moved to %s; going on from the one before.", target)


def newest_meta(workdir: Path) -> dict | None:
    """The meta of the newest checkpoint of a run that has a sound one; `None` where there is none. Nothing is moved."""
    if not (workdir / "checkpoints").is_dir():
        return None
    checkpoints = Checkpoints(workdir, read_only=True)
    try:
        for step in reversed(checkpoints.steps()):
            with contextlib.suppress(Damaged):  # `restore` says so
                return checkpoints.read_meta(step)
        return None
    finally:
        checkpoints.close()


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False
    except OSError as error:
        return not isinstance(error, FileNotFoundError)


def _seal(meta: dict[str, Any]) -> dict[str, Any]:
    return meta | {"checksum": _digest(meta)}


def _seal_problem(meta: Any) -> str:
    """What is wrong with the meta of a checkpoint; empty where nothing is."""
    if not isinstance(meta, dict) or "checksum" not in meta:
        return "its meta is incomplete"
    sound = _digest({key: value for key, value in meta.items() if key != "checksum"}) == meta["checksum"]
    return "" if sound else "the checksum of its meta is wrong"


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _paths(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _describe(state: Any) -> dict[str, dict[str, Any]]:
    sums = array_checksums(state)
    return {
        path: {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "checksum": sums[path]}
        for path, leaf in _paths(state).items()
    }


def array_checksums(state: Any) -> dict[str, int]:
    """The checksum of every array, by its path."""
    return {path: int(value) for path, value in _paths(jax.device_get(_checksum_tree(state))).items()}


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


def _check_fit(abstract: Any, arrays: dict[str, dict[str, Any]], where: str) -> None:
    problems = []
    for path, leaf in _paths(abstract).items():
        saved = arrays.get(path)
        if saved is None:
            problems.append(f"{path}: the model needs {leaf.shape} {leaf.dtype}, the checkpoint lacks it")
        elif tuple(saved["shape"]) != leaf.shape or saved["dtype"] != str(leaf.dtype):
            have = f"{tuple(saved['shape'])} {saved['dtype']}"
            problems.append(f"{path}: the model needs {leaf.shape} {leaf.dtype}, the checkpoint has {have}")
    if problems:
        raise CheckpointError(f"{where} does not fit the model:\n  " + "\n  ".join(problems))
