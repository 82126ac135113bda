"""Images a second from JPEG shards to 224-pixel training batches with tokens, beside open_clip's loader and tf.data.

    python benchmarks/data.py --photos 'PATH/*.tar' --rivals PYTHON --out benchmarks/results/data_cpu.json

PHOTOS are WebDataset shards of `jpg` with captions. They are read as they are and resampled up to 500 x 375, the size
of many web photographs. PYTHON is an interpreter that has open_clip_torch, open_clip_train, torchvision, webdataset
0.2, tensorflow and sentencepiece; `benchmarks/data_rivals.py` runs in it. Rounds take turns, so that noise of the
machine falls on all; the best round of each counts. Also: tar against ArrayRecord, threads against worker processes,
and where the time goes.
"""

import argparse
import io
import json
import os
import platform
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vlc.curate.build import Plan, build
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import STAGES, MakeExample, train_batches
from vlc.data.record import Source
from vlc.data.sources import open_source
from vlc.data.tokenizers import SentencePiece, Tokenizer

SIZE, BATCH, WARM, COUNT, SHARDS = 224, 64, 8, 40, 4
SIZES = {"160 x 160": None, "500 x 375": (500, 375)}


def write_shards(photos: str, folder: Path, size: tuple[int, int] | None, records: int) -> None:
    """The photographs as img2dataset would have written them, at another size if asked."""
    source = open_source(photos)
    records = min(records, len(source))
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for index in range(shard * records // SHARDS, (shard + 1) * records // SHARDS):
                record = source[index]
                image = record.image
                if size:
                    buffer = io.BytesIO()
                    picture = Image.open(io.BytesIO(image)).resize(size, Image.Resampling.BICUBIC)
                    picture.save(buffer, "jpeg", quality=90)
                    image = buffer.getvalue()
                for suffix, data in (("jpg", image), ("txt", record.all_captions()[0].encode())):
                    info = tarfile.TarInfo(f"{index:09d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def ours(
    source: Source, tokenizer: Tokenizer, *, threads: int, workers: int, interpolation: str = "antialiased"
) -> dict[str, float]:
    """Images a second, and milliseconds a stage takes for an image."""
    preprocess = Preprocess(SIZE, crop_scale=(0.9, 1.0), interpolation=interpolation)
    make = MakeExample(source, preprocess, CaptionChoice(Mix({})), tokenizer, (32, 32, 32))
    batches = train_batches(make, batch_size=BATCH, seed=0, threads=threads, workers=workers)
    for _ in range(WARM):
        next(batches)
    seconds, begun = np.zeros(len(STAGES)), time.perf_counter()
    for _ in range(COUNT):
        seconds += next(batches)["seconds"].sum(axis=0)
    rate = COUNT * BATCH / (time.perf_counter() - begun)
    batches.close()
    stages = dict(zip(STAGES, (1e3 * seconds / COUNT / BATCH).round(4).tolist(), strict=True))
    return {"images_per_second": rate, **stages}


def rival(python: str, shards: str, arguments: list[str]) -> dict[str, float]:
    """A rival's images a second, in a process of its own."""
    script = Path(__file__).with_name("data_rivals.py")
    command = [python, str(script), *arguments[:1], shards, *arguments[1:], "--size", str(SIZE), "--batch", str(BATCH)]
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--rivals", help="a Python that has them; without it only our own are measured")
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    results: dict = {"device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores", "rows": []}
    os.environ["VLC_CACHE"] = tempfile.mkdtemp()
    with tempfile.TemporaryDirectory() as name:
        for label, size in SIZES.items():
            folder = Path(name) / label.replace(" ", "")
            folder.mkdir()
            write_shards(options.photos, folder, size, options.records)
            shards = str(folder / "*.tar")
            tar = open_source(shards)
            tokenizer = SentencePiece.train((tar[i].all_captions()[0] for i in range(2000)), 4000)
            tokenizer.save(folder / "tokenizer.model")
            build(tar, Plan(shards, shard_records=1000), folder / "built", workers=2)
            record = open_source(str(folder / "built"))
            runs = {
                "vlc, tar, 2 threads": lambda s=tar, t=tokenizer: ours(s, t, threads=2, workers=0),
                "vlc, ArrayRecord, 2 threads": lambda s=record, t=tokenizer: ours(s, t, threads=2, workers=0),
                "vlc, ArrayRecord, 2 workers": lambda s=record, t=tokenizer: ours(s, t, threads=1, workers=2),
                "vlc, tar, 2 threads, bilinear": lambda s=tar, t=tokenizer: ours(
                    s, t, threads=2, workers=0, interpolation="bilinear"
                ),
            }
            if options.rivals:
                model = ["--tokenizer", str(folder / "tokenizer.model")]
                for title, arguments in {
                    "open_clip (webdataset), 2 workers": ["open_clip", *model],
                    "tf.data, bilinear": ["tf.data", *model],
                    "tf.data, bilinear, antialiased": ["tf.data", *model, "--antialias"],
                    "tf.data, bicubic, antialiased": ["tf.data", *model, "--method", "bicubic", "--antialias"],
                }.items():
                    runs[title] = lambda s=shards, a=arguments: rival(options.rivals, s, a)
            found: dict[str, list[dict[str, float]]] = {title: [] for title in runs}
            for _ in range(options.rounds):
                for title, run in runs.items():
                    found[title].append(run())
            for title, rounds in found.items():
                best = max(rounds, key=lambda row: row["images_per_second"])
                all_rates = [round(row["images_per_second"]) for row in rounds]
                results["rows"].append({"images": label, "loader": title, **best, "all rounds": all_rates})
                print(json.dumps(results["rows"][-1]), flush=True)
                options.out.write_text(json.dumps(results, indent=1) + "\n")
    print_table(results["rows"])


def print_table(rows: list[dict]) -> None:
    """Rates, and what ours, from tar with threads and the same kind of resizing, are as multiples of each."""
    for label in SIZES:
        rates = {row["loader"]: row["images_per_second"] for row in rows if row["images"] == label}
        print(f"\n| {label} | images/s | vlc against it |\n|---|---|---|")
        for loader, rate in rates.items():
            like = "vlc, tar, 2 threads, bilinear" if loader.endswith("bilinear") else "vlc, tar, 2 threads"
            print(f"| {loader} | {rate:,.0f} | {rates[like] / rate:.2f} |")


if __name__ == "__main__":
    main()
