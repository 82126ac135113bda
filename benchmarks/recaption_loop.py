"""The loop closed: train on noisy alt-text, write captions with guidance, train on them; and the control without.

    python benchmarks/recaption_loop.py --workdir runs/loop --out benchmarks/results/recaption_loop.json

On scenes whose alt-text is generic for half of the images and names a wrong object for a fifth of the others. All three
models see the same images: `alt` is trained on the alt-text; from it `recaptioned` goes on with the captions that `alt`
itself wrote, and `control` goes on with the alt-text, both for as many steps. Retrieval and binding are those of
`vlc eval` on held-out scenes.
"""

import argparse
import json
from pathlib import Path

from vlc.cli import main as vlc
from vlc.data.build import Plan, build
from vlc.data.sources import Scenes

CONFIG = "configs/quickstart.py"
SCENES = {"side": 72, "objects": (1, 2)}
COMMON = [
    "--config.data.scenes.objects=(1,2)",
    "--config.objectives.filip.weight=0.0",
    "--config.objectives.caption.null_rate=0.5",
    "--config.batch_size=128",
    "--config.data.captions.target=",
    "--config.eval.every=100000",
    "--config.checkpoint.every=100000",
    "--config.model.decoder.length=16",
]


def run(*command: object) -> None:
    """One command of `vlc`, in this process."""
    words = [str(word) for word in command]
    print("$ vlc", *words, flush=True)
    if vlc(words):
        raise SystemExit(f"vlc {' '.join(words)} failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--keep", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = options.workdir
    build(Scenes(length=options.images, **SCENES), Plan("scenes"), folder / "data")

    def train(name: str, data: str, mix: str, *more: str) -> None:
        run(
            "train", "--config", CONFIG, "--workdir", folder / name, f"--config.data.train={folder / data}",
            f"--config.data.captions.mix={mix}", f"--config.steps={options.steps}", f"--config.seed={options.seed}",
            *COMMON, *more,
        )  # fmt: skip

    train("alt", "data", "alt")
    run(
        "caption", "--workdir", folder / "alt", "--data", folder / "data", "--out", folder / "captioned",
        "--guidance-scale", options.guidance_scale, "--samples", options.samples, "--top-p", 0.9, "--keep",
        options.keep,
    )  # fmt: skip
    again = f"--config.init={folder / 'alt'}"
    train("recaptioned", "captioned", "longVLC", again)
    train("control", "data", "alt", again)
    found = {}
    for name in ("alt", "recaptioned", "control"):
        run("eval", folder / name, "--data", "scenes", "--guidance-scale", "1")
        held = json.loads((folder / name / "eval.json").read_text())
        found[name] = {
            "retrieval": held["retrieval"],
            "binding": {edit: row["text"] for edit, row in held["binding"].items()},
            "matched": held["matched"],
        }
        print(name, found[name], flush=True)
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("workdir", "out")}
    if options.out:
        options.out.write_text(json.dumps({"settings": settings, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
