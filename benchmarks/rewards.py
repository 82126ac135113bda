"""What each reward makes of a captioner: forms of `configs/rewards.py`, from one start, with the same updates.

    python benchmarks/rewards.py START --held-out OTHER --grammar JUDGE --out benchmarks/results/rewards.json --seeds 3

START is a run of `configs/regions.py`, captioner and judge; OTHER a model that was trained apart, a judge that no
reward knew; JUDGE a run of `configs/rewards.py:judge`, whose head for grammar is a reward of the form `grammar` and a
figure of all. `kl=NUMBER` is the form `kl` with another weight of the divergence; with `--figure PNG` those are drawn
beside guidance. Captions are greedy, of 512 test scenes. Two minutes a form and seed on two CPU cores; forms and seeds
that the file already has are not run again.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from seeds import show

import vlc
from vlc.data.sources import Scenes
from vlc.data.sources.scenes.facts import caption_facts
from vlc.evaluate.metrics.ranking import ranks
from vlc.evaluate.metrics.reference_free import language_figures
from vlc.evaluate.tasks.bags import found_in_bags
from vlc.evaluate.tasks.detail import DetailOptions, DetailScorer, Known
from vlc.inference.bags import mine_bags
from vlc.rewards import Cider

ROOT = Path(__file__).parent.parent
FORMS = ("start", "", "cider", "clip_s", "grammar", "bags", "dpo", "kl=0.03", "kl=0.3", "fluent", "both", "units", "kl",
         "group", "best")  # fmt: skip
GUIDANCE = (1.0, 1.5, 2.0, 3.0)
_SCENES = 512
_MINED = 16_384  # scenes that bags are mined from


def train(form: str, seed: int, start: str, grammar: str, workdir: Path) -> None:
    """Mines the bags first, where a form has some."""
    form, _, weight = form.partition("=")
    config = "configs/rewards.py" + (f":{form}" if form else "")
    judge = grammar if form == "grammar" else start
    more = [f"--config.init={start}", f"--config.reward.judge={judge}", f"--config.seed={seed}"]
    more += [f"--config.objectives.policy.kl={weight}"] if weight else []
    if form == "bags":
        bags = workdir.with_suffix(".json")
        mine = ["data", "bags", "scenes", "--model", start, "--records", str(_MINED), "--out", str(bags)]
        subprocess.run([sys.executable, "-m", "vlc.cli", *mine], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        more.append(f"--config.data.bags={bags}")
    command = [sys.executable, "-m", "vlc.cli", "train", "--config", config, "--workdir", str(workdir), *more]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def figures(model: vlc.Model, judges: dict[str, vlc.Model], grammar: vlc.Model, scale: float = 1.0) -> dict[str, float]:
    """Of greedy captions of test scenes."""
    scenes = Scenes(side=model.config.data.image.size, split="test", length=_SCENES, objects=(2, 4))
    records = [scenes[index] for index in range(_SCENES)]
    images = [record.image for record in records]
    texts = model.caption(images, guidance_scale=scale)
    words = [text.split() for text in texts]
    references = [[text.split() for text in record.captions["short"]] for record in records]
    cider = Cider(references)
    found = {"CIDEr-D": float(np.mean([cider.score(a, b) for a, b in zip(words, references, strict=True)]))}
    for name, judge in judges.items():
        image, text = judge.encode_image(images).embed, judge.encode_text(texts).embed
        found[f"R@1 by {name}"] = float((ranks(text @ image.T, np.eye(_SCENES, dtype=bool)) < 1).mean())
        for size in (3, 5, 7):
            bags = mine_bags(image, 7)[:, :size]
            found[f"R@1 in bags of {size} by {name}"] = float(found_in_bags(image, text, bags).mean())
        found[f"cosine by {name}"] = float(np.einsum("nd,nd->n", text, image).mean())
    found["grammar"] = float((1 / (1 + np.exp(-np.asarray(grammar.encode_text(texts).grammar)))).mean())
    known = [Known.of(record, record.captions["short"]) for record in records]
    detail = DetailScorer(DetailOptions(("units",)), known)
    found |= {name: figure.value for name, figure in detail.score(texts).items()}
    found |= {name: figure.value for name, figure in language_figures(words).items() if name.startswith("distinct")}
    facts = [caption_facts(record.extra["scene"], text) for record, text in zip(records, texts, strict=True)]
    said = ("named", "attributes", "correct", "covered")
    found |= {f"facts: {name}": float(np.mean([row[name] for row in facts])) for name in said}
    pairs = [list(itertools.pairwise(some)) for some in words]
    found["words"] = float(np.mean([len(some) for some in words]))
    found["pairs of words that come again"] = float(np.mean([1 - len(set(p)) / len(p) if p else 0.0 for p in pairs]))
    found["different captions"] = len(set(texts)) / len(texts)
    return found


def draw(results: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """What the references say against how many images are found: by guidance, and by the weight of the divergence."""
    import matplotlib.pyplot as plt

    _, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True)
    curves = {
        "guidance": [f"start, guidance {scale:g}" if scale > 1 else "start" for scale in GUIDANCE],
        "self-retrieval, less and less held": ["start", "kl=0.3", "kl", "kl=0.03", "self_retrieval"],
        "self-retrieval and CIDEr": ["start", "both"],
    }
    for axis, judge in zip(axes, ("the judge", "another"), strict=True):
        for name, rows in curves.items():
            known = [results[row] for row in rows if results.get(row)]
            x, y = (
                [np.mean([row[key] for row in seeds.values()]) for seeds in known]
                for key in ("CIDEr-D", f"R@1 by {judge}")
            )
            axis.plot(x, 100 * np.asarray(y), "o-", label=name)
        axis.set(xlabel="CIDEr-D", ylabel="R@1", title=f"by {judge}")
        axis.grid(alpha=0.3)
    axes[0].legend()
    plt.tight_layout()
    plt.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("start")
    parser.add_argument("--held-out", required=True)
    parser.add_argument("--grammar", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=FORMS)
    options = parser.parse_args()
    results = json.loads(options.out.read_text()) if options.out.exists() else {}
    judges = {"the judge": vlc.load(options.start), "another": vlc.load(options.held_out)}
    grammar = vlc.load(options.grammar)
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            for form in options.only or FORMS:
                done = results.setdefault(form or "self_retrieval", {})
                if form == "start":
                    for scale in GUIDANCE:
                        row = results.setdefault("start" if scale == 1 else f"start, guidance {scale:g}", {})
                        row["0"] = row.get("0") or figures(judges["the judge"], judges, grammar, scale)
                elif str(seed) not in done:
                    workdir = Path(scratch) / f"{form or 'self'}-{seed}"
                    train(form, seed, options.start, options.grammar, workdir)
                    done[str(seed)] = figures(vlc.load(workdir), judges, grammar)
                options.out.write_text(json.dumps(results, indent=1) + "\n")
                print(seed, form or "self_retrieval", json.dumps(results[form or "self_retrieval"]), flush=True)
    show(results)
    if options.figure:
        draw(results, options.figure)


if __name__ == "__main__":
    main()
