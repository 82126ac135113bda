"""Copies of a run's state on the disks of its hosts: often, at once, and gone when the host is.

Each process writes all that its devices hold, so that it can go on by itself, in the format of `vlc.train.pieces`.
`FOLDER/RUN/STEP-SUM/PROCESS-of-COUNT/` holds `data-*.bin`, `index.json` and, written last, `copy.json`. `RUN` stands
for the workdir and the run in it, `SUM` for the state: copies of one name are parts of one state, whichever start made
them.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vlc.parallel import all_processes, allgather_objects
from vlc.storage import Place, write_json
from vlc.train.damage import Damaged
from vlc.train.pieces import INDEX, Held, Piece, Pieces, write_pieces
from vlc.train.restoring import seal_problem

_COPY = "copy.json"
_SUM = 16  # hexadecimal digits of the meta's checksum
log = logging.getLogger("vlc")


@dataclass(frozen=True)
class Copy:
    """What the disk of this host has of one state.

    Attributes:
        meta: The checkpoint's.
        score: Its score, if any.
        pieces: Those of all processes of this host.
    """

    meta: dict[str, Any]
    score: float | None
    pieces: Pieces


class HostCopies:
    """The copies of one run on this host. All processes call `save` and `wait` alike.

    Attributes:
        folder: Where they are.
    """

    def __init__(self, folder: Path, workdir: Place, run: str):
        """
        Args:
            folder: On the host's own disk.
            workdir: The run's.
            run: What tells it from an earlier run of that workdir.
        """
        self._of_workdir = hashlib.sha256(str(workdir).encode()).hexdigest()[:16]
        self.folder = folder / f"{self._of_workdir}-{run}"
        self._thread: threading.Thread | None = None
        self._newest = ""  # the name of the last one that this process has finished
        self._kept = ""  # what the run goes on from
        self._said: set[object] = set()

    # -- what there is

    def names(self) -> list[str]:
        """Names of the states that this host has at least a part of."""
        return sorted({path.parent.parent.name for path in self.folder.glob(f"*-*/*/{_COPY}")})

    def read(self, name: str) -> Copy | None:
        """The parts of one state that are here; `None` where none is, or none can be read."""
        found: dict[Place, str] = {}
        first: dict[str, Any] = {}
        for path in sorted((self.folder / name).glob(f"*/{_COPY}")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = json.loads(path.read_bytes())
                found[path.parent], first = str(told["index"]), first or told
        try:
            if not found:
                return None
            if problem := seal_problem(first["meta"]):
                raise Damaged(problem)
            return Copy(first["meta"], first["score"], Pieces(found))
        except (Damaged, OSError, KeyError) as error:
            log.warning("%s: this host's copy cannot be used (%s).", self.folder / name, error)
            return None

    def goes_on_from(self, name: str) -> None:
        """Says which of them the run was restored from; the others are of no use when the next one is saved."""
        self._kept = self._newest = name

    # -- saving

    def save(self, step: int, held: Held, meta: Mapping[str, Any], score: float | None) -> None:
        """Starts to write a copy, where all processes have done with the one before; errors are said, not raised.

        Args:
            step: Of the state.
            held: All that this process's devices hold (`held_here(..., copies=True)`).
            meta: The checkpoint's, sealed; the same on all processes.
            score: Its score, if any.
        """
        busy = self._thread is not None and self._thread.is_alive()
        told = allgather_objects([busy, self._newest])
        if any(still for still, _ in told):
            self._say("busy", f"{self.folder}: a copy is still being written; that of step {step} is left out.")
            return
        self._kept = _common([newest for _, newest in told]) or self._kept
        name = f"{step:012d}-{meta['checksum'][:_SUM]}"
        self._clear({self._kept, name})  # another process of this host may have begun with it
        self._thread = threading.Thread(target=self._write, args=(name, held, meta, score), name="vlc-host-copy")
        self._thread.start()

    def _write(self, name: str, held: Held, meta: Mapping[str, Any], score: float | None) -> None:
        folder = self.folder / name / f"{jax.process_index():05d}-of-{jax.process_count():05d}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            write_pieces(folder, held)
            index = hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()
            write_json(folder / _COPY, {"index": index, "score": score, "meta": meta})
            self._newest = name
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            self._say(error.errno, f"{folder}: no copy could be written ({error.strerror}); training goes on without.")

    def _say(self, kind: object, text: str) -> None:
        """Says each kind of thing once."""
        if kind not in self._said:
            log.warning(text)
        self._said.add(kind)

    def _clear(self, kept: set[str]) -> None:
        """Takes away all but these, and copies of earlier runs of the same workdir."""
        copies = [path for path in self.folder.glob("*-*") if path.name not in kept]
        others = [path for path in self.folder.parent.glob(f"{self._of_workdir}-*") if path != self.folder]
        for path in [*copies, *others]:
            shutil.rmtree(path, ignore_errors=True)

    def wait(self) -> str:
        """Waits until the last copy is written.

        Returns:
            The newest that all processes have written; empty where they have not written the same.
        """
        if self._thread is not None:
            self._thread.join()
        return _common(allgather_objects(self._newest))

    def close(self) -> None:
        if self._thread is not None:
            self._thread.join()


def _common(names: Sequence[str]) -> str:
    """The name, where all have the same; else empty."""
    return names[0] if len(set(names)) == 1 else ""


def step_of(name: str) -> int:
    """The step of a copy, by its name."""
    return int(name.partition("-")[0])


def own_blocks(copy: Copy | None, meta: Mapping[str, Any]) -> Held | None:
    """The blocks that this process is to give, so that all processes together give each once; all call this alike.

    Args:
        copy: What this host has of the state.
        meta: The checkpoint's.

    Returns:
        The blocks, read and checked; `None` where all processes together do not hold the whole state, or one of them
        cannot read its blocks.
    """
    mine = copy.pieces.blocks() if copy is not None else {}
    owners: dict[str, int] = {}
    held_by_all = 0
    for process, sizes in enumerate(allgather_objects({name: _size(piece.shape) for name, piece in mine.items()})):
        for name in sizes.keys() - owners.keys():
            owners[name] = process
            held_by_all += sizes[name]
    if held_by_all != sum(_size(array["shape"]) for array in meta["arrays"].values()):
        return None
    own = [piece for name, piece in mine.items() if owners[name] == jax.process_index()]
    try:
        held = _read(copy.pieces, own) if copy is not None else {}
    except (Damaged, OSError) as error:
        log.warning("This host's copy cannot be used (%s).", error)
        held = None
    return held if all_processes(held is not None) else None


def _read(pieces: Pieces, own: Sequence[Piece]) -> Held:
    held: Held = {}
    for piece in own:
        held.setdefault(piece.path, []).append((piece.start, pieces.read_block(piece)))
    return held


def _size(shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64))
