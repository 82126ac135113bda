"""What asking for well-aligned captions does, for a captioner that learned from noisy alt-text (NoC).

    python benchmarks/alignment_control.py --workdir runs/noc --out benchmarks/results/alignment_control.json

Half of the alt-texts describe another scene. `alt` is a dual encoder with a captioner, trained on all of them; its own
scores put the alt-texts into bins. Captioners then go on from it for as many steps, on its frozen encoder: `plain` on
all alt-texts, `noc` on all with the bin of each said before it (Kang et al., ICCV 2023, arXiv 2212.13563), `filtered`
on those that score above `--min-score`. Each captions 512 held-out scenes greedily; what they say is checked against
the scenes, and `alt` looks for the image of each caption. Started again, it goes on where it was.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from caption_noise import HELD_OUT, SCENES
from recaption_loop import run, train, write_noisy

import vlc
from vlc.data.sources.scenes.facts import caption_facts
from vlc.evaluate.metrics.ranking import ranks, recall

BINS = 8
FROZEN = ("image_tower", "text_tower", "image_embed", "text_embed", "image_token", "text_token")
FACTS = ("exact", "correct", "attributes", "covered")


def scored(captioner: vlc.Model, reranker: vlc.Model, control: dict[str, int]) -> dict[str, float]:
    """How much of what it says of the test scenes is true, and how often a caption finds its image."""
    test = SCENES.subset(split="test", length=HELD_OUT)
    records = [test[index] for index in range(HELD_OUT)]
    images = [record.image for record in records]
    captions = captioner.caption(images, control=control)
    facts = [caption_facts(record.extra["scene"], text) for record, text in zip(records, captions, strict=True)]
    scores = reranker.encode_text(captions).embed @ reranker.encode_image(images).embed.T
    found = {name: float(np.mean([fact[name] for fact in facts])) for name in FACTS}
    return found | recall(ranks(scores, np.eye(len(records), dtype=bool)), "self") | {"example": captions[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--min-score", type=float, default=0.375, help="between the two humps of the alt-text's scores")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = options.workdir
    data = write_noisy(folder, options.noise, seed=0)

    def score(name: str, *more: object) -> None:
        run(
            "caption",
            "--workdir",
            folder / "alt",
            "--data",
            data,
            "--out",
            folder / name,
            "--num-return-sequences",
            0,
            *more,
        )

    train(folder, "alt", "data", "alt", options.steps, 0)
    score("scored")
    score("kept", "--min-score", options.min_score)
    frozen = ["--config.objectives.clip.weight=0.0", "--config.objectives.caption.weight=1.0",
              f"--config.init={folder / 'alt'}", f"--config.optimizer.frozen={FROZEN}"]  # fmt: skip
    in_bins = f"--config.model.decoder.control.alignment={BINS}"
    for name, on, more in (("plain", "scored", []), ("noc", "scored", [in_bins]), ("filtered", "kept", [])):
        train(folder, name, on, "alt", options.steps, 0, *frozen, *more)

    reranker = vlc.load(folder / "alt")
    found = {name: scored(vlc.load(folder / name), reranker, {}) for name in ("alt", "plain", "filtered")}
    noc = vlc.load(folder / "noc")
    found |= {f"noc, bin {bin}": scored(noc, reranker, {"alignment": bin}) for bin in range(1, BINS + 1)}
    found["noc, nothing asked"] = scored(noc, reranker, {})
    for name, row in found.items():
        print(name, row, flush=True)
    if options.out:
        settings = {key: str(value) for key, value in vars(options).items() if key not in ("workdir", "out")}
        options.out.write_text(json.dumps({"settings": settings, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
