"""OVSeg's prompts on scenes (arXiv 2210.04150): crops of masks before and after, all other weights frozen.

    python benchmarks/mask_prompts.py --out benchmarks/results/mask_prompts.json

A model of whole pictures and regions (`configs/regions.py:text`) classifies the shapes of masked crops: as it is; with
prompts in place of what is outside of the masks (`configs/regions.py:prompts`, nothing else is trained); and, for
comparison, from the patches of the whole picture. About six minutes a seed on two CPU cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
_FIGURES = ("class_top1", "class_map", "attribute_ap")


def vlc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "vlc.cli", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def figures(workdir: Path, out: Path, *more: str) -> dict[str, float]:
    task = ("--task", "regions", "--data", "scenes", "--score", "embed", "--examples", "512", *more)
    vlc("eval", "--workdir", str(workdir), "--out", str(out), *task)
    found = json.loads((out / "eval.json").read_text())["tasks"]["regions"]["embed"]
    return {name: found[name] for name in _FIGURES}


def run(seed: int, scratch: Path) -> dict[str, dict[str, float]]:
    start, prompted = scratch / f"start-{seed}", scratch / f"prompts-{seed}"
    vlc("train", "--config", "configs/regions.py:text", "--workdir", str(start), f"--config.seed={seed}")
    more = (f"--config.seed={seed}", f"--config.init={start}")
    vlc("train", "--config", "configs/regions.py:prompts", "--workdir", str(prompted), *more)
    return {
        "patches of the whole picture": figures(start, scratch / "pooled"),
        "masked crops": figures(start, scratch / "crops", "--crops"),
        "masked crops, prompts": figures(prompted, scratch / "prompted", "--crops"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            if str(seed) not in results:
                results[str(seed)] = run(seed, Path(scratch))
                options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
