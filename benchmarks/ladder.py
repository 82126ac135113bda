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
EARLIER = ["steps=720", "data.first_length=0"]  # the quickstart of before


def _of_one_object(share: float, steps: int) -> list[str]:
    """Another share of training of one object, with all that changes with it."""
    return [
        f"data.scenes.first_share={share}", f"data.first_share={share}", f"steps={steps}",
        f"data.captions.mix_schedule=({share - 0.02:.2f},{share + 0.02:.2f})",
    ]  # fmt: skip


WRONG_PLACES = [
    "data.captions.negatives=1", "data.scenes.place_rate=0.5", "data.scenes.edits=swap_place",
    "objectives.hard_filip.scores=text",
]  # fmt: skip
REGIONS = [
    "objectives.region.weight=1", "data.regions.count=3", "data.regions.sources=region,brief", "data.regions.length=16",
]  # fmt: skip
RUNGS = {
    "as it is": [],
    "regions and wrong places (the form `places`)": [*WRONG_PLACES, "objectives.hard_filip.weight=0.5", *REGIONS],
    "the same, 560 steps, two regions": [
        *WRONG_PLACES,
        "objectives.hard_filip.weight=0.5",
        *REGIONS,
        "data.regions.count=2",
        "data.regions.length=12",
        "steps=560",
    ],
    "wrong places": [*WRONG_PLACES, "objectives.hard_filip.weight=1"],
    "the same, soft maxima": [
        *WRONG_PLACES,
        "objectives.hard_filip.weight=1",
        "objectives.hard_filip.smoothing=0.05",
    ],
    "captions of full length from the first step on, 720 steps": EARLIER,
    "40% of training of one object, 850 steps": _of_one_object(0.4, 850),
    "the same, four registers": [*_of_one_object(0.4, 850), "model.image.registers=4"],
    "the same, eight registers": [*_of_one_object(0.4, 850), "model.image.registers=8"],
    "four registers, 850 steps": ["steps=850", "model.image.registers=4"],
    "48 pixels first, 45% of training of one object, 1,000 steps": [*_of_one_object(0.45, 1000), "data.first_size=48"],
    "60 pixels first, 45% of training of one object, 940 steps": [*_of_one_object(0.45, 940), "data.first_size=60"],
    "self-distillation and masked prediction (SigLIP 2)": [
        "optimizer.ema=0.98",
        "model.image.prototypes=256",
        "objectives.local_global.weight=0.3",
        "objectives.masked.weight=0.3",
    ],
    "the moving average teaches (ALBEF)": ["optimizer.ema=0.98", "objectives.distill.weight=0.5"],
    "no curriculum: two or three objects from the first step, 720 steps": [
        *EARLIER,
        "data.scenes.first_share=0",
        "data.captions.mix=long:0.7,brief:0.3",
        "data.captions.mix_end=",
    ],
    "long captions alone after the first part": ["data.captions.mix_end=long"],
    "both similarities of FILIP, 720 steps": [*EARLIER, "objectives.filip.scores=both"],
    "hard maxima, 720 steps": [*EARLIER, "objectives.filip.smoothing=0"],
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
    "half of the patches (FLIP), 720 steps": [*EARLIER, "model.image.drop_patches=0.5"],
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
