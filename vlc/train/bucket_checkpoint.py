"""Checkpoints in a bucket, where nothing can be renamed and a list may be of a moment ago.

Every process writes its own pieces (`vlc.train.pieces`) under the name of this start of the run; process 0 waits for
the index of each and then writes `commit.json`, which names them all. A checkpoint is what has a commit: whatever a
kill leaves behind is none. The start that saved last owns the workdir, by `run.json`; an older one that is still
there does not commit any more. No clock is asked.

`CHECKPOINTS/STEP/` holds `RUN-PROCESS-of-COUNT/data-*.bin`, `.../index.json`, `RUN-meta.json` and `commit.json`. Of one
that was found damaged the commit is called `damaged-RUN.json`; all else stays, and the step can be saved again.
"""

import errno
import hashlib
import json
import logging
import math
import os
import re
import secrets
import socket
import threading
import time
from typing import Any

import jax

from vlc.errors import CheckpointError, StoreAway
from vlc.parallel import allgather_objects, is_primary, primary_first
from vlc.storage import Place, Unreachable, write_json, write_whole
from vlc.train.damage import Damaged
from vlc.train.pieces import INDEX, Held, Pieces, held_here, write_pieces
from vlc.train.restoring import Restoring, describe, paths_of, seal

COMMIT, META, DAMAGED, OWNER = "commit.json", "meta.json", "damaged", "run.json"
_OURS = re.compile(r"[0-9a-f]{8}-(meta\.json|\d{5}-of-\d{5}/(data-\d{4}\.bin|index\.json))")
_PATIENCE = 3600.0  # seconds that process 0 waits for what the others write
_LOOK = 0.5  # seconds between two looks
log = logging.getLogger("vlc")


class BucketCheckpoints(Restoring):
    """The checkpoints of one run in a bucket."""

    def __init__(
        self, workdir: Place, *, keep_last: int = 2, keep_best: int = 1, keep_every: int = 0, read_only: bool = False
    ):
        self.path, self.read_only = workdir / "checkpoints", read_only
        self._workdir, self._keep = workdir, (keep_last, keep_best, keep_every)
        self._run = "" if read_only else allgather_objects(secrets.token_hex(4))[0]
        self._owns = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._given_up = threading.Event()

    # -- what there is

    def steps(self) -> list[int]:
        return sorted(self._scores())

    def _scores(self) -> dict[int, float | None]:
        """Scores by step, of what is finished and not damaged."""
        finished = [step for step, found in self._names().items() if COMMIT in found]
        return {step: self._commit(step).get("score") for step in finished}

    def _names(self) -> dict[int, set[str]]:
        """Names of the objects of each step."""
        found: dict[int, set[str]] = {}
        for path in self.path.rglob("*"):
            step, _, name = str(path).removeprefix(f"{self.path}/").partition("/")
            if step.isdigit():
                found.setdefault(int(step), set()).add(name)
        return found

    def _commit(self, step: int) -> dict[str, Any]:
        try:
            commit = json.loads((self.path / str(step) / COMMIT).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            return {}
        return commit if isinstance(commit, dict) else {}

    def best_step(self) -> int | None:
        scores = self._scores()
        scored = {step: score for step, score in scores.items() if score is not None}
        return max(scored, key=lambda step: (scored[step], step)) if scored else max(scores, default=None)

    def best_score(self) -> float:
        return max((score for score in self._scores().values() if score is not None), default=-math.inf)

    # -- saving

    def save(self, step: int, state: Any, meta: dict[str, Any], *, score: float | None = None) -> None:
        self.wait()
        if step in allgather_objects(self.steps())[0]:
            return
        sealed = seal(meta | {"step": step, "arrays": describe(state)})
        self.begin(step, held_here(paths_of(state)), sealed, score)

    def begin(self, step: int, held: Held, meta: dict[str, Any], score: float | None) -> None:
        """Starts to write a step that is not there, when the one before is written or given up.

        Args:
            step: Of the state.
            held: What this process is to give of it.
            meta: As `seal` gives it.
            score: Larger is better.
        """
        self._given_up.clear()
        written = (step, held, meta, None if score is None else float(score))
        self._thread = threading.Thread(target=self._write, args=written, name="vlc-checkpoint")
        self._thread.start()

    def condition(self) -> str:
        """How the last save is: `busy`, `away` where its store was, else `done`."""
        if self._thread is not None and self._thread.is_alive():
            return "busy"
        return "away" if isinstance(self._error, Unreachable) else "done"

    def give_up(self) -> None:
        """Forgets a save that did not reach the store, here or from another process."""
        self._given_up.set()
        if self.condition() == "away":
            self._error = None

    def _write(self, step: int, held: Any, meta: dict[str, Any], score: float | None) -> None:
        try:
            self._claim()
            write_pieces(self._part(step, jax.process_index()), held)
            if is_primary():
                self._commit_step(step, meta, score)
                self._clear(self._superfluous())
        except BaseException as error:  # raised where somebody hears it
            self._error = error

    def _part(self, step: int, process: int) -> Place:
        return self.path / str(step) / f"{self._run}-{process:05d}-of-{jax.process_count():05d}"

    def _claim(self) -> None:
        """Makes this start the owner of the workdir, and takes away what an earlier one did not finish."""
        if self._owns or not is_primary():
            return
        owner = {"run": self._run, "host": socket.gethostname(), "process": os.getpid()}
        write_json(self._workdir / OWNER, owner)
        self._owns = True
        for step, names in self._names().items():
            if COMMIT not in names:  # but what others of this start have written already
                self._remove(step, {name for name in names if not name.startswith(self._run)})

    def _check_owner(self) -> None:
        try:
            owner = json.loads((self._workdir / OWNER).read_text())
            mine = owner["run"] == self._run
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            owner, mine = {}, False
        if not mine:
            raise CheckpointError(
                f"{self._workdir}: another start of the run is in this workdir (process {owner.get('process')} on "
                f"{owner.get('host')}), so this one ends without saving. Give each run a --workdir of its own."
            )

    def _commit_step(self, step: int, meta: dict[str, Any], score: float | None) -> None:
        parts = [self._part(step, process) for process in range(jax.process_count())]
        end = time.monotonic() + _PATIENCE
        for part in parts:
            while not (part / INDEX).exists():
                if time.monotonic() > end:
                    raise CheckpointError(f"{part}: what that process should write did not come in {_PATIENCE:.0f} s.")
                if self._given_up.wait(_LOOK):
                    raise Unreachable(errno.EIO, "another process could not write its part", str(part))
        text = json.dumps(meta).encode()
        write_whole(self.path / str(step) / f"{self._run}-{META}", text)
        commit = {
            "step": step, "score": score, "run": self._run, "meta": hashlib.sha256(text).hexdigest(),
            "parts": {part.name: hashlib.sha256((part / INDEX).read_bytes()).hexdigest() for part in parts},
        }  # fmt: skip
        self._check_owner()
        write_json(self.path / str(step) / COMMIT, commit)

    def wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if isinstance(error, CheckpointError):
            raise error
        if isinstance(error, Unreachable):
            raise StoreAway(
                f"{self.path}: a checkpoint could not be written, since the store is away ({error})."
            ) from error
        if error is not None:
            kept = self.steps()
            raise CheckpointError(
                f"{self.path}: a checkpoint could not be written ({type(error).__name__}: {error}). "
                + (f"Kept: {kept}." if kept else "None is there yet.")
            ) from error

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()

    # -- keeping

    def _superfluous(self) -> list[int]:
        last, best, every = self._keep
        scores = self._scores()
        kept = set(sorted(scores)[-last:])
        scored = sorted((score, step) for step, score in scores.items() if score is not None)
        kept |= {step for _, step in scored[max(len(scored) - best, 0) :]}
        kept |= {step for step in scores if every and step % every == 0}
        return [step for step in scores if step not in kept]

    def _clear(self, steps: list[int]) -> None:
        names = self._names()
        for step in steps:
            self._remove(step, names.get(step, set()))

    def _remove(self, step: int, names: set[str]) -> None:
        """Takes away what this code has written for a step, its commit first; nothing else, and nothing that was found
        damaged."""
        folder, ours = self.path / str(step), {name for name in names if _OURS.fullmatch(name)}
        if any(name.startswith(DAMAGED) for name in names):
            run = self._commit(step).get("run")
            ours = {name for name in ours if run and name.startswith(run)}
        for name in [COMMIT, *sorted(ours)]:
            (folder / name).unlink(missing_ok=True)

    def _set_aside(self, steps: list[int]) -> None:
        with primary_first(f"damaged {steps}"):
            for step in steps if is_primary() else []:
                folder = self.path / str(step)
                name = f"{DAMAGED}-{self._commit(step).get('run') or secrets.token_hex(4)}.json"
                write_whole(folder / name, (folder / COMMIT).read_bytes())
                (folder / COMMIT).unlink()
                log.warning("Step %d was marked as damaged (%s); going on from the one before.", step, folder / name)

    def _lost(self) -> tuple[list[str], Place]:
        names = sorted(self._names().items())
        return [str(step) for step, found in names if any(name.startswith(DAMAGED) for name in found)], self.path

    # -- reading

    def _read_item(self, step: int, name: str, abstract: Any) -> Any:
        folder, commit = self.path / str(step), self._commit(step)
        if not isinstance(commit.get("parts"), dict):
            raise Damaged(f"{COMMIT} is no commit")
        if abstract is None:
            return self._read_meta(folder, commit)
        pieces = Pieces({folder / part: known for part, known in commit["parts"].items()})
        return pieces.read_tree(name, abstract)

    def _read_meta(self, folder: Place, commit: dict[str, Any]) -> Any:
        try:
            text = (folder / f"{commit.get('run')}-{META}").read_bytes()
        except FileNotFoundError as error:
            raise Damaged(f"{META} is missing") from error
        if hashlib.sha256(text).hexdigest() != commit.get("meta"):
            raise Damaged(f"the checksum of {META} is wrong")
        return json.loads(text)
