"""How well a head for grammar tells captions of held-out scenes from broken ones: the area under the curve.

    python benchmarks/grammar.py runs/judge --out benchmarks/results/grammar.json

The model is a run of `configs/rewards.py:judge`; 600 captions of each kind, each beside one broken copy, in any way
(`vlc.data.broken_texts`). 0.5 is chance, and 1 is out of reach: a caption without some of its words may be a good one.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy.stats import rankdata

import vlc
from vlc.data.broken_texts import break_text
from vlc.data.sources import Scenes


def area(good: np.ndarray, bad: np.ndarray) -> float:
    """The chance that a good one has more than a bad one; ties count by half."""
    ranks = rankdata(np.concatenate([good, bad]))[: len(good)]
    return float((ranks.sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--captions", type=int, default=600)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model, rng, found = vlc.load(options.model), np.random.default_rng(0), {}
    scenes = Scenes(split="test", objects=(2, 4), varied=True, length=options.captions)
    for source in ("short", "long", "varied"):
        captions = [scenes.captions(index)[source][0] for index in range(options.captions)]
        broken = [copy for text in captions if (copy := break_text(text, rng))]
        good, bad = (np.asarray(model.encode_text(texts).grammar) for texts in (captions, broken))
        found[source] = round(area(good, bad), 3)
    print(json.dumps(found))
    if options.out:
        options.out.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
