"""The short evaluation during training; its score decides which checkpoint is kept as the best."""

from collections.abc import Callable
from typing import Any

import jax

from vlc.config import Config
from vlc.data.tokenizers import Tokenizer
from vlc.evaluate.metrics.retrieval import both_retrievals
from vlc.evaluate.records import good_records, main_captions, readable
from vlc.inference import Model
from vlc.objectives import compared_by
from vlc.train.inputs import make_preprocess, open_split


def make_dev_evaluation(config: Config) -> Callable[[Any, Any, Tokenizer], dict[str, float]] | None:
    """Retrieval on `config.eval.examples` dev records, encoded by all devices of all processes.

    Returns:
        The function that `vlc.train.train` calls, or `None` where the config names no dev data or trains no
        contrastive objective.
    """
    source = open_split(config, "dev")
    compared = compared_by(config.objectives)
    if source is None or not compared:
        return None

    def evaluate(graph: Any, params: Any, tokenizer: Tokenizer) -> dict[str, float]:
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        model = Model(graph, params, config, tokenizer, make_preprocess(config.data.image), mesh=mesh)
        records, _ = readable(model, good_records(source, config.eval.examples))
        texts = [main_captions(record) for record in records]
        image = model.encode_image([record.image for record in records])
        text = model.encode_text([caption for captions in texts for caption in captions])
        found = both_retrievals(image, text, [i for i, captions in enumerate(texts) for _ in captions], by=compared)
        named = {
            f"{figure}{'_tokens' if how == 'tokens' else ''}": rates[figure]
            for how, rates in found.items()
            for figure in ("t2i_r1", "i2t_r1")
        }
        best = found[compared[-1]]
        return named | {"score": (best["t2i_r1"] + best["i2t_r1"]) / 2}

    return evaluate
