"""One run as 1, 2 and 4 processes with eight emulated devices in all: the same examples, the same losses to rounding.

    python benchmarks/processes.py --out benchmarks/results/processes.json

CLIP, FILIP and captions with hidden images, 50 steps of the quickstart's smoke form. Told is the largest difference of
the loss to that of one process, relative to it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def curve(folder: Path, processes: int, steps: int) -> dict[int, dict]:
    """The rows of `metrics.jsonl` by step."""
    local = [sys.executable, str(ROOT / "launch" / "local.py")]
    shape = ["--processes", str(processes), "--devices", str(8 // processes), "--restarts", "0"]
    train = [sys.executable, "-m", "vlc.cli", "train", "--config", "configs/quickstart.py:smoke"]
    settings = [f"--config.steps={steps}", "--config.log_every=1", "--config.objectives.caption.null_rate=0.5",
                f"--config.checkpoint.every={steps}", f"--config.eval.every={steps}"]  # fmt: skip
    command = [*local, *shape, "--", *train, "--workdir", str(folder), *settings]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row for row in rows if "loss" in row}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        curves = {count: curve(Path(name) / str(count), count, options.steps) for count in (1, 2, 4)}
    one, found = curves[1], {}
    for count, rows in curves.items():
        assert rows.keys() == one.keys()
        found[count] = {
            "same examples": all(rows[step]["seen"] == one[step]["seen"] for step in rows),
            "largest relative difference of the loss":
                max(abs(rows[step]["loss"] / one[step]["loss"] - 1) for step in rows),
            "last loss": rows[options.steps]["loss"],
        }  # fmt: skip
        print(count, found[count], flush=True)
    options.out.write_text(json.dumps({"steps": options.steps, "processes": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
