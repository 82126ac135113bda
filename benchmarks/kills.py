"""Kills a training run at random moments, during saves too, and compares its end with an undisturbed one, bit for bit.

    python benchmarks/kills.py --trials 20 --out benchmarks/results/kills.json

Each trial starts the smoke form of the quickstart in a new folder, kills it with SIGKILL, lets it finish, and compares
the checksums of every array of the last checkpoint (parameters, optimizer, step) and the digest of the examples seen. A
checkpoint is written at every step, so that many kills fall into a save.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vlc.train.checkpoint import Checkpoints

ROOT = Path(__file__).parent.parent


def start(workdir: Path, steps: int) -> subprocess.Popen:
    """The same command each time."""
    command = [sys.executable, "-m", "vlc.cli", "train", "--config", "configs/quickstart.py:smoke"]
    settings = [f"--config.steps={steps}", "--config.checkpoint.every=1", "--config.eval.every=100000"]
    settings += ["--config.model.image.layers=1", "--config.model.text.layers=1", "--config.model.decoder.layers=1"]
    return subprocess.Popen(
        [*command, "--workdir", str(workdir), *settings], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def ending(workdir: Path) -> dict:
    """Checksums and digest of the last checkpoint."""
    checkpoints = Checkpoints(workdir, read_only=True)
    restored = checkpoints.restore(lambda meta: {})
    checkpoints.close()
    assert restored is not None
    meta = restored[1]
    return {
        "step": meta["step"],
        "digest": meta["digest"],
        "arrays": {k: v["checksum"] for k, v in meta["arrays"].items()},
    }


def newest(workdir: Path) -> int:
    """The newest step with a folder, finished or being written."""
    steps = [int(path.name.split(".")[0]) for path in (workdir / "checkpoints").glob("[0-9]*")]
    return max(steps, default=0)


def kill_while_running(workdir: Path, steps: int, rng: random.Random) -> dict | None:
    """Starts, waits for new progress and a random while more, kills. `None` when the run was faster."""
    run = start(workdir, steps)
    before = newest(workdir)
    while run.poll() is None and newest(workdir) <= before:
        time.sleep(0.01)
    try:
        run.wait(rng.uniform(0, 3.0))
        return None
    except subprocess.TimeoutExpired:
        run.kill()
        run.wait()
    unfinished = [path.name for path in (workdir / "checkpoints").glob("*tmp*")]
    return {"after_step": newest(workdir), "during_a_save": bool(unfinished)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "whole"
        assert start(whole, options.steps).wait() == 0
        wanted = ending(whole)

        def trial(number: int) -> dict:
            workdir, rng = Path(scratch) / str(number), random.Random(number)
            kill = kill_while_running(workdir, options.steps, rng)
            code = start(workdir, options.steps).wait()
            row = {"kill": kill, "equal": code == 0 and ending(workdir) == wanted}
            print(number, json.dumps(row), flush=True)
            return row

        with ThreadPoolExecutor(2) as pool:
            trials = list(pool.map(trial, range(options.trials)))
    kills = [trial["kill"] for trial in trials if trial["kill"]]
    result = {
        "trials": len(trials),
        "bit_equal": sum(trial["equal"] for trial in trials),
        "kills": len(kills),
        "kills_during_a_save": sum(kill["during_a_save"] for kill in kills),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result | {"each": trials}, indent=1) + "\n")
    sys.exit(result["bit_equal"] != result["trials"])


if __name__ == "__main__":
    main()
