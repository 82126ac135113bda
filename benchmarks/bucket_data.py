"""Images per second from a bucket that answers after 20 ms, beside the local disk: tar shards and ArrayRecord files.

    python benchmarks/bucket_data.py --photos 'PATH/*.tar' --out benchmarks/results/bucket_data.json

PHOTOS are WebDataset shards of `jpg` with captions, resampled to 500 x 375. The bucket is fake-gcs-server on this
machine, behind a link that takes time (tests/slow_link.py); both take processor time from the reader. Disk and bucket
take turns; told is each round and the ratio of the medians. Tars are read in parts, and again when they are copied to
the cache; ArrayRecord files are copied when they are first read. What opening and copying cost is told apart.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.data import ours, write_shards
from tests import buckets
from tests.slow_link import slow_link
from vlc.curate.build import Plan, build
from vlc.data.sources import open_source
from vlc.data.tokenizers import SentencePiece
from vlc.storage import place, upload

ROUNDS = 3


@contextlib.contextmanager
def linked(url: str, delay: float) -> Iterator[str]:
    """The server behind a slow link, which is a process of its own; gives its URL."""
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    link = context.Process(target=serve, args=(urlsplit(url).port, delay, told), daemon=True)
    link.start()
    try:
        yield f"http://127.0.0.1:{told.get(timeout=60)}"
    finally:
        link.kill()


def serve(port: int, delay: float, told: Any) -> None:
    with slow_link(port, delay) as here:
        told.put(here)
        threading.Event().wait()


def compare(here: str, there: str, tokenizer: SentencePiece, threads: int, workers: int) -> dict:
    """Rounds from both, in turns."""
    begun = time.perf_counter()
    sources = {"disk": open_source(here), "bucket": open_source(there)}
    opened = time.perf_counter() - begun
    for index in range(0, len(sources["bucket"]), 50):  # what is copied is copied before
        sources["bucket"][index]
    for copy in getattr(sources["bucket"], "copies", ()):
        while "://" not in copy and not os.path.exists(copy):
            time.sleep(0.01)
    ready = time.perf_counter() - begun
    rounds: dict[str, list[float]] = {"disk": [], "bucket": []}
    for _ in range(ROUNDS):
        for name, source in sources.items():
            rounds[name].append(ours(source, tokenizer, threads=threads, workers=workers)["images_per_second"])
    disk, bucket = (statistics.median(rounds[name]) for name in ("disk", "bucket"))
    rates = {name: [round(rate, 1) for rate in found] for name, found in rounds.items()}
    return {"seconds to open": round(opened, 2), "seconds to copy": round(ready - opened, 2), "ratio": bucket / disk,
            "images per second": rates}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict = {"delay": options.delay, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as scratch, buckets.gcs_server() as url:
        os.environ["VLC_CACHE"] = f"{scratch}/cache"
        tars, built = Path(scratch) / "tars", Path(scratch) / "built"
        tars.mkdir()
        write_shards(options.photos, tars, (500, 375), options.records)
        source = open_source(str(tars))
        build(source, Plan(str(tars), shard_records=100), built)
        texts = (text for index in range(len(source)) for text in source[index].all_captions())
        tokenizer = SentencePiece.train(texts, 300)
        with linked(url, options.delay) as link, buckets.environment(buckets.gcs_environment(link)):
            for folder in (tars, built):
                upload(folder, place(f"gs://{buckets.BUCKET}/{folder.name}"))
            for label, folder, room, threads, workers in (
                ("tars in parts, 4 threads", tars, "0", 4, 0),
                ("tars in parts, 2 workers of 2 threads", tars, "0", 2, 2),
                ("tars copied, 4 threads", tars, "", 4, 0),
                ("ArrayRecord, 4 threads", built, "", 4, 0),
            ):
                os.environ["VLC_CACHE_GIB"] = room
                there = f"gs://{buckets.BUCKET}/{folder.name}"
                result[label] = compare(str(folder), there, tokenizer, threads, workers)
                print(label, json.dumps(result[label]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
