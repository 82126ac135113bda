"""How often a captioner writes as many words as it is asked for.

    vlc train --config configs/captioner_frozen.py --config.init=DUAL_ENCODER --workdir runs/length
    python benchmarks/length_control.py runs/length --out benchmarks/results/length_control.json

Test scenes of four objects, of which twenty words can be said; each is captioned greedily at every length from 4 to 20.
Beside exactness: the share of what is said that is true, by scenes' own facts.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import vlc
from vlc.data.sources import Scenes
from vlc.data.sources.scenes.facts import caption_facts

LENGTHS = range(4, 21)


def measure(model: vlc.Model, count: int, scale: float) -> list[dict[str, float]]:
    """For each length: how often it is met, how often within one word, and the share of true attributes."""
    data = model.config.data
    scenes = Scenes(side=data.image.size, split="test", length=count, **data.scenes.to_dict() | {"objects": (4, 4)})
    records = [scenes[index] for index in range(count)]
    encoded = [record.image for record in records]
    rows = []
    for length in LENGTHS:
        captions = model.caption(encoded, scale, control={"length": length})
        off = np.abs([len(caption.split()) - length for caption in captions])
        facts = [caption_facts(r.extra["scene"], c) for r, c in zip(records, captions, strict=True)]
        true = [fact["attributes"] for fact in facts if fact["mentions"]]
        rows.append(
            {
                "length": length, "exact": float((off == 0).mean()), "within one": float((off <= 1).mean()),
                "true attributes": float(np.mean(true)) if true else 0.0, "example": captions[0],
            }
        )  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    model = vlc.load(options.model)
    rows = measure(model, options.images, options.guidance_scale)
    exact = float(np.mean([row["exact"] for row in rows]))
    print(f"exact, all lengths: {100 * exact:.1f}%; the worst: {100 * min(row['exact'] for row in rows):.1f}%")
    if options.out:
        found = {"images": options.images, "guidance_scale": options.guidance_scale, "exact": exact, "by length": rows}
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
