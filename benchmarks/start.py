"""Seconds from the command `vlc train` to the end of the first step, the first time and again in the same workdir.

    python benchmarks/start.py --also before=CHECKOUT --out benchmarks/results/start_cpu.json

The quickstart's config on this machine, each time in a new workdir (`first`), then again in the same one without its
checkpoints (`again`), where what was compiled is found. Checkouts take turns.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent


def seconds_to_first_step(checkout: Path, workdir: str) -> float:
    """Starts a run, and ends it when the first step is reported."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "vlc.cli", "train", "--config", str(checkout / "configs" / "quickstart.py")]
    begun = time.perf_counter()
    run = subprocess.Popen(
        [*command, "--workdir", workdir], env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    next(line for line in run.stdout if line.startswith("step 1/"))
    taken = time.perf_counter() - begun
    run.kill()
    run.wait()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=CHECKOUT")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    checkouts = {"vlc": ROOT} | {name: Path(path) for name, _, path in (one.partition("=") for one in options.also)}
    found: dict[str, dict[str, list[float]]] = {name: {"first": [], "again": []} for name in checkouts}
    for _ in range(options.rounds):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as workdir:
                for which in ("first", "again"):
                    found[name][which].append(round(seconds_to_first_step(checkout, workdir), 2))
                    shutil.rmtree(Path(workdir) / "checkpoints", ignore_errors=True)
            print(name, {which: taken[-1] for which, taken in found[name].items()}, flush=True)
    median = {name: {which: statistics.median(taken) for which, taken in rows.items()} for name, rows in found.items()}
    for name, row in median.items():
        ratios = ", ".join(
            f"{which} {taken:.1f} s ({taken / median['vlc'][which]:.2f})" for which, taken in row.items()
        )
        print(f"{name:12} {ratios}")
    if options.out:
        facts = {"device": f"{os.cpu_count()} CPU cores, {platform.machine()}", "median s": median, "all": found}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
