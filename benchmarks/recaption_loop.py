"""The loop closed: train on noisy alt-text, write captions with guidance, train on them; and the control without.

    python benchmarks/recaption_loop.py --workdir runs/loop --out benchmarks/results/recaption_loop.json

The alt-texts describe their scene in full, but half of them are of another one. `alt` is trained on them. From it the
rest go on for as many steps on the same images: `control` on the alt-text again, others on what `alt` itself wrote, by
guidance or without (`unguided`), alone or beside the alt-text (`mixed`), or beside the part of the alt-text that
`alt` finds to fit (`filtered`, by `--min-score`), or on that part alone (`kept`). Retrieval and binding are those of
`vlc eval` on held-out scenes. Started again, it goes on where it was; `--arms` measures some only, beside what the
results have already.
"""

import argparse
import json
from pathlib import Path

from caption_noise import SIDE, generate_captions, write_images

from vlc.cli import main as vlc

CONFIG = "configs/quickstart.py:plain"
COMMON = [
    f"--config.data.image.size={SIDE}",
    "--config.data.vocab_size=256",
    "--config.data.captions.target=",
    "--config.model.image.patch=8",
    "--config.model.image.width=96",
    "--config.model.image.layers=3",
    "--config.model.text.width=96",
    "--config.model.decoder.width=96",
    "--config.model.decoder.length=48",
    "--config.objectives.filip.weight=0.0",
    "--config.objectives.caption.null_rate=0.5",
    "--config.batch_size=128",
    "--config.log_every=50",
    "--config.eval.every=100000",
    "--config.checkpoint.every=100000",
]

ARMS = {  # data, and the captions of it that are drawn
    "control": ("data", "alt"),
    "unguided": ("plain", "longVLC"),
    "recaptioned": ("guided", "longVLC"),
    "mixed": ("guided", "longVLC:1,alt:1"),
    "filtered": ("cleaned", "longVLC:1,alt:1"),
    "kept": ("fitting", "alt"),
}


def run(*command: object) -> None:
    """One command of `vlc`, in this process."""
    words = [str(word) for word in command]
    print("$ vlc", *words, flush=True)
    if vlc(words):
        raise SystemExit(f"vlc {' '.join(words)} failed")


def write_noisy(folder: Path, noise: float, seed: int) -> Path:
    """Images, and alt-texts of which a share belongs to others; the folder of both."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_images(data)
    generate_captions(data / "captions.jsonl", noise, seed)
    return data


def train(folder: Path, name: str, data: str, mix: str, steps: int, seed: int, *more: str) -> None:
    """The small model of all these measurements."""
    run(
        "train", "--config", CONFIG, "--workdir", folder / name, f"--config.data.train={folder / data}",
        f"--config.data.captions.mix={mix}", f"--config.steps={steps}", f"--config.seed={seed}", *COMMON, *more,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--guidance-scale", type=float, default=2.0)
    parser.add_argument("--min-score", type=float, default=0.375, help="between the two humps of the alt-text's scores")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--keep", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=list(ARMS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = options.workdir
    noisy = write_noisy(folder, options.noise, options.seed)

    def caption(name: str, scale: float, *more: object) -> None:
        run(
            "caption", "--workdir", folder / "alt", "--data", noisy, "--out", folder / name, "--guidance-scale", scale,
            "--num-return-sequences", options.samples, "--top-p", 0.9, "--keep", options.keep, "--seed", options.seed,
            *more,
        )  # fmt: skip

    train(folder, "alt", "data", "alt", options.steps, options.seed)
    make = {
        "guided": lambda: caption("guided", options.guidance_scale),
        "plain": lambda: caption("plain", 1.0),
        "cleaned": lambda: caption("cleaned", options.guidance_scale, "--min-score", options.min_score),
        "fitting": lambda: caption("fitting", 1.0, "--num-return-sequences", 0, "--min-score", options.min_score),
    }
    found = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
    for name in options.arms:
        data, mix = ARMS[name]
        make.get(data, lambda: None)()
        train(folder, name, data, mix, options.steps, options.seed, f"--config.init={folder / 'alt'}")
    for name in ("alt", *options.arms):
        run("eval", folder / name, "--data", "scenes", "--guidance-scale", "1")
        result = json.loads((folder / name / "eval.json").read_text())
        found[name] = {
            "retrieval": result["retrieval"],
            "binding": {edit: row["text"] for edit, row in result["binding"].items()},
            "matched": result["matched"],
        }
        print(name, found[name], flush=True)
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("workdir", "out", "arms")}
    if options.out:
        options.out.write_text(json.dumps(found | {"settings": settings}, indent=1) + "\n")


if __name__ == "__main__":
    main()
