"""CLIP, CLIP + FILIP, CLIP + FILIP + DreamLIP on scenes: the same steps, seeds and towers, side by side.

    python benchmarks/ablation.py --out benchmarks/results/ablation.json

Every run is `configs/quickstart.py:plain` (captioner included) with other weights. DreamLIP adds two sub-captions an
image with the multi-positive and the grouping loss. About 35 minutes on two CPU cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
VARIANTS = {
    "CLIP": ["--config.objectives.filip.weight=0.0"],
    "CLIP + FILIP": [],
    "CLIP + FILIP + DreamLIP": [
        "--config.data.captions.sub_captions=2",
        "--config.data.captions.sub_sources=long",
        "--config.data.captions.sub_length=24",
        "--config.objectives.multi_positive.weight=1.0",
        "--config.objectives.grouping.weight=1.0",
    ],
}


def run(variant: str, seed: int, workdir: Path) -> dict[str, float]:
    """Trains and evaluates one variant; returns its numbers."""
    vlc = [sys.executable, "-m", "vlc.cli"]
    train = ["train", "--config", "configs/quickstart.py:plain", "--workdir", str(workdir), f"--config.seed={seed}"]
    begun = time.time()
    subprocess.run([*vlc, *train, *VARIANTS[variant]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.time() - begun
    evaluate = ["eval", "--workdir", str(workdir), "--guidance-scale", "1,2,3"]
    subprocess.run([*vlc, *evaluate], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((workdir / "eval.json").read_text())
    binding = found["binding"]
    numbers = {
        "training seconds": seconds,
        "pointing": found["pointing"]["accuracy"],
        "blind": found["pointing"]["blind"],
    }
    for by, suffix in (("embed", ""), ("tokens", "_tokens")):
        numbers[f"t2i R@1 {by}"] = found["retrieval"][by]["t2i_r1"]
        numbers[f"i2t R@1 {by}"] = found["retrieval"][by]["i2t_r1"]
        numbers[f"unseen pairs R@1 {by}"] = found["novel"][by]["t2i_r1"]
        numbers[f"sentence R@1 {by}"] = found["sentence"][f"t2i_r1{suffix}"]
        for edit in binding:
            numbers[f"{edit} {by}"] = binding[edit][f"text{suffix}"]
        for keep in ("colour", "shape", "place"):
            numbers[f"same {keep} {by}"] = found["matched"][f"same_{keep}_{by}"]
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in VARIANTS}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            for number, variant in enumerate(VARIANTS):
                results[variant].append(run(variant, seed, Path(scratch) / f"{number}-{seed}"))
                print(seed, variant, json.dumps(results[variant][-1]), flush=True)
                options.out.write_text(json.dumps(results, indent=1) + "\n")
    names = list(results["CLIP"][0])
    print(f"| {'':28} | " + " | ".join(results) + " |")
    for name in names:
        cells = ([row[name] for row in rows] for rows in results.values())
        print(f"| {name:28} | " + " | ".join(f"{np.mean(c):.3f} ± {np.std(c):.3f}" for c in cells) + " |")


if __name__ == "__main__":
    main()
