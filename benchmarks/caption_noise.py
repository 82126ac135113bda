"""Noisy alt-text, clean but plain synthetic captions, or both: the same model, steps and images, alt-text noise 0-80%.

    python benchmarks/caption_noise.py --out benchmarks/results/caption_noise.json

The question of VeCLIP (arXiv 2310.07699) and of "Revisit" (arXiv 2410.02740), on scenes, where the truth is known. An
alt-text tells everything (size, texture, colour, shape, places, background) but, with the rate of noise, of another
picture. A synthetic caption always belongs to its picture, and tells colours and shapes only, as a captioner with a
small vocabulary would. `mixed` draws one of the two at each visit, evenly. Each model then ranks 512 held-out pictures
for a full description (`full`) and for a plain one (`plain`): recall at 1. About an hour on two CPU cores.
"""

import argparse
import io
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats

import vlc
from vlc.config import Config, default_config
from vlc.data.sources import Scenes
from vlc.evaluate.metrics.retrieval import both_retrievals
from vlc.train.loop import train

NOISE = (0.0, 0.2, 0.5, 0.8)
MIXES = {"alt-text": "alt", "synthetic": "synthetic", "mixed": "alt:1,synthetic:1"}
RECORDS, HELD_OUT, SIDE = 8000, 512, 48
SCENES = Scenes(side=SIDE, objects=(2, 3))


def write_images(folder: Path) -> None:
    """The training pictures, once for all runs."""
    for index in range(RECORDS):
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(SCENES[index].image)).save(buffer, "png")
        (folder / f"{index}.png").write_bytes(buffer.getvalue())


def generate_captions(path: Path, noise: float, seed: int) -> None:
    """Captions by source; a share `noise` of the alt-texts describes another picture."""
    rng = np.random.default_rng((seed, 7))
    lines = []
    for index in range(RECORDS):
        other = int(rng.integers(RECORDS)) if rng.random() < noise else index
        captions = {
            "alt": list(SCENES.captions(other)["long"]),
            "synthetic": list(SCENES.captions(index)["short"]),
        }
        lines.append(json.dumps({"image": f"{index}.png", "captions": captions}) + "\n")
    path.write_text("".join(lines))


def make_config(captions: Path, mix: str, seed: int, steps: int) -> Config:
    config = default_config()
    config.seed, config.steps, config.batch_size, config.log_every = seed, steps, 128, steps
    config.data.train = str(captions)
    config.data.vocab_size, config.data.tokenizer_samples = 256, 2000
    config.data.image.size = SIDE
    config.data.captions.mix = mix
    config.model.embed_dim = 64
    config.model.image.update({"patch": 8, "width": 96, "layers": 3, "heads": 4, "pool": "mean"})
    config.model.text.update({"width": 96, "layers": 2, "heads": 4, "length": 48})
    config.optimizer.lr, config.optimizer.warmup_steps = 1e-3, 40
    config.checkpoint.every = config.eval.every = steps
    return config


def score(workdir: Path) -> dict[str, float]:
    """Recall at 1 of held-out pictures by their full and by their plain descriptions."""
    model = vlc.load(workdir)
    test = SCENES.subset(split="test", length=HELD_OUT)
    records = [test[i] for i in range(HELD_OUT)]
    image = model.encode_image([record.image for record in records])
    found = {}
    for name, source in (("full", "long"), ("plain", "short")):
        text = model.encode_text([record.captions[source][0] for record in records])
        found[name] = both_retrievals(image, text, range(HELD_OUT))["embed"]["t2i_r1"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    runs: list[dict] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_images(scratch)
        for seed in range(options.seeds):
            for noise in NOISE:
                captions = scratch / f"captions-{noise}-{seed}.jsonl"
                generate_captions(captions, noise, seed)
                for arm, mix in MIXES.items():
                    if arm == "synthetic" and noise:
                        continue  # it does not see the alt-text
                    workdir = scratch / f"{arm}-{noise}-{seed}"
                    train(make_config(captions, mix, seed, options.steps), workdir)
                    runs.append({"seed": seed, "noise": noise, "arm": arm, **score(workdir)})
                    print(json.dumps(runs[-1]), flush=True)
                    options.out.write_text(json.dumps({"steps": options.steps, "runs": runs}, indent=1) + "\n")
    print_table(runs)


def print_table(runs: list[dict]) -> None:
    """Mean over seeds with its 95% interval (Student's t), by noise and arm."""
    runs = [run | {"mean": (run["full"] + run["plain"]) / 2} for run in runs]
    for name in ("full", "plain", "mean"):
        print(f"\n| R@1 by {name} description, % | " + " | ".join(MIXES) + " |\n|---|---|---|---|")
        for noise in NOISE:
            cells = []
            for arm in MIXES:
                wanted = 0.0 if arm == "synthetic" else noise
                values = [100 * run[name] for run in runs if run["arm"] == arm and run["noise"] == wanted]
                half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1) if len(values) > 1 else float("nan")
                cells.append(f"{np.mean(values):.1f} ± {half:.1f}")
            print(f"| noise {noise:.0%} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
