"""Ways to segment large pictures without training: looking once, windows that slide, and masks that are proposed.

    python benchmarks/segmentation.py RUN --out benchmarks/results/segmentation.json

Four scenes side by side make a picture of twice the side. Classes are colours, or shapes, and the ground counts for
nothing; the masks that are proposed are the true ones, so that only their classes are asked for. RUN is a model of
scenes (`configs/regions.py`), PROMPTED one with mask prompts (`:prompts`). Two minutes on two CPU cores.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import vlc
from vlc.data.masks import Mask
from vlc.data.sources import Scenes
from vlc.data.sources.scenes import world
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.tasks.segmentation import IGNORED, open_masked, segmentation

_TEMPLATES = {"colour": ("{} shape", "a {} shape", "a {} thing", "something {}"), "shape": ("{}", "a {}", "one {}")}
_FIGURES = ("miou", "pixel_accuracy")


def write(folder: Path, side: int, pictures: int, attribute: str) -> Path:
    """Images, masks, names of classes, and the file of proposals."""
    scenes, names = Scenes(side=side, split="test", length=4 * pictures), world.ATTRIBUTES[attribute]
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    proposals: list[dict[str, Any]] = []
    for number in range(pictures):
        image = np.zeros((2 * side, 2 * side, 3), np.uint8)
        classes = np.full((2 * side, 2 * side), IGNORED, np.uint8)
        for quarter in range(4):
            record, (row, column) = scenes[4 * number + quarter], divmod(quarter, 2)
            part = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
            image[part] = record.image
            for one, mask in zip(record.extra["scene"].objects, record.extra["masks"], strict=True):
                inside = np.zeros(classes.shape, bool)
                inside[part] = mask
                classes[inside] = names.index(getattr(one, attribute))
                proposals.append({"image": f"{number}.png", "segmentation": Mask.of(inside).plain()})
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(classes).save(folder / "masks" / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join(names) + "\n")
    (folder / "proposals.json").write_text(json.dumps(proposals))
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--prompted", default="", help="the same with mask prompts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=64)
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        model = vlc.load(options.run)
        side = model.config.data.image.size
        for attribute, templates in _TEMPLATES.items():
            data = open_masked(write(Path(scratch) / attribute, side, options.pictures, attribute))
            masks = str(Path(scratch) / attribute / "proposals.json")
            ways: dict[str, dict[str, Any]] = {"once": {}, f"windows, short side {2 * side}": {"windows": 2 * side}}
            ways |= {f"masks, crops count {share:g}": {"proposals": masks, "ensemble": share} for share in (0, 0.7, 1)}
            for path in filter(None, (options.run, options.prompted)):
                cache = Cache(Path(scratch) / "cache", vlc.load(path), quiet=True)
                name = f"{attribute}, {'with mask prompts' if path == options.prompted else 'as it is'}"
                found = {way: segmentation(cache, data, templates, **how) for way, how in ways.items()}
                results[name] = {way: {key: row[key] for key in _FIGURES} for way, row in found.items()}
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
