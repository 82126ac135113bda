"""Checkpoints that can be trusted: atomic, asynchronous, with checksums and types of their own.

Orbax restores a flipped byte and casts a wrong dtype without a word, so `vlc.train.restoring` checks both. A disk that
cannot be read proves nothing: `vlc.train.damage`. In a bucket, which has no renaming, they are those of
`vlc.train.bucket_checkpoint`.
"""

import contextlib
import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from vlc.errors import CheckpointError
from vlc.parallel import is_primary, primary_first
from vlc.storage import ObjectPath, Place
from vlc.train.bucket_checkpoint import BucketCheckpoints
from vlc.train.damage import Damaged, read_patiently
from vlc.train.restoring import Restoring, describe, seal
from vlc.train.two_levels import TwoLevels

_NO_SCORE = -1e30
_NOISY = ("absl", "orbax")  # hundreds of lines on a damaged file or a full disk; the error says it in one
log = logging.getLogger("vlc")


class Checkpoints(Restoring):
    """The checkpoints of one run on a disk that all processes share, in `workdir/checkpoints/STEP`."""

    def __init__(
        self,
        workdir: str | Path,
        *,
        keep_last: int = 2,
        keep_best: int = 1,
        keep_every: int = 0,
        read_only: bool = False,
    ):
        self._folder = (Path(workdir) / "checkpoints").absolute()
        self.path, self.read_only = self._folder, read_only
        self._levels = {name: logging.getLogger(name).level for name in _NOISY}
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        keep: list[Any] = [checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            keep.append(checkpoint_managers.BestN(get_metric_fn=lambda m: m["score"], n=keep_best))
        if keep_every:
            keep.append(checkpoint_managers.EveryNSteps(keep_every))
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
            return ocp.CheckpointManager(self._folder, options=self._options)

        try:
            return read_patiently(opened, "the list of checkpoints", self._folder)
        except Damaged as damage:
            wrong = [step for step in self._folders() if not _is_json(self._folder / step / "metrics" / "metrics")]
            if self.read_only or not wrong:
                raise CheckpointError(
                    f"{self._folder}: {damage}. Look at {', '.join(wrong) or 'its files'}."
                ) from damage
            log.warning("Checkpoints of steps %s are damaged (their scores).", ", ".join(wrong))
            self._move_aside(wrong)
            return opened()

    def _folders(self) -> list[str]:
        return sorted((path.name for path in self._folder.glob("*") if path.name.isdigit()), key=int)

    def steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        return self._manager.best_step()

    def best_score(self) -> float:
        step = self.best_step()
        metrics: Any = self._manager.metrics(step) if step is not None else None
        return metrics["score"] if metrics and metrics["score"] > _NO_SCORE else -math.inf

    def save(self, step: int, state: Any, meta: dict[str, Any], *, score: float | None = None) -> None:
        if step in self._manager.all_steps():
            return
        sealed = seal(meta | {"step": step, "arrays": describe(state)})
        parts = {name: ocp.args.StandardSave({"tree": part}) for name, part in state.items()}
        items = ocp.args.Composite(**parts, meta=ocp.args.JsonSave(sealed))
        try:
            self._manager.save(step, args=items, metrics={"score": _NO_SCORE if score is None else float(score)})
        except (ValueError, OSError, RuntimeError) as error:
            raise self._failed(step, error) from error

    def wait(self) -> None:
        try:
            self._manager.wait_until_finished()
        except (ValueError, OSError, RuntimeError) as error:
            raise self._failed(None, error) from error

    def _failed(self, step: int | None, error: Exception) -> CheckpointError:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        at = "the last checkpoint" if step is None else f"the checkpoint of step {step}, or the one before,"
        kept = f"Kept: {self.steps()}." if self.steps() else "None is on disk yet."
        return CheckpointError(f"{self._folder}: {at} could not be written ({first[:200]}). {kept} Is the disk full?")

    def close(self) -> None:
        self._manager.close()
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)

    def _read_item(self, step: int, name: str, abstract: Any) -> Any:
        args = ocp.args.JsonRestore() if abstract is None else ocp.args.StandardRestore({"tree": abstract})
        found: Any = self._manager.restore(step, args=ocp.args.Composite(**{name: args}))[name]
        return found if abstract is None else found["tree"]

    def _lost(self) -> tuple[list[str], Place]:
        return sorted(path.name for path in self._damaged.glob("*")), self._damaged

    @property
    def _damaged(self) -> Path:
        return self._folder.parent / "damaged"

    def _set_aside(self, steps: list[int]) -> None:
        self._manager.close()
        self._move_aside([str(step) for step in steps])
        self._manager = self._open()

    def _move_aside(self, steps: list[str]) -> None:
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
        (self._folder / step).rename(target)
        log.warning("It was moved to %s; going on from the one before.", target)


def open_checkpoints(
    workdir: Place, *, keep_last: int = 2, keep_best: int = 1, keep_every: int = 0, copies: str = "",
    read_only: bool = False,
) -> Restoring:  # fmt: skip
    """The checkpoints of a run, on a disk or in a bucket.

    Args:
        workdir: The run's.
        keep_last: Newest ones that are kept.
        keep_best: Best ones that are kept.
        keep_every: Those of steps that are a multiple of it are kept for ever; 0: none.
        copies: A folder on the disk of each host, for copies of the state between checkpoints; empty: none. It may
            have `~` and variables in it.
        read_only: Nothing is written.

    Raises:
        CheckpointError: `read_only`, and there is none; or one cannot be read.
    """
    if read_only and not has_checkpoints(workdir):
        raise CheckpointError(f"{workdir}: no checkpoint there (looked for {workdir / 'checkpoints'}). Train first.")
    keep = {"keep_last": keep_last, "keep_best": keep_best, "keep_every": keep_every}
    checkpoints = (
        BucketCheckpoints(workdir, **keep, read_only=read_only)
        if isinstance(workdir, ObjectPath)
        else Checkpoints(workdir, **keep, read_only=read_only)
    )
    return TwoLevels(checkpoints, workdir, _host_folder(copies)) if copies else checkpoints


def _host_folder(name: str) -> Path:
    """A folder of this host, whose name may hold `~` and variables, `/scratch/$USER`.

    Raises:
        CheckpointError: A variable is not set.
    """
    found = os.path.expandvars(os.path.expanduser(name))
    if "$" in found:
        raise CheckpointError(f"config.checkpoint.copies={name}: a variable of it is not set on this host.")
    return Path(found)


def has_checkpoints(workdir: Place) -> bool:
    """Whether a run has, or had, checkpoints."""
    return (workdir / "checkpoints").is_dir()


def newest_meta(workdir: Place) -> dict | None:
    """The meta of the newest checkpoint of a run that has a sound one; `None` where there is none. Nothing is moved."""
    if not has_checkpoints(workdir):
        return None
    checkpoints = open_checkpoints(workdir, read_only=True)
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
