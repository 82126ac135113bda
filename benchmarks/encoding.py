"""Images and texts encoded a second by CLIP ViT-B/32 in float32, beside transformers and open_clip on PyTorch.

    python benchmarks/encoding.py --captions FILE --out benchmarks/results/encoding_cpu.json

FILE has a caption on each line; generated scenes' are used without one. `make peers` makes the rivals' environment, in
which `benchmarks/encoding_rivals.py` runs. All have the same random weights and are given the same pixels and texts;
texts are tokenized too. Rounds take turns, so that noise of the machine falls on all; the best round of each counts.
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
from rates import best_rate

import vlc
from vlc.data.sources import Scenes

ROOT = Path(__file__).parent.parent
IMAGES, TEXTS, BATCH = 128, 1024, 32


def captions(path: str) -> list[str]:
    """Evenly spaced lines of a file, or short and long captions of scenes in turn."""
    if path:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        return [lines[i * len(lines) // TEXTS] for i in range(TEXTS)]
    scenes = Scenes(length=TEXTS)
    found = [scenes.captions(i) for i in range(TEXTS)]
    return [texts["short" if i % 2 else "long"][0] for i, texts in enumerate(found)]


def ours(folder: str, data: str, seconds: float) -> dict[str, float]:
    """In a process of its own, as the rivals are."""
    model = vlc.load(folder)
    model._batch = BATCH
    given = np.load(data)
    pixels, texts = given["pixels"], given["texts"].tolist()
    rates = {"images": best_rate(lambda: model.encode_pixels(pixels), len(pixels), seconds)}
    rates["texts"] = best_rate(lambda: model.encode_text(texts), len(texts), seconds)
    ids = model.token_ids(texts[: 4 * BATCH])
    full = best_rate(
        lambda: [model.encode_ids(ids[i : i + BATCH]) for i in range(0, len(ids), BATCH)], len(ids), seconds
    )
    return rates | {"texts, all 77 tokens": full}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(ours(*options.inside, options.seconds)))
        return
    peers = [str(ROOT / ".venv-peers" / "bin" / "python"), str(ROOT / "benchmarks" / "encoding_rivals.py")]
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*peers, "make", folder], check=True, capture_output=True)
        data = f"{folder}/data.npz"
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), np.uint8)
        np.savez(data, pixels=pixels, texts=np.asarray(captions(options.captions)))
        runs = {"vlc": [sys.executable, __file__, "--seconds", str(options.seconds), "--inside", folder, data]}
        runs |= {name: [*peers, name, folder, data, str(options.seconds)] for name in ("open_clip", "transformers")}
        for _ in range(options.rounds):
            for name, command in runs.items():
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
                print(name, found[name][-1], flush=True)
    best = {name: {key: round(max(r[key] for r in rounds), 1) for key in rounds[0]} for name, rounds in found.items()}
    results = {
        "device": f"{os.cpu_count()} CPU cores, {platform.machine()}", "jax": jax.__version__, "batch": BATCH,
        "per second": best, "all rounds": found,
    }  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    print("\n| | " + " | ".join(best["vlc"]) + " |\n|---|---|---|---|")
    for name, rates in best.items():
        ratios = (f"{rate:,.1f} ({best['vlc'][key] / rate:.2f})" for key, rate in rates.items())
        print(f"| {name} | " + " | ".join(ratios) + " |")


if __name__ == "__main__":
    main()
