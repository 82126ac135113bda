"""Images per second from a bucket that answers after 20 ms, beside the local disk: tar shards and ArrayRecord files.

    python benchmarks/bucket_data.py --photos 'PATH/*.tar' --out benchmarks/results/bucket_data.json

PHOTOS are WebDataset shards of `jpg` with captions, resampled to 500 x 375. The bucket is fake-gcs-server on this
machine, behind a proxy that waits before each reply; both take processor time from the reader. Disk and bucket take
turns; told is each round and the ratio of the medians. ArrayRecord files are copied to the cache when they are first
read: what that costs is told apart.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.data import ours, write_shards
from tests import buckets
from tests.faulty_proxy import Faults, faulty_proxy
from vlc.curate.build import Plan, build
from vlc.data.sources import open_source
from vlc.data.tokenizers import SentencePiece
from vlc.storage import place, upload

ROUNDS = 3


def compare(here: str, there: str, tokenizer: SentencePiece, threads: int) -> dict:
    """Rounds from both, in turns."""
    begun = time.perf_counter()
    sources = {"disk": open_source(here), "bucket": open_source(there)}
    opened = time.perf_counter() - begun
    for index in range(0, len(sources["bucket"]), 50):  # what is copied is copied before
        sources["bucket"][index]
    ready = time.perf_counter() - begun
    rounds: dict[str, list[float]] = {"disk": [], "bucket": []}
    for _ in range(ROUNDS):
        for name, source in sources.items():
            rounds[name].append(ours(source, tokenizer, threads=threads, workers=0)["images_per_second"])
    disk, bucket = (statistics.median(rounds[name]) for name in ("disk", "bucket"))
    rates = {name: [round(rate, 1) for rate in found] for name, found in rounds.items()}
    return {"seconds to open": round(opened, 2), "seconds to copy": round(ready - opened, 2), "ratio": bucket / disk,
            "images per second": rates}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True)
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--threads", type=int, nargs="*", default=[4, 16])
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
        with (
            faulty_proxy(url, Faults(delay=options.delay)) as proxy,
            buckets.environment(buckets.gcs_environment(proxy)),
        ):
            for folder in (tars, built):
                upload(folder, place(f"gs://{buckets.BUCKET}/{folder.name}"))
                for threads in options.threads:
                    name = f"{folder.name}, {threads} threads"
                    result[name] = compare(str(folder), f"gs://{buckets.BUCKET}/{folder.name}", tokenizer, threads)
                    print(name, json.dumps(result[name]), flush=True)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
