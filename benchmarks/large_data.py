"""Data of a size that memory would not hold: a captions table of 10 GB, 3 million rows of DreamLIP's columns, 200,000
shards. How long each takes to be read for the first time, and the most memory of its own that a process has meanwhile.

    python benchmarks/large_data.py [--scale 1.0] [--only captions,dreamlip,shards] [--out FILE]

Memory is what the process has beside mapped files (RssAnon), which the system may take back at any time. The files are
made first, as streams, and removed at the end.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORDS = [f"word{i}" for i in range(2000)]
LONG = 20_000  # letters of a caption in the table of 10 GB
DREAMLIP = ("raw_caption", "shortIB_captions", "longIB_captions", "shortSV_captions", "longSV_captions",
            "shortLLA_captions", "longLLA_captions")  # fmt: skip

OPEN = """
import sys, time
from vlc.data.sources import open_source
begun = time.perf_counter()
source = open_source(sys.argv[1])
first = time.perf_counter() - begun
for index in range(0, len(source), max(1, len(source) // 2000)):
    source.captions(index)
print("RESULT", len(source), first)
"""
TRAIN = ["-m", "vlc.cli", "train", "--config", "configs/clip_b16.py:smoke", "--config.steps=2"]


def image() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(file, "JPEG")
    return file.getvalue()


def text(rng: random.Random, letters: int) -> str:
    return " ".join(rng.choices(WORDS, k=letters // 9))


def make_captions(folder: Path, rows: int) -> int:
    """JSONL with captions of 20 KB; 40 of them stand for all, since only their number and length matter."""
    rng = random.Random(0)
    texts = [text(rng, LONG) for _ in range(40)]
    with (folder / "captions.jsonl").open("w") as file:
        for row in range(rows):
            file.write(json.dumps({"image": f"{row}.jpg", "caption": texts[row % 40] + f" {row}"}) + "\n")
    return (folder / "captions.jsonl").stat().st_size


def make_dreamlip(folder: Path, rows: int) -> int:
    """A CSV of DreamLIP's columns, 3 KB a row; every row names the one image in another way."""
    rng = random.Random(1)
    (folder / "0.jpg").write_bytes(image())
    long = [text(rng, 900).replace(" word1", ". Word1") for _ in range(500)]
    with (folder / "captions.csv").open("w") as file:
        file.write("image," + ",".join(DREAMLIP) + "\n")
        for row in range(rows):
            name = "".join("./" if row >> bit & 1 else ".//" for bit in range(22)) + "0.jpg"
            cells = [f'"{long[(row * 7 + k) % 500]}"' if "long" in column else f"short {row} {k}"
                     for k, column in enumerate(DREAMLIP)]  # fmt: skip
            file.write(f"{name}," + ",".join(cells) + "\n")
    return (folder / "captions.csv").stat().st_size


def make_shards(folder: Path, count: int) -> int:
    """Tars of one sample, hard links of a few, so that the disk holds them."""
    data = image()
    for number in range(min(count, 20)):
        with tarfile.open(folder / f"{number:06d}.tar", "w") as tar:
            for name, part in (("0.jpg", data), ("0.txt", f"caption {number}".encode())):
                info = tarfile.TarInfo(name)
                info.size = len(part)
                tar.addfile(info, io.BytesIO(part))
    for number in range(20, count):
        os.link(folder / f"{number % 20:06d}.tar", folder / f"{number:06d}.tar")
    return count


def memory_of(pid: int) -> int:
    """Bytes of memory of its own that a process has."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
    except (OSError, StopIteration):
        return 0


def watched(command: list[str], cwd: Path) -> tuple[str, float, int]:
    """Output, seconds and most memory of a command."""
    begun = time.perf_counter()
    run = subprocess.Popen([sys.executable, *command], cwd=cwd, stdout=subprocess.PIPE, text=True,
                           env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)})  # fmt: skip
    most = [0]

    def watch() -> None:
        while run.poll() is None:
            most[0] = max(most[0], memory_of(run.pid))
            time.sleep(0.05)

    threading.Thread(target=watch, daemon=True).start()
    said = run.communicate()[0]
    if run.returncode:
        raise SystemExit(f"{command} ended with {run.returncode}")
    return said, time.perf_counter() - begun, most[0]


def opened(folder: Path) -> dict:
    """Reads a source twice: for the first time, and found again."""
    found = {}
    for name in ("first", "again"):
        said, _, most = watched(["-c", OPEN, str(folder)], ROOT)
        records, seconds = said.split("RESULT")[1].split()
        found |= {"records": int(records), f"seconds, {name}": round(float(seconds), 1),
                  f"MiB, {name}": most >> 20}  # fmt: skip
    return found


def trained(folder: Path, run: Path) -> dict:
    """Starts a run, whose first steps read the data."""
    _, seconds, most = watched([*TRAIN, f"--config.data.train={folder}", "--workdir", str(run)], ROOT)
    return {"seconds of a run of two steps": round(seconds, 1), "MiB of a run": most >> 20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", default="captions,dreamlip,shards")
    parser.add_argument("--out", default="")
    options = parser.parse_args()
    found: dict = {"scale": options.scale}
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory(prefix="vlc-large-") as scratch:
            folder = Path(scratch) / "data"
            folder.mkdir()
            if name == "captions":
                size = make_captions(folder, int(500_000 * options.scale))
                found[name] = {"GB": round(size / 1e9, 2)} | opened(folder)
            elif name == "dreamlip":
                size = make_dreamlip(folder, int(3_000_000 * options.scale))
                found[name] = {"GB": round(size / 1e9, 2)} | trained(folder, Path(scratch) / "run") | opened(folder)
            else:
                make_shards(folder, int(200_000 * options.scale))
                found[name] = opened(folder)
            print(name, json.dumps(found[name]), flush=True)
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
