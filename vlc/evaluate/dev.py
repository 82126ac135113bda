"""The short evaluation during training: its score says which checkpoint is the best, its pictures are shown."""

import logging
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from vlc.config import Config
from vlc.data.record import Record, Source
from vlc.data.tokenizers import Tokenizer
from vlc.evaluate.metrics.retrieval import both_retrievals
from vlc.evaluate.records import good_records, main_captions, readable
from vlc.evaluate.report.phrases import phrase_maps
from vlc.inference import Model, comparison
from vlc.models import ImageEncoding, TextEncoding
from vlc.objectives import compared_by
from vlc.parallel import is_primary
from vlc.train.inputs import make_preprocess, open_split

_SHOWN = 8  # pictures
log = logging.getLogger("vlc")


def make_dev_evaluation(config: Config) -> Callable[[Any, Any, Tokenizer], dict[str, float | bytes]] | None:
    """Retrieval on `config.eval.examples` dev records, encoded by all devices of all processes; for the
    tools of `config.track` also pictures as PNG: what captions are found, and where words are.

    Returns:
        The function that `vlc.train.train` calls, or `None` where the config names no dev data or trains no
        contrastive objective.
    """
    source = open_split(config, "dev")
    compared = compared_by(config.objectives)
    if source is None or not compared:
        return None

    def evaluate(graph: Any, params: Any, tokenizer: Tokenizer) -> dict[str, float | bytes]:
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        model = Model(graph, params, config, tokenizer, make_preprocess(config), mesh=mesh)
        records, texts, image, text = _encoded(model, source, config.eval.examples)
        found = both_retrievals(image, text, _owners(texts), by=compared, one_way=model.one_way)
        named = {
            f"{figure}{'_tokens' if how == 'tokens' else ''}": rates[figure]
            for how, rates in found.items()
            for figure in ("t2i_r1", "i2t_r1")
        }
        drawn: dict[str, bytes] = {}
        if config.track and is_primary():
            try:
                drawn = _pictures(model, records, texts, image, text)
            except Exception:  # whatever it is, no picture is worth a run
                log.warning("No pictures of dev records could be drawn.", exc_info=True)
        return named | {"score": _score(found[compared[-1]])} | drawn

    return evaluate


def retrieval_score(model: Model, source: Source, examples: int) -> float:
    """The mean of text-to-image and image-to-text R@1 on the first good records of a source: what says which checkpoint
    of a run is the best.

    Raises:
        ConfigError: The model was not trained to compare images with texts.
    """
    by = comparison.compared_by(model)
    _, texts, image, text = _encoded(model, source, examples)
    return _score(both_retrievals(image, text, _owners(texts), by=(by,), one_way=model.one_way)[by])


def _encoded(
    model: Model, source: Source, examples: int
) -> tuple[list[Record], list[tuple[str, ...]], ImageEncoding, TextEncoding]:
    records, _ = readable(model, good_records(source, examples))
    texts = [main_captions(record) for record in records]
    image = model.encode_image([record.image for record in records])
    return records, texts, image, model.encode_text([caption for captions in texts for caption in captions])


def _owners(texts: Sequence[Sequence[str]]) -> list[int]:
    return [i for i, captions in enumerate(texts) for _ in captions]


def _score(rates: dict[str, float]) -> float:
    return (rates["t2i_r1"] + rates["i2t_r1"]) / 2


def _pictures(
    model: Model, records: Sequence[Record], texts: Sequence[Sequence[str]], image: ImageEncoding, text: TextEncoding
) -> dict[str, bytes]:
    """Some pictures with the captions that they find, and, of a model that compares tokens, where their words are."""
    from vlc.evaluate.report import figures  # slow to import

    flat = [caption for captions in texts for caption in captions]
    first = np.cumsum([0, *map(len, texts)])
    shown = np.linspace(0, len(records) - 1, min(_SHOWN, len(records))).astype(int)
    few: ImageEncoding = jax.tree.map(lambda x: x[shown], image)
    found = comparison.all_scores(model, few, text)[0].argmax(axis=1)
    pixels = [model.preprocess(records[index].image) for index in shown]
    pictures = [model.preprocess.picture(seen) for seen in pixels]
    drawn = {"samples": figures.contact_sheet(pictures, [textwrap.fill(flat[at], 37) for at in found])}
    if "tokens" in comparison.comparable(model) and model.config.model.image.pool != "queries":
        rows = [
            (records[i], flat[first[i]], _maps(image.tokens[i], text.tokens[first[i]], model.grid_of(seen)))
            for i, seen in zip(shown, pixels, strict=True)
        ]
        mapped = [phrase_maps(*row, model.tokenizer, model.preprocess) for row in rows]
        drawn["word_maps"] = figures.word_maps([row for row in mapped if row["maps"]] or mapped)
    return drawn


def _maps(patches: np.ndarray, tokens: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The similarity of each token of a text with each patch, `[tokens, rows, columns]`."""
    rows, columns = grid
    return (tokens @ patches[: rows * columns].T).reshape(-1, rows, columns)
