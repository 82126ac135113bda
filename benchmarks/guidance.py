"""Guidance on scenes, over seeds, with the image hidden in training and without: `vlc eval --task caption`, averaged.

    python benchmarks/guidance.py --init DUAL_ENCODER --workdir runs/guidance --out FILE.json --picture FILE.png

Captioners on one frozen dual encoder, which also scores them; references are generic for four fifths of the images, and
name every object for the others. What is trained or evaluated already is not done again.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from vlc.cli import main as vlc

SCALES = "1,1.2,1.5,2,3,4"
SHOWN = ("bleu4", "meteor", "rouge_l", "cider", "ref_only", "clip_s", "r1", "r5", "r10", "ref_clip_s", "words",
         "vocabulary", "different")  # fmt: skip


def run(*command: object) -> None:
    """One command of `vlc`, in this process."""
    if vlc([str(word) for word in command]):
        raise SystemExit(f"vlc {' '.join(map(str, command))} failed")


def sweep(options: argparse.Namespace, hidden: float, seed: int) -> list[dict]:
    """Trains one captioner and evaluates it at all scales."""
    folder = options.workdir / f"g{hidden}-{seed}"
    train(options.init, folder, options.steps, hidden, seed)
    if options.further:
        first, folder = folder, options.workdir / f"further{hidden}-{seed}"
        train(first, folder, options.further, hidden, seed + 100)
    if not (folder / "eval.json").exists():
        run(
            "eval", folder, "--task", "caption", "--data", "scenes", "--examples", options.images, "--scorer",
            options.init, "--references", "reference", "--guidance-scale", SCALES,
        )  # fmt: skip
    return json.loads((folder / "eval.json").read_text())["tasks"]["caption"]["scales"]


def train(init: str | Path, folder: Path, steps: int, hidden: float, seed: int) -> None:
    if (folder / "checkpoints").is_dir():
        return
    run(
        "train", "--config", "configs/captioner_frozen.py", "--workdir", folder, f"--config.init={init}",
        f"--config.seed={seed}", f"--config.steps={steps}", f"--config.checkpoint.every={steps}",
        f"--config.objectives.caption.null_rate={hidden}", "--config.data.captions.target=reference",
        "--config.data.scenes.reference_generic_rate=0.8", "--config.model.decoder.control.length=0",
        "--config.model.decoder.length=28",
    )  # fmt: skip


def mean_and_range(rows: list[dict], name: str) -> list[float]:
    """Over seeds: the mean, the lowest and the highest."""
    values = [row[name]["value"] for row in rows]
    return [float(np.mean(values)), min(values), max(values)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", required=True)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--further", type=int, default=0, help="steps from there, with a learning rate of their own")
    parser.add_argument("--hidden", type=float, nargs="*", default=[0.5, 0.0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    found: dict[str, list[dict]] = {}
    curves: dict[str, list[dict]] = {}
    for hidden in options.hidden:
        by_seed = [sweep(options, hidden, seed) for seed in range(options.seeds)]
        rows = [list(of_scale) for of_scale in zip(*by_seed, strict=True)]
        name = f"hidden {hidden:g}"
        found[name] = [
            {"guidance_scale": row[0]["guidance_scale"]}
            | {key: mean_and_range(row, key) for key in SHOWN if key in row[0]}
            for row in rows
        ]
        curves[name] = [
            {"guidance_scale": row["guidance_scale"]}
            | {key: {"value": row[key][0], "interval": row[key][1:]} for key in ("cider", "r1", "clip_s")}
            for row in found[name]
        ]
        for row in found[name]:
            print(name, {key: [round(x, 3) for x in v] if isinstance(v, list) else v for key, v in row.items()})
    if options.out:
        settings = {
            "steps": options.steps,
            "further": options.further,
            "images": options.images,
            "seeds": options.seeds,
        }
        options.out.write_text(json.dumps(settings | {"mean, lowest, highest over seeds": found}, indent=1) + "\n")
    if options.picture:
        from vlc.evaluate.report.figures import pareto

        options.picture.write_bytes(pareto(curves))


if __name__ == "__main__":
    main()
