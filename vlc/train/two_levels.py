"""Checkpoints at two levels: copies on the hosts' own disks, often, and checkpoints of the workdir, seldom.

On resuming the newest state is used that can be put together: each process takes from its host's disk what it needs;
one whose host has it not reads the workdir's checkpoint of that step, and, where there is none in a bucket, the others
first write it from their copies. A store that is away does not end the run while copies can be written.
"""

import contextlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlc.errors import CheckpointError
from vlc.parallel import allgather_objects, from_process, is_primary
from vlc.storage import Place, write_json
from vlc.train.bucket_checkpoint import BucketCheckpoints
from vlc.train.damage import Damaged
from vlc.train.host_copies import Copy, HostCopies, own_blocks, step_of
from vlc.train.pieces import Held, held_here
from vlc.train.restoring import Restoring, check_fit, describe, paths_of, seal

_RUN = "copies.json"  # in the workdir: which copies are its
log = logging.getLogger("vlc")


class TwoLevels(Restoring):
    """The checkpoints of a run, and copies of its state between them."""

    def __init__(self, checkpoints: Restoring, workdir: Place, folder: Path):
        """
        Args:
            checkpoints: Those of the workdir.
            workdir: The run's.
            folder: For the copies, on each host's own disk.
        """
        self.path, self.read_only = checkpoints.path, False
        self._far, self._workdir = checkpoints, workdir
        self._run, self._is_new = _run_of(workdir)
        self._near = HostCopies(folder, workdir, self._run)
        everywhere = Counter(name for names in allgather_objects(self._near.names()) for name in names)
        self._names = {step_of(name): name for name, _ in reversed(everywhere.most_common())}
        self._far_steps = set(allgather_objects(checkpoints.steps())[0])
        self._copy: Copy | None = None  # what this process reads from, in place of the workdir
        self._left_out = ""  # the copy of a step that the workdir should have had
        self._begun = -1  # the step that the workdir was last given
        self._away = False

    # -- what there is

    def steps(self) -> list[int]:
        return sorted(self._far_steps | self._names.keys())

    def best_step(self) -> int | None:
        return self._far.best_step()

    def best_score(self) -> float:
        return self._far.best_score()

    # -- saving

    def copy(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        self._write_copy(step, state, seal(meta | {"step": step, "arrays": describe(state)}), None)

    def _write_copy(self, step: int, state: Any, sealed: dict[str, Any], score: float | None) -> None:
        if self._is_new and is_primary():
            write_json(self._workdir / _RUN, {"run": self._run})
        self._is_new = False
        self._near.save(step, held_here(paths_of(state), copies=True), sealed, score)

    def save(self, step: int, state: Any, meta: dict[str, Any], *, score: float | None = None) -> None:
        if step in self._far_steps:
            return
        if not isinstance(self._far, BucketCheckpoints):
            self.copy(step, state, meta)
            self._far.save(step, state, meta, score=score)
            self._far_steps.add(step)
            return
        sealed = seal(meta | {"step": step, "arrays": describe(state)})
        self._write_copy(step, state, sealed, score)
        self._left_out = ""
        if not self._may_begin(self._far):
            newest = self._near.wait()
            if newest and step_of(newest) == step:
                self._left_out = newest
                return
            self._far.wait()
        self._begin(self._far, step, held_here(paths_of(state)), sealed, score)

    def _begin(
        self, far: BucketCheckpoints, step: int, held: Held, sealed: dict[str, Any], score: float | None
    ) -> None:
        far.begin(step, held, sealed, score)
        self._far_steps.add(step)
        self._begun = step

    def _may_begin(self, far: BucketCheckpoints) -> bool:
        """Whether the workdir is done with the checkpoint before; a store that was away is tried again."""
        conditions = allgather_objects(far.condition())
        if "away" in conditions:
            if not self._away:
                log.warning("%s: the store is away; the run goes on, with copies in %s.", self.path, self._near.folder)
            self._away = True
            far.give_up()
            self._far_steps.discard(self._begun)
        if "busy" in conditions:
            return False
        if self._away and "away" not in conditions:
            log.warning("%s: the store is there again.", self.path)
            self._away = False
        far.wait()
        return True

    def wait(self) -> None:
        newest = self._near.wait()
        self._far.wait()
        left_out, self._left_out = self._left_out, ""
        if left_out and left_out == newest and isinstance(self._far, BucketCheckpoints):
            copy = self._near.read(newest)
            try:
                self._promote(self._far, newest, copy, *self._meta_of(copy))
            except Damaged as damage:
                raise CheckpointError(
                    f"{self.path}: the checkpoint of step {step_of(newest)} could not be written ({damage}). "
                    f"Kept: {self.steps()}."
                ) from damage

    def _promote(
        self, far: BucketCheckpoints, name: str, copy: Copy | None, meta: dict[str, Any], score: float | None
    ) -> None:
        """Makes a checkpoint in the bucket of the copies of all hosts; `Damaged` where they are not enough for it."""
        held = own_blocks(copy, meta)
        if held is None:
            raise Damaged("the hosts' copies are not enough for it")
        self._begin(far, step_of(name), held, meta, score)
        far.wait()

    def _meta_of(self, copy: Copy | None) -> tuple[dict[str, Any], float | None]:
        """Meta and score of a copy, from a process that has it; raises `Damaged` where none has."""
        have = allgather_objects(copy is not None)
        if not any(have):
            raise Damaged("no host can read its copy")
        return from_process([copy.meta, copy.score] if copy is not None else None, have.index(True))

    def close(self) -> None:
        self._near.close()
        self._far.close()

    # -- reading

    def _restore_one(self, step: int, make_abstract: Callable[[dict], Any]) -> tuple[Any, dict]:
        name = self._names.get(step)
        if name is not None:
            try:
                state, meta = self._restore_copy(name, make_abstract)
                self._near.goes_on_from(name)
                return state, meta
            except Damaged as damage:
                log.warning("The copies of step %d cannot be used (%s).", step, damage)
                del self._names[step]
            finally:
                self._copy = None
        if step not in self._far_steps:
            raise Damaged("the workdir has no checkpoint of it")
        return super()._restore_one(step, make_abstract)

    def _restore_copy(self, name: str, make_abstract: Callable[[dict], Any]) -> tuple[Any, dict]:
        step, copy = step_of(name), self._near.read(name)
        meta, score = self._meta_of(copy)
        abstract = make_abstract(meta)
        check_fit(abstract, meta["arrays"], f"{self._near.folder / name}")
        complete = copy is not None and copy.pieces.cover(paths_of(abstract))
        without = [process for process, fine in enumerate(allgather_objects(complete)) if not fine]
        if without:
            self._complete_from_workdir(name, copy, meta, score, without[0])
        self._copy = copy if complete else None
        try:
            state = self._restore_arrays(step, abstract, meta)
        except CheckpointError as error:  # a host's disk that cannot be read; the workdir may be
            raise Damaged(str(error)) from error
        if step not in self._far_steps:
            self._far.save(step, state, {key: value for key, value in meta.items() if key != "checksum"}, score=score)
            self._far_steps.add(step)
        return state, meta

    def _complete_from_workdir(
        self, name: str, copy: Copy | None, meta: dict[str, Any], score: float | None, without: int
    ) -> None:
        """Makes sure that the workdir has the state, for a process (and others) whose host has it not."""
        if not isinstance(self._far, BucketCheckpoints):
            raise Damaged(f"process {without} has none on its host")
        step = step_of(name)
        if step in self._far_steps:
            if self._far.read_meta(step)["checksum"] != meta["checksum"]:
                raise Damaged("the workdir's is of another state")
            return
        log.warning("Process %d has no copy of step %d on its host; the others give theirs.", without, step)
        try:
            self._promote(self._far, name, copy, meta, score)
        except Damaged as damage:
            raise Damaged(f"process {without} has none on its host, and no other host has its part") from damage

    def _read_item(self, step: int, name: str, abstract: Any) -> Any:
        if self._copy is not None:
            return self._copy.pieces.read_tree(name, abstract)
        return self._far._read_item(step, name, abstract)

    def _set_aside(self, steps: list[int]) -> None:
        known = [step for step in steps if step in self._far_steps]
        self._far_steps -= set(known)
        if known:
            self._far._set_aside(known)

    def _lost(self) -> tuple[list[str], Place]:
        return self._far._lost()


def _run_of(workdir: Place) -> tuple[str, bool]:
    """What tells this run from an earlier one of the same name, and whether it is yet to be written."""
    known = None
    if is_primary() and (workdir / _RUN).exists():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            known = str(json.loads((workdir / _RUN).read_bytes())["run"])
    run, is_new = allgather_objects([known or secrets.token_hex(4), known is None])[0]
    return run, is_new
