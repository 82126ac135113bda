"""What regions add to an encoder of whole pictures, and what they cost: forms of `configs/regions.py`, several seeds.

    python benchmarks/regions.py --out benchmarks/results/regions.json --seeds 3

Every form has the same steps, batches and tower. It is evaluated by `vlc eval --task regions` (given boxes of 512 test
scenes), and for the rest by what the quickstart is: retrieval, edit twins by tokens, pointing. Two to four minutes a
form and seed on two CPU cores. Forms and seeds that the file already has are not run again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from seeds import show

ROOT = Path(__file__).parent.parent
FORMS = (
    "plain", "text", "image", "hard", "classes", "sequence", "graph", "queries", "captions", "places",
    "shared", "whole", "cycle", "",
)  # fmt: skip
_SCENES = 512


def run(form: str, seed: int, workdir: Path, steps: int) -> dict[str, float]:
    """Trains and evaluates one form, for its own number of steps where none is given."""
    vlc = [sys.executable, "-m", "vlc.cli"]
    config = "configs/regions.py" + (f":{form}" if form else "")
    begun = time.time()
    train = ["train", "--config", config, "--workdir", str(workdir), f"--config.seed={seed}"]
    train += [f"--config.steps={steps}"] if steps else []
    subprocess.run([*vlc, *train], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds = time.time() - begun
    found = {"training seconds": round(seconds, 1)}
    for out, more in (("all", []), ("regions", ["--task", "regions", "--data", "scenes", "--score", "both"])):
        evaluate = ["eval", "--workdir", str(workdir), "--out", str(workdir / out), "--examples", str(_SCENES), *more]
        subprocess.run([*vlc, *evaluate], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        found |= numbers_of(json.loads((workdir / out / "eval.json").read_text()))
    return found


def numbers_of(found: dict[str, Any]) -> dict[str, float]:
    """The figures of an `eval.json` that are compared."""
    if "tasks" in found:
        regions = found["tasks"]["regions"]
        names = ("class_top1", "class_map", "class_r_precision", "attribute_ap", "grounding", "pointing")
        return {f"{name} by {how}": regions[how][name] for how in ("embed", "tokens") for name in names
                if name in regions.get(how, {})}  # fmt: skip
    made = {
        "t2i R@1": found["retrieval"]["embed"]["t2i_r1"],
        **{f"right caption by tokens, {edit}": row["text_tokens"] for edit, row in found["binding"].items()},
        "words point at their object": found["pointing"]["accuracy"],
    }
    made |= {f"queries: {name}": value for name, value in found.get("found_boxes", {}).items()}
    made |= {f"attention of written words: {name}": value for name, value in found.get("caption_grounding", {}).items()}
    made |= {"true attributes of captions": found["captions"][0]["attributes"]} if found.get("captions") else {}
    made |= {f"places: {name}": value for name, value in found.get("answered_boxes", {}).items()}
    captions = found.get("region_captions", {})
    return made | {
        f"captions: {name}": value for name, value in captions.items() if isinstance(value, float)
    } | {f"captions of {words} words: {name}": value for name in ("length", "length_named")
         for words, value in captions.get(name, {}).items()}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=FORMS, help="a form; may be given several times")
    parser.add_argument("--steps", type=int, default=0, help="in place of those of the config")
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            for form in options.only or FORMS:
                name = (form or "all") + (f", {options.steps} steps" if options.steps else "")
                done = results.setdefault(name, {})
                if str(seed) not in done:
                    done[str(seed)] = run(form, seed, Path(scratch) / f"{form or 'all'}-{seed}", options.steps)
                    options.out.write_text(json.dumps(results, indent=1) + "\n")
                    print(seed, name, json.dumps(done[str(seed)]), flush=True)
    show(results)


if __name__ == "__main__":
    main()
