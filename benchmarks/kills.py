"""Kills a training run at random moments, during saves too, and compares its end with an undisturbed one, bit for bit.

    python benchmarks/kills.py --trials 20 --out benchmarks/results/kills.json
    python benchmarks/kills.py --store gs --processes 2 --out benchmarks/results/kills_gs.json   # or s3

    python benchmarks/kills.py --config configs/rewards.py:smoke --trials 10 --out benchmarks/results/kills_rewards.json

Each trial starts the smoke form of the quickstart, or of another config, in a new folder, kills it by SIGKILL, lets it
finish, and compares the checksums of every array of the last checkpoint (parameters, optimizer, step) and the digest of
the examples seen. A checkpoint is written at every step, so that many kills fall into a save. With a store the workdir
and the training data (WebDataset shards) lie in a bucket of a server on this machine: fake-gcs-server, or moto from the
peers' environment. With several processes the kill takes all of them.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from vlc.data.sources import Scenes
from vlc.storage import Place, place, write_whole
from vlc.train.checkpoint import open_checkpoints

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import buckets  # noqa: E402


def start(workdir: Place, steps: int, options: argparse.Namespace) -> subprocess.Popen:
    """The same command each time, in a group of its own."""
    command = [sys.executable, "-m", "vlc.cli", "train", "--config", options.config]
    settings = [f"--config.steps={steps}", "--config.checkpoint.every=1", "--config.eval.every=100000"]
    settings += [f"--config.model.{part}.layers=1" for part in ("image", "text", "decoder")]
    settings += [f"--config.data.train={options.data}", "--config.data.vocab_size=300"] if options.data else []
    local = [sys.executable, str(ROOT / "launch" / "local.py"), "--processes", str(options.processes), "--devices", "1",
             "--restarts", "0", "--"]  # fmt: skip
    return subprocess.Popen(
        [*(local if options.processes > 1 else []), *command, "--workdir", str(workdir), *settings], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def shards_in(folder: Place, count: int = 2) -> str:
    """Writes WebDataset shards of scenes; how they are named in a config."""
    scenes = Scenes(side=16, length=64 * count)
    for shard in range(count):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for index in range(64 * shard, 64 * (shard + 1)):
                image = io.BytesIO()
                Image.fromarray(scenes[index].image).save(image, "PNG")
                captions = json.dumps({"captions": [text for some in scenes.captions(index).values() for text in some]})
                for suffix, data in (("png", image.getvalue()), ("json", captions.encode())):
                    member = tarfile.TarInfo(f"{index:06d}.{suffix}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
        write_whole(folder / f"{shard:05d}.tar", file.getvalue())
    return f"{folder}/{{00000..{count - 1:05d}}}.tar"


@contextlib.contextmanager
def store(name: str) -> Iterator[str]:
    """Where workdirs and data go."""
    if name == "disk":
        with tempfile.TemporaryDirectory() as scratch:
            yield scratch
        return
    serve, environment = {
        "gs": (buckets.gcs_server, buckets.gcs_environment), "s3": (buckets.s3_server, buckets.s3_environment)
    }[name]  # fmt: skip
    with serve() as url, buckets.environment(environment(url)):
        yield f"{name}://{buckets.BUCKET}"


def ending(workdir: Place) -> dict:
    """Checksums and digest of the last checkpoint."""
    checkpoints = open_checkpoints(workdir, read_only=True)
    restored = checkpoints.restore(lambda meta: {})
    checkpoints.close()
    assert restored is not None
    meta = restored[1]
    return {
        "step": meta["step"],
        "digest": meta["digest"],
        "arrays": {k: v["checksum"] for k, v in meta["arrays"].items()},
    }


def unfinished(workdir: Place) -> list[str]:
    """Checkpoints that a kill left half-written."""
    folder = workdir / "checkpoints"
    if isinstance(folder, Path):
        return [path.name for path in folder.glob("*tmp*")]
    names = {str(path).removeprefix(f"{folder}/") for path in folder.rglob("*")}
    steps = {name.partition("/")[0] for name in names}
    return [step for step in steps if f"{step}/commit.json" not in names]


def newest(workdir: Place) -> int:
    """The newest step with a folder, finished or being written."""
    steps = [int(path.name.split(".")[0]) for path in (workdir / "checkpoints").glob("[0-9]*")]
    return max(steps, default=0)


def kill_while_running(workdir: Place, steps: int, rng: random.Random, options: argparse.Namespace) -> dict | None:
    """Starts, waits for a random step and a random while more, kills. `None` when the run was faster."""
    run = start(workdir, steps, options)
    wanted = rng.randrange(1, steps - 5)
    while run.poll() is None and newest(workdir) < wanted:
        time.sleep(0.02)
    try:
        run.wait(rng.uniform(0, options.within))
        return None
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    return {"after_step": newest(workdir), "during_a_save": bool(unfinished(workdir))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--config", default="configs/quickstart.py:smoke", help="its smoke form, with a captioner")
    parser.add_argument("--store", choices=("disk", "gs", "s3"), default="disk")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--within", type=float, default=0.7, help="seconds after a step is seen that kills fall into")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with store(options.store) as root:
        options.data = shards_in(place(root) / "data") if options.store != "disk" else ""
        whole = place(root) / "whole"
        assert start(whole, options.steps, options).wait() == 0
        wanted = ending(whole)

        def trial(number: int) -> dict:
            workdir, rng = place(root) / str(number), random.Random(number)
            kill = kill_while_running(workdir, options.steps, rng, options)
            code = start(workdir, options.steps, options).wait()
            row = {"kill": kill, "equal": code == 0 and ending(workdir) == wanted}
            print(number, json.dumps(row), flush=True)
            return row

        with ThreadPoolExecutor(2) as pool:
            trials = list(pool.map(trial, range(options.trials)))
    kills = [trial["kill"] for trial in trials if trial["kill"]]
    result = {
        "config": options.config,
        "store": options.store,
        "processes": options.processes,
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
