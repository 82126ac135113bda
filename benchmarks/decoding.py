"""Seconds to write a batch of captions, beside transformers' BLIP and open_clip's CoCa on PyTorch, in float32.

    python benchmarks/decoding.py --out benchmarks/results/decoding_cpu.json

`make peers` makes the rivals' environment, in which `benchmarks/decoding_rivals.py` runs. ViT-B/16 at 224 pixels and
twelve layers of width 768 over 49,408 tokens in all, twenty greedy tokens. Beside BLIP stands a captioner of the same
size that attends to all patches, as BLIP does; beside CoCa the very model that open_clip has, imported. Programs take
turns, so that noise of the machine falls on all; the best round of each counts.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rates import best_rate

import vlc
from vlc.config import default_config, resolve_auto
from vlc.inference import Model
from vlc.inference.captioning import CaptionRequest, DecodingOptions, generate_ids
from vlc.models import presets
from vlc.train.inputs import make_preprocess
from vlc.train.state import build_model

ROOT = Path(__file__).parent.parent
BATCHES, WORDS, GUIDED = (1, 64), 20, 1.5


def blip_sized(tokenizer) -> Model:
    """A captioner of BLIP base's size, with random weights."""
    config = default_config()
    config.model.image.update(presets.image_tower("B/16"))
    config.model.text.update({"width": 64, "heads": 1, "layers": 1, "length": 32})  # not used
    config.model.decoder.update({"layers": 12, "width": 768, "heads": 12, "memory": "tokens"})
    config.objectives.caption.null_rate = 0.5
    config = resolve_auto(config, jax.default_backend())
    graph, params = nnx.split(build_model(config, tokenizer.vocab_size, jax.random.key(0)))
    return Model(graph, params, config, tokenizer, make_preprocess(config))


def ours(like: str, folder: str, data: str, batch: int, seconds: float) -> dict[str, float]:
    """In a process of its own, as the rivals are."""
    model = vlc.load(folder)
    model.config.objectives.caption.null_rate = 0.5  # silences the warning: nothing is judged here
    if like == "transformers":
        model = blip_sized(model.tokenizer)
    pixels = np.load(data)["pixels"][:batch]
    encoded = model.encode_pixels(pixels)
    plain, guided = (CaptionRequest(scale, DecodingOptions(max_new_tokens=WORDS)) for scale in (1.0, GUIDED))
    assert (generate_ids(model, encoded, plain).tokens == WORDS).all(), (
        "a caption ended early: the times do not compare"
    )
    runs = {
        "captions": lambda: generate_ids(model, pixels, plain),
        "decoding": lambda: generate_ids(model, encoded, plain),
        "captions, guided": lambda: generate_ids(model, pixels, guided),
        "decoding, guided": lambda: generate_ids(model, encoded, guided),
    }
    return {name: 1 / best_rate(run, 1, seconds) for name, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        like, folder, data, batch = options.inside
        print(json.dumps(ours(like, folder, data, int(batch), options.seconds)))
        return
    peers = [str(ROOT / ".venv-peers" / "bin" / "python"), str(ROOT / "benchmarks" / "decoding_rivals.py")]
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*peers, "make", folder], check=True, capture_output=True)
        data = f"{folder}/data.npz"
        np.savez(data, pixels=np.random.default_rng(0).integers(0, 256, (max(BATCHES), 224, 224, 3), np.uint8))
        for _ in range(options.rounds):
            for batch in BATCHES:
                for like in ("transformers", "open_clip"):
                    seconds = str(options.seconds)
                    inside = ["--seconds", seconds, "--inside", like, folder, data, str(batch)]
                    runs = {f"vlc, as {like}": [sys.executable, __file__, *inside]}
                    runs[like] = [*peers, like, folder, data, str(batch), str(WORDS), seconds]
                    for name, command in runs.items():
                        done = subprocess.run(command, check=True, capture_output=True, text=True)
                        found.setdefault(f"{name}, batch {batch}", []).append(json.loads(done.stdout.splitlines()[-1]))
                        print(name, batch, found[f"{name}, batch {batch}"][-1], flush=True)
    best = {name: {key: round(min(r[key] for r in rounds), 3) for key in rounds[0]} for name, rounds in found.items()}
    results = {
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}", "jax": jax.__version__, "tokens": WORDS,
        "guidance_scale": GUIDED, "seconds": best, "all rounds": found,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(table(best))


def table(best: dict[str, dict[str, float]]) -> str:
    """Seconds of both, and how many times ours is faster, a row a batch."""
    lines = ["| beside | batch | what | seconds | theirs | times faster | guided | times unguided |", "|---" * 8 + "|"]
    for like in ("transformers", "open_clip"):
        for batch in BATCHES:
            mine, theirs = best[f"vlc, as {like}, batch {batch}"], best[f"{like}, batch {batch}"]
            for what in ("captions", "decoding"):
                guided = mine[f"{what}, guided"]
                cells = [like, batch, what, mine[what], theirs[what], f"{theirs[what] / mine[what]:.2f}", guided,
                         f"{guided / mine[what]:.2f}"]  # fmt: skip
                lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
