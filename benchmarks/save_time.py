"""What saving to a bucket at 200 MB/s adds to the steps: the state of a model of 300 million parameters, 3.6 GB.

    python benchmarks/save_time.py --out benchmarks/results/save_time.json

Steps are pauses, as of an accelerator that needs nothing of the host. The bucket is fake-gcs-server on this machine,
and what is sent to it is held back to the rate. Told are the seconds that `save` keeps the loop waiting, what steps
took longer while the upload went on, and both as a share of the time between two saves, 15 minutes in the shipped
configs.
"""

import argparse
import json
import os
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

from tests import buckets
from vlc.storage import place, write_whole
from vlc.train import pieces
from vlc.train.bucket_checkpoint import BucketCheckpoints

STEP = 0.25  # seconds


class Paced:
    """`write_whole`, no faster than a rate over all threads."""

    def __init__(self, rate: float):
        self._rate, self._lock, self._free = rate, threading.Lock(), time.monotonic()

    def __call__(self, path: object, data: bytes) -> None:
        with self._lock:
            self._free = max(self._free, time.monotonic()) + len(data) / self._rate
            due = self._free
        write_whole(path, data)  # pyright: ignore[reportArgumentType]
        time.sleep(max(0.0, due - time.monotonic()))


def state_of(parameters: int) -> dict:
    """Parameters and two moments, in arrays of the size of a layer's."""
    rows = parameters // (24 * 1024)
    made = {str(layer): jnp.full((rows, 1024), layer, jnp.float32) for layer in range(24)}
    return {"params": made, "opt": {"mu": jax.tree.map(jnp.copy, made), "nu": jax.tree.map(jnp.copy, made)}}


def steps(seconds: float) -> list[float]:
    """Times of steps for so long."""
    end, taken = time.monotonic() + seconds, []
    while time.monotonic() < end:
        begun = time.perf_counter()
        time.sleep(STEP)
        taken.append(time.perf_counter() - begun)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parameters", type=float, default=300e6)
    parser.add_argument("--rate", type=float, default=200e6, help="bytes a second")
    parser.add_argument("--minutes", type=float, default=15, help="between two saves")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pieces.write_whole = Paced(options.rate)
    state = state_of(int(options.parameters))
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    with buckets.gcs_server() as url, buckets.environment(buckets.gcs_environment(url)):
        checkpoints = BucketCheckpoints(place(f"gs://{buckets.BUCKET}/run"), keep_last=1, keep_best=0)
        plain = steps(5)
        rows = []
        for step in (1, 2, 3):
            begun = time.perf_counter()
            checkpoints.save(step, state, {})
            blocked = time.perf_counter() - begun
            during, thread = [], checkpoints._thread
            while thread is not None and thread.is_alive():
                during += steps(1)
            upload = time.perf_counter() - begun - blocked
            slower = sum(during) - len(during) * statistics.median(plain)
            rows.append({"blocked s": blocked, "upload s": upload, "steps were longer by s": slower,
                         "share": (blocked + slower) / (60 * options.minutes)})  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
            checkpoints.wait()
    share = statistics.median(row["share"] for row in rows)
    result = {"state bytes": size, "bytes a second": options.rate, "minutes between saves": options.minutes,
              "cores": os.cpu_count(), "saves": rows, "share": share}  # fmt: skip
    print(json.dumps(share))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
