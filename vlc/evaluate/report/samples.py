"""`vlc data show`: records as the model will see them, printed and drawn."""

import textwrap
from pathlib import Path

from vlc.config import Config
from vlc.data.pipeline import count_skipped, describe_batch, train_batches
from vlc.data.record import WORDS, describe_skipped
from vlc.evaluate.report.figures import contact_sheet
from vlc.train.inputs import get_tokenizer, make_example_maker, open_split


def show_samples(config: Config, count: int, out: Path) -> str:
    """Draws the first `count` examples of training to a PNG.

    Returns:
        Their captions after the tokenizer, one JSON line an image.
    """
    source = open_split(config, "train")
    assert source is not None
    tokenizer = get_tokenizer(config, source, None)
    make = make_example_maker(config, source, tokenizer)
    batch = next(train_batches(make, batch_size=count, seed=config.seed, twins=config.data.twins))
    titles = []
    for i in range(count):
        texts = [batch["text"][i], *(batch["subs"][i] if "subs" in batch else ())]
        titles.append("\n".join("\n".join(textwrap.wrap(tokenizer.decode(ids), 37)) for ids in texts))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(contact_sheet([make.preprocess.picture(pixels) for pixels in batch["image"]], titles))
    left_out = [f"{n:,} of {count} replaced: {WORDS.get(name, name)}" for name, n in count_skipped(batch).items()]
    return "\n".join([describe_batch(batch, tokenizer, count), *describe_skipped(source), *left_out])
