"""`vlc eval --task bags`: does a caption find its image among those that look like it (TrueMatch, arXiv 2409.03025)?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from vlc.data.bags import read_file
from vlc.data.captions import of_sources
from vlc.data.record import Source, add_counts
from vlc.errors import ConfigError, DataError
from vlc.evaluate.embeddings import Cache
from vlc.evaluate.metrics.intervals import Figure, interval
from vlc.evaluate.tasks.base import Options, Outcome, left_out_text, read_captioned
from vlc.inference.bags import mine_bags

SIZES = (3, 5, 7)


def run_bags(cache: Cache, options: Options, task: str, by: Sequence[str]) -> Outcome:
    del by  # captions find images by the scorer's embeddings
    model, spec = cache.model, options.path(task)
    scorer = options.scorer or model
    if "embed" not in scorer.compares:
        raise ConfigError("Captions find images by embeddings, and no loss saw those of this model: --scorer MODEL.")
    data = read_captioned(model, spec, options)
    image = Cache(cache.folder, scorer, quiet=cache.quiet).images(data.pictures)
    records = [data.records[number] for number in image.kept]
    rows = {place: row for row, (place, _, _) in enumerate(records)}
    bags = _read(options.bags, len(data.source), rows) if options.bags else mine_bags(image.embed, max(SIZES))
    if not len(bags):
        raise DataError(f"{spec}: no bag of images that look alike, of those that are evaluated.")
    texts = {"the data's caption": [_caption(data.source, place, options.references) for place in rows]}
    if model.config.model.decoder.layers:
        images = (data.source[place].image for place in rows)
        texts = {"written": model.caption(images, options.scales[0])} | texts
    skipped = add_counts(data.source.skipped, image.skipped, data.unread)
    figures: dict[str, Any] = {"images": len(records), "bags": len(bags), "skipped": skipped}
    found = []
    for name, some in texts.items():
        text = scorer.encode_text(some).embed
        figures[name] = {}
        for size in [size for size in SIZES if size <= bags.shape[1]]:
            right = found_in_bags(image.embed, text, bags[:, :size])
            figure = Figure.ratio(right.sum(axis=1).tolist(), [size] * len(bags))
            figures[name][f"r1_{size}"] = {"value": figure.value, "interval": interval(figure, len(bags))}
            found.append((name, f"R@1 in bags of {size}", figure.value))
    note = (
        f"{len(bags):,} bags of {len(records):,} images{left_out_text(skipped)}; of a larger one those that are most "
        "alike. Ties count as wrong."
    )
    return Outcome(figures, found, note)


def _caption(source: Source, place: int, sources: str) -> str:
    """The first caption of these sources.

    Raises:
        DataError: There is none.
    """
    captions = source.captions(place)
    found = of_sources(captions, sources)
    if not found:
        raise DataError(f'record {place}: --references "{sources}", but its captions are {", ".join(captions)}.')
    return found[0]


def _read(path: str, records: int, rows: Mapping[int, int]) -> Int[np.ndarray, "M S"]:
    """The bags of a file all of whose records are evaluated, as rows of these.

    Raises:
        DataError: It cannot be read, or is of other data.
    """
    found = read_file(path)
    if found["records"] != records:
        raise DataError(f"{path}: is of data with {found['records']:,} records, and these have {records:,}.")
    bags = [[rows[place] for place in bag] for bag in found["bags"] if all(place in rows for place in bag)]
    return np.asarray(bags, np.int64).reshape(-1, found["size"])


def found_in_bags(
    image: Float[np.ndarray, "N D"], text: Float[np.ndarray, "N D"], bags: Int[np.ndarray, "M S"]
) -> Bool[np.ndarray, "M S"]:
    """Whether the text of each image of each bag is more like it than like the others of the bag."""
    scores = np.einsum("msd,mtd->mst", text[bags], image[bags])  # text, image
    own = np.eye(bags.shape[1], dtype=bool)
    others = np.where(own, -np.inf, scores).max(axis=2)
    return np.diagonal(scores, axis1=1, axis2=2) > others
