"""`vlc data show`: records as the model will see them, printed and drawn."""

import textwrap
from pathlib import Path

import numpy as np

from vlc.config import Config
from vlc.data.pipeline import Batch, MakeExample, count_skipped, describe_batch, train_batches
from vlc.data.record import WORDS, Source, describe_skipped
from vlc.data.tokenizers import Tokenizer
from vlc.evaluate.report.figures import DrawnRegion, contact_sheet
from vlc.train.inputs import get_tokenizer, has_regions, make_example_maker, open_split

_SHOWN = 8  # regions of an image


def show_samples(config: Config, count: int, out: Path) -> str:
    """Draws the first `count` examples of training to a PNG.

    Returns:
        Their captions after the tokenizer, one JSON line an image.
    """
    source = _open_with_regions(config)
    tokenizer = get_tokenizer(config, source, None)
    make = make_example_maker(config, source, tokenizer)
    batch = next(train_batches(make, batch_size=count, seed=config.seed, twins=config.data.twins))
    titles = []
    for i in range(count):
        texts = [batch["text"][i], *(batch["subs"][i] if "subs" in batch else ())]
        titles.append("\n".join("\n".join(textwrap.wrap(tokenizer.decode(ids), 37)) for ids in texts))
    out.parent.mkdir(parents=True, exist_ok=True)
    pictures = [make.preprocess.picture(pixels) for pixels in batch["image"]]
    regions = [_regions(batch, i, pixels, make, tokenizer) for i, pixels in enumerate(batch["image"])]
    out.write_bytes(contact_sheet(pictures, titles, regions=regions))
    left_out = [f"{n:,} of {count} replaced: {WORDS.get(name, name)}" for name, n in count_skipped(batch).items()]
    return "\n".join([describe_batch(batch, tokenizer, count), *describe_skipped(source), *left_out])


def _open_with_regions(config: Config) -> Source:
    """The training data; where they have regions, these are shown even if they are not trained on, unless pixels are
    moved about (`data.image.augment`), whose boxes do not follow."""
    trained = config.data.regions.count
    if not config.data.image.augment:
        config.data.regions.count = trained or _SHOWN
    source = open_split(config, "train")
    assert source is not None
    if not trained and not has_regions(source, config):
        config.data.regions.count = 0
    return source


def _regions(batch: Batch, row: int, pixels: np.ndarray, make: MakeExample, tokenizer: Tokenizer) -> list[DrawnRegion]:
    if "boxes" not in batch:
        return []
    rows, columns = make.preprocess.grid(pixels, make.patch)
    return [
        DrawnRegion(
            batch["boxes"][row, i],
            batch["cover"][row, i, : rows * columns].reshape(rows, columns),
            tokenizer.decode(batch["region_text"][row, i]),
        )
        for i in range(int(batch["region_counts"][row, 0]))
    ]
