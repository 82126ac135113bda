"""Three promises of the data pipeline, tried on real photographs with real kills.

    python benchmarks/data_trials.py --photos 'PATH/*.tar' --out benchmarks/results/data_trials.json

returns   50 times: a run on 1, 2 or 4 processes with 0, 1 or 2 workers is killed (SIGKILL) at a random moment and goes
          on, on another number of both; the keys of every global batch must be those of an undisturbed run.
builds    `vlc data build` of all photographs, killed five times; every byte must be that of an undisturbed build.
memory    20 epochs with 2 workers; resident memory of the trainer and its workers, epoch by epoch.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import MakeExample, train_batches
from vlc.data.sources import open_source
from vlc.data.tokenizers import SentencePiece

BATCH, SEED = 16, 5


def make_batches(photos: str, batch: int, **options):
    """The pipeline as training would have it."""
    source = open_source(photos)
    tokenizer = SentencePiece.train(["a dog runs on the beach", "two children play"] * 20, 60)
    preprocess = Preprocess(32, crop_scale=(0.5, 1.0), flip=True)
    make = MakeExample(source, preprocess, CaptionChoice(Mix({})), tokenizer, (8, 8, 8))
    return source, train_batches(make, batch_size=batch, seed=SEED, **options)


def child(options: argparse.Namespace) -> None:
    """One process of a run: prints step, indices and checksums of the pixels of its share, until it is killed."""
    _, batches = make_batches(
        options.photos, BATCH, start_step=options.start, rows=range(options.process, BATCH, options.processes),
        workers=options.workers,
    )  # fmt: skip
    for step in range(options.start, options.start + 40):
        batch = next(batches)
        pixels = [hashlib.md5(image.tobytes()).hexdigest()[:8] for image in batch["image"]]
        print(json.dumps([step, batch["index"].tolist(), pixels]), flush=True)


def run(photos: str, start: int, processes: int, workers: int, until: int) -> dict[int, set]:
    """Global batches by step, until `until` of them are whole; then all processes are killed."""
    command = [
        sys.executable,
        __file__,
        "--photos",
        photos,
        "--child",
        "--start",
        str(start),
        "--workers",
        str(workers),
    ]
    children = [
        subprocess.Popen(
            [*command, "--processes", str(processes), "--process", str(i)], stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL,
        )
        for i in range(processes)
    ]  # fmt: skip
    steps: dict[int, set] = {}
    for _ in range(until):
        for process in children:
            assert process.stdout is not None
            step, index, pixels = json.loads(process.stdout.readline())
            steps.setdefault(step, set()).update(zip(index, pixels, strict=True))
    for process in children:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return steps


def try_returns(photos: str, trials: int) -> dict:
    """Killed and gone on with, against an undisturbed run."""
    whole = run(photos, 0, 1, 0, 24)
    rng = random.Random(1)
    good, tried = 0, []
    for trial in range(trials):
        first = rng.choice([1, 2, 4]), rng.choice([0, 1, 2])
        second = rng.choice([1, 2, 4]), rng.choice([0, 1, 2])
        killed = rng.randint(1, 15)
        found = run(photos, 0, *first, killed) | run(photos, killed, *second, rng.randint(3, 8))
        same = all(batch == whole[step] for step, batch in found.items()) and sorted(found) == list(range(len(found)))
        good += same
        tried.append({"processes, workers": [first, second], "killed after": killed, "same": same})
        print(trial, tried[-1], flush=True)
    return {"trials": trials, "same": good, "each": tried}


def try_builds(photos: str, kills: int) -> dict:
    """Builds killed at random moments, against an undisturbed one."""
    rng = random.Random(2)
    done: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "vlc.cli", "data", "build", photos, "--shard-records", "250", "--workers", "2"]
        begun = time.time()
        subprocess.run([*command, "--out", f"{name}/whole"], check=True)
        took = time.time() - begun
        killed_at = Path(name, "killed")
        for _ in range(kills):
            process = subprocess.Popen([*command, "--out", str(killed_at)], start_new_session=True)
            until = _finished(killed_at) + rng.randint(2, 6)
            while _finished(killed_at) < until and process.poll() is None:
                time.sleep(0.002)
            assert process.poll() is None, "it ended before it was killed"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done.append(_finished(killed_at))
        subprocess.run([*command, "--out", f"{name}/killed"], check=True)
        whole, killed = ({p.name: _digest(p) for p in Path(name, kind).rglob("*")} for kind in ("whole", "killed"))
        records = json.loads(Path(name, "whole", "manifest.json").read_text())["records"]
    return {
        "records": records, "kills": kills, "finished when killed": done, "files": len(whole),
        "same bytes": whole == killed, "seconds": round(took, 1),
    }  # fmt: skip


def _finished(out: Path) -> int:
    """Parts of the survey and shards that are finished; together about 42."""
    work = out / ".build"
    looked = 14 if (work / "survey.arrow").exists() else len(list(work.glob("survey-*.arrow")))
    return looked + len(list(work.glob("*.json")))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def try_memory(photos: str, epochs: int) -> dict:
    """Resident memory after each epoch."""
    source, batches = make_batches(photos, 100, workers=2)
    steps = len(source) // 100
    rows = []
    for epoch in range(epochs):
        for _ in range(steps):
            next(batches)
        pids = [os.getpid(), *_children(os.getpid())]
        rows.append(sum(map(_resident, pids)))
        print(f"epoch {epoch + 1}: {rows[-1]:.0f} MiB in {len(pids)} processes", flush=True)
    batches.close()
    return {"images an epoch": steps * 100, "MiB after each epoch": [round(row) for row in rows]}


def _children(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in listing.split() if Path(f"/proc/{child}").exists()]


def _resident(pid: int) -> float:
    """MiB of a process that it does not share."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=["returns", "builds", "memory"])
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name in ("start", "process", "processes", "workers"):
        parser.add_argument(f"--{name}", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    flags.FLAGS.mark_as_parsed()
    if options.child:
        return child(options)
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    tries = {
        "builds": lambda: try_builds(options.photos, 5),
        "memory": lambda: try_memory(options.photos, 20),
        "returns": lambda: try_returns(options.photos, options.trials),
    }
    for name, attempt in tries.items():
        if options.only in (None, name):
            results[name] = attempt()
            options.out.write_text(json.dumps(results, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
