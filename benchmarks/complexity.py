"""ViLLA's study on scenes (arXiv 2308.11194, section 5): regions are harder to learn from captions of fuller pictures.

    python benchmarks/complexity.py --out benchmarks/results/complexity.json

Every picture has N objects, and its caption names all of them. A plain encoder (`configs/regions.py:plain`) is compared
with stage 1 of ViLLA, its mapping, and stage 2 on top, of as many steps in all; both are told what captions say, and
the second where something is, never what. About five minutes for each N on two CPU cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from vlc.data.sources import Scenes, open_source

ROOT = Path(__file__).parent.parent
_MAPPED = 6000  # scenes that stage 2 learns from


def vlc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "vlc.cli", *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def train(form: str, objects: int, seed: int, workdir: Path, *more: str) -> None:
    settings = [f"data.scenes.objects=({objects},{objects})", "data.scenes.first_share=0.0", "data.captions.mix=long",
                "data.captions.mix_end=", f"seed={seed}", f"data.regions.count={objects if form != 'plain' else 0}",
                "model.text.length=128", *more]  # fmt: skip
    flags = [f"--config.{setting}" for setting in settings]
    vlc("train", "--config", f"configs/regions.py:{form}", "--workdir", str(workdir), *flags)


def figures(workdir: Path) -> dict[str, float]:
    """Of given boxes of test scenes of the same kind."""
    out = workdir / "regions"
    task = ("--task", "regions", "--data", "scenes", "--score", "embed", "--examples", "256")
    vlc("eval", "--workdir", str(workdir), "--out", str(out), *task)
    found = json.loads((out / "eval.json").read_text())["tasks"]["regions"]["embed"]
    names = ("class_r_precision", "class_map", "attribute_ap", "grounding")
    return {name: found[name] for name in names}


def mapping_quality(folder: Path, objects: int) -> dict[str, float]:
    """Of the attributes that regions were given: how many are theirs, and how many of theirs were given."""
    given = right = theirs = 0
    truth = Scenes(side=72, length=_MAPPED, objects=(objects, objects))
    for record in open_source(str(folder)):
        number = int(record.key.rsplit("-", 1)[1])
        known = {region.box: {region.label, *region.attributes} for region in truth[number].regions if region.label}
        for region in record.regions:
            has = set(region.captions["mapped"])
            given, right = given + len(has), right + len(has & known[region.box])
        theirs += sum(map(len, known.values()))
    return {"mapped rightly": right / given, "of all that is true": right / theirs}


def run(objects: int, seed: int, scratch: Path) -> dict[str, dict[str, float]]:
    plain, first, second, mapped = (
        scratch / f"{objects}-{seed}-{name}" for name in ("plain", "first", "second", "map")
    )
    train("plain", objects, seed, plain)
    train("attributes", objects, seed, first)
    vlc(
        "map-regions",
        str(first),
        "--data",
        "scenes",
        "--records",
        str(_MAPPED),
        "--captions",
        "long",
        "--out",
        str(mapped),
    )
    train("mapped", objects, seed, second, f"data.train={mapped}", f"init={first}")
    return {"plain": figures(plain), "stage 1": figures(first), "mapped": figures(second),
            "mapping": mapping_quality(mapped, objects)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--objects", type=int, nargs="+", default=[2, 4, 6, 8])
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            for objects in options.objects:
                done = results.setdefault(str(objects), {})
                if str(seed) not in done:
                    done[str(seed)] = run(objects, seed, Path(scratch))
                    options.out.write_text(json.dumps(results, indent=1) + "\n")
                    print(objects, seed, json.dumps(done[str(seed)]), flush=True)
    for objects, seeds in results.items():
        for name in next(iter(seeds.values())):
            rows = [seed[name] for seed in seeds.values()]
            print(objects, name, {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]})


if __name__ == "__main__":
    main()
