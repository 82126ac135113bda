"""`vlc eval --task bags`: does a caption find its image among those that look like it (TrueMatch, arXiv 2409.03025)?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vlc.data.bags import read_file
from vlc.errors import ConfigError, DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.tasks.base import Options, Outcome, open_captioned
from vlc.inference.bags import mine_bags

SIZES = (3, 5, 7)


def run_bags(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # captions find images by the scorer's embeddings
    model, spec = cache.model, options.path(task)
    scorer = options.scorer or model
    if "embed" not in scorer.compares:
        raise ConfigError(
            "Captions find images by embeddings, and no loss ever saw those of this model: --scorer MODEL."
        )
    source = open_captioned(model, spec, options)
    count = min(options.examples or len(source), len(source))
    images = [source[index].image for index in range(count)]
    image = scorer.encode_image(images).embed
    if options.bags:
        found = read_file(options.bags)
        if found["records"] != count:
            raise DataError(f"{options.bags}: is of {found['records']:,} records, and {count:,} are evaluated.")
        bags = np.asarray(found["bags"], np.int64)
    else:
        bags = mine_bags(image, max(SIZES))
    if not len(bags):
        raise DataError(f"{spec}: no bag of {max(SIZES)} images that look alike.")
    texts = {"the data's caption": [source[index].all_captions()[0] for index in range(count)]}
    if model.config.model.decoder.layers:
        texts = {"written": model.caption(images, options.scales[0])} | texts
    figures: dict[str, Any] = {"images": count, "bags": len(bags)}
    rows = []
    for name, some in texts.items():
        text = scorer.encode_text(some).embed
        figures[name] = {}
        for size in [size for size in SIZES if size <= bags.shape[1]]:
            right = found_in_bags(image, text, bags[:, :size])
            figure = Figure.ratio(right.sum(axis=1).tolist(), [size] * len(bags))
            figures[name][f"r1_{size}"] = {"value": figure.value, "interval": interval(figure, len(bags))}
            rows.append((name, f"R@1 in bags of {size}", figure.value))
    note = f"{len(bags):,} bags of {count:,} images; of one of 7 the 3 and 5 that are most alike. Ties count as wrong."
    return Outcome(figures, rows, note)


def found_in_bags(image: np.ndarray, text: np.ndarray, bags: np.ndarray) -> np.ndarray:
    """Whether the text of each image of each bag `[M, S]` is more like it than like the others of the bag."""
    scores = np.einsum("msd,mtd->mst", text[bags], image[bags])  # text, image
    own = np.eye(bags.shape[1], dtype=bool)
    others = np.where(own, -np.inf, scores).max(axis=2)
    return np.diagonal(scores, axis1=1, axis2=2) > others
