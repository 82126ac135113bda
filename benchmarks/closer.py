"""Small things in large pictures: looking again, closer (GLSim, Dragonfly), against looking once and at random.

    python benchmarks/closer.py RUN --out benchmarks/results/closer.json

A scene of one object is pasted into a canvas of two and three times its side, of the same ground; the model sees the
canvas at its own size. Colour and shape are told by prompts. RUN is a model of scenes (`configs/regions.py`). Two
minutes on two CPU cores.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import vlc
from vlc.data.sources import Scenes
from vlc.data.sources.scenes import world
from vlc.evaluate.metrics.zero_shot import accuracy, class_scores
from vlc.evaluate.tasks.scenes import TEMPLATES
from vlc.inference.closer import Closer, joined, look_at_boxes
from vlc.models import ImageEncoding

_PROMPTS = {"colour": [text.replace("{}", "{} shape") for text in TEMPLATES], "shape": TEMPLATES}
WAYS = {
    "once": None,
    "zoom by likeness (GLSim)": Closer(zoom=4),
    "zoom by oddness": Closer(zoom=2, by="oddness"),
    "crop of the centre": "centre",
    "crop at random": "random",
    "4 parts by likeness (Dragonfly)": Closer(parts=(2,)),
    "4 parts by oddness": Closer(parts=(2,), by="oddness"),
    "4 and 9 parts by oddness": Closer(parts=(2, 3), by="oddness"),
}


def paste(picture: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    """The picture somewhere in a larger one of its first pixel's colour."""
    side = len(picture)
    canvas = np.broadcast_to(picture[0, 0], (side * times, side * times, 3)).copy()
    top, left = rng.integers(0, side * (times - 1) + 1, 2)
    canvas[top : top + side, left : left + side] = picture
    return canvas


def look(model: vlc.Model, pictures: list[np.ndarray], way: Closer | str | None, rng: np.random.Generator):
    """The pictures as one of the ways sees them."""
    if way is None or isinstance(way, Closer):
        return model.encode_image(pictures, closer=way)
    starts = rng.uniform(0, 0.5, (len(pictures), 2)) if way == "random" else np.full((len(pictures), 2), 0.25)
    boxes = [[(x, y, x + 0.5, y + 0.5)] for x, y in starts.tolist()]
    return joined([model.encode_image(pictures), look_at_boxes(model, pictures, boxes)])


def figures(model: vlc.Model, image: ImageEncoding, objects: list) -> dict[str, float]:
    """Accuracy of colour and shape, by embedding and by tokens."""
    found: dict[str, float] = {"tokens of an image": image.tokens.shape[1]}
    for attribute, templates in _PROMPTS.items():
        classes = world.ATTRIBUTES[attribute]
        labels = [classes.index(getattr(one, attribute)) for one in objects]
        for by in ("embed", "tokens"):
            scores = class_scores(model, image, classes, templates, by=by)
            found[f"{attribute} by {by}"] = accuracy(scores, labels)["top1"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=512)
    options = parser.parse_args()
    model = vlc.load(options.run)
    scenes = Scenes(side=model.config.data.image.size, split="test", length=options.pictures, objects=(1, 1))
    records = [scenes[index] for index in range(options.pictures)]
    objects = [record.extra["scene"].objects[0] for record in records]
    results = {}
    for times in (1, 2, 3):
        rng = np.random.default_rng(times)
        pictures = [paste(record.image, times, rng) for record in records]
        results[f"a canvas of {times} times the side"] = {
            name: figures(model, look(model, pictures, way, rng), objects) for name, way in WAYS.items()
        }
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
