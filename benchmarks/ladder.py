"""The quickstart with one ingredient changed at a time: what each of them is worth for fine detail.

    python benchmarks/ladder.py --out benchmarks/results/ladder.json --seeds 3
    python benchmarks/ladder.py --out ... --only "as it is" --only "AdamW"

Every rung is `configs/quickstart.py` with the flags that are named below, and the whole of `vlc eval`. About four
minutes a rung and seed on two CPU cores. Rungs and seeds that the file already has are not run again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
RUNGS = {
    "as it is": [],
    "no curriculum: two or three objects from the first step": [
        "data.scenes.first_share=0",
        "data.captions.mix=long:0.7,brief:0.3",
        "data.captions.mix_end=",
    ],
    "long captions alone after the first part": ["data.captions.mix_end=long"],
    "both similarities of FILIP": ["objectives.filip.scores=both"],
    "hard maxima": ["objectives.filip.smoothing=0"],
    "a linear map of patches": ["model.image.stem=patch"],
    "AdamW": ["optimizer.name=adamw", "optimizer.lr=1e-3"],
    "the mean of the patches": ["model.image.pool=mean"],
    "four layers of the image tower": ["model.image.layers=4"],
    "twins after the first part": ["data.twins=0.5", "data.twins_from=0.35"],
    "wrong texts among those of the batch (NegCLIP)": [
        "data.captions.negatives=1",
        "objectives.clip.hard_texts=1",
        "objectives.filip.hard_texts=1",
    ],
    "half of the patches (FLIP)": ["model.image.drop_patches=0.5"],
}


def run(flags: list[str], seed: int, workdir: Path) -> dict[str, float]:
    """Trains and evaluates one rung."""
    vlc = [sys.executable, "-m", "vlc.cli"]
    train = ["train", "--config", "configs/quickstart.py", "--workdir", str(workdir), f"--config.seed={seed}"]
    begun = time.time()
    more = [f"--config.{flag}" for flag in flags]
    subprocess.run([*vlc, *train, *more], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.time() - begun
    evaluate = ["eval", "--workdir", str(workdir), "--guidance-scale", "1,1.5,2,3"]
    subprocess.run([*vlc, *evaluate], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return {"training seconds": round(seconds, 1)} | numbers_of(json.loads((workdir / "eval.json").read_text()))


def numbers_of(found: dict[str, Any]) -> dict[str, float]:
    """The figures of fine detail in an `eval.json`, as shares."""
    captions = found["captions"]
    return {
        "t2i R@1": found["retrieval"]["embed"]["t2i_r1"],
        **{f"right caption, {edit}": row["text"] for edit, row in found["binding"].items()},
        **{f"right caption by tokens, {edit}": row["text_tokens"] for edit, row in found["binding"].items()},
        "classes of shape": found["zero_shot"]["shape_embed"]["top1"],
        "classes of shape by tokens": found["zero_shot"]["shape_tokens"]["top1"],
        "pointing": found["pointing"]["accuracy"],
        "captions find their image, best scale": max(row["self_r1"] for row in captions),
        "their attributes true, best scale": max(row["attributes"] or 0.0 for row in captions),
    }


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Means over the seeds, and their deviations, a row for each rung."""
    names = list(next(iter(next(iter(results.values())).values())))
    print("| rung | seeds | " + " | ".join(names) + " |")
    for rung, seeds in results.items():
        cells = ([row[name] for row in seeds.values() if name in row] for name in names)
        shown = [f"{np.mean(cell):.3f} ± {np.std(cell):.3f}" if cell else "-" for cell in cells]
        print(f"| {rung} | {len(seeds)} | " + " | ".join(shown) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=tuple(RUNGS), help="a rung; may be given several times")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            for number, rung in enumerate(options.only or RUNGS):
                done = results.setdefault(rung, {})
                if str(seed) not in done:
                    done[str(seed)] = run(RUNGS[rung], seed, Path(scratch) / f"{number}-{seed}")
                    options.out.write_text(json.dumps(results, indent=1) + "\n")
                    print(seed, rung, json.dumps(done[str(seed)]), flush=True)
    show(results)


if __name__ == "__main__":
    main()
