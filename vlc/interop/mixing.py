"""Several models of one architecture as one: the weighted mean of their weights."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vlc.errors import CheckpointError, ConfigError
from vlc.interop.load import Imported, abstract_params, fill, paths_of
from vlc.train.initial import OWN, VARIED, flat_settings


def mix(models: Sequence[Imported], weights: Sequence[float] = ()) -> Imported:
    """The weighted mean of the weights of models that were fine-tuned from one.

    Of a model before and after fine-tuning it is WiSE-FT (Wortsman et al., CVPR 2022, arXiv 2109.01903, eq. 1), of
    several fine-tuned ones a uniform soup (Wortsman et al., ICML 2022, arXiv 2203.05482). All but the weights is the
    last model's.

    Args:
        models: Two or more, without LoRA (`merge_lora`).
        weights: One for each, in any scale; empty: all alike.

    Raises:
        ConfigError: There are too few models, or not a weight for each, or the weights are negative or all 0.
        CheckpointError: A model is another than the first, or reads texts or images otherwise.
    """
    shares = _shares(len(models), weights)
    first, last = models[0], models[-1]
    for number, model in enumerate(models[1:], start=2):
        _check_same(first, model, number)
    sums = {path: np.zeros(x.shape, np.float64) for path, x in paths_of(first.params).items()}
    for model, share in zip(models, shares, strict=True):
        for path, x in paths_of(model.params).items():
            sums[path] += share * np.asarray(x, np.float64)
    listed = ", ".join(f"{share:.3g}" for share in shares)
    notes = (*last.notes, f"the mean of {len(models)} models, of shares {listed}")
    params = fill(abstract_params(last.config, last.tokenizer), {p: x.astype(np.float32) for p, x in sums.items()})
    return replace(last, params=params, notes=notes)


def greedy_soup(models: Sequence[Imported], score: Callable[[Imported], float]) -> tuple[Imported, list[int]]:
    """Adds models to a uniform soup, the best first, and keeps those with which it is no worse (arXiv 2203.05482,
    recipe 1).

    Args:
        models: Two or more, of one architecture.
        score: Of a model on held-out data; more is better.

    Returns:
        The soup, and which models are in it.

    Raises:
        ConfigError: There are too few models.
        CheckpointError: One is another than the first.
    """
    _shares(len(models), ())
    scores = [score(model) for model in models]
    order = sorted(range(len(models)), key=lambda i: -scores[i])
    kept, best, reached = order[:1], models[order[0]], scores[order[0]]
    for number in order[1:]:
        tried = mix([models[i] for i in [*kept, number]])
        found = score(tried)
        if found >= reached:
            kept, best, reached = [*kept, number], tried, found
    return best, kept


def _shares(count: int, weights: Sequence[float]) -> list[float]:
    if count < 2:
        raise ConfigError("A mean needs two models or more.")
    weights = weights or [1.0] * count
    if len(weights) != count:
        raise ConfigError(f"There are {count} models and {len(weights)} weights; give one for each.")
    total = sum(weights)
    if min(weights) < 0 or not total > 0:
        raise ConfigError(f"weights are {list(weights)}; none may be negative, and not all 0.")
    return [weight / total for weight in weights]


def _check_same(first: Imported, other: Imported, number: int) -> None:
    one, two = (_architecture(model) for model in (first, other))
    differing = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    if not differing:
        return
    key = differing[0]
    raise CheckpointError(
        f"Model {number} is another than the first: {key} is {_short(two.get(key))}, not {_short(one.get(key))}. "
        "Only models that were fine-tuned from one can be mixed."
    )


def _architecture(model: Imported) -> dict[str, object]:
    """What must be the same, by name: all but how it was computed and trained, and parts that it has not."""
    towers = model.config.model
    without = (*OWN, *(name for name in ("image", "text", "decoder") if not towers[name].layers))
    settings = {key: value for key, value in flat_settings(model.config).items() if key.startswith("model.")}
    parts: dict[str, object] = {f"config.{key}": x for key, x in settings.items() if key.split(".")[1] not in without}
    parts |= {path: x.shape for path, x in paths_of(model.params).items()}
    parts["its tokenizer"] = model.tokenizer.to_json() if model.tokenizer is not None else None
    pixels = model.preprocess.to_json() if model.preprocess is not None else {}
    return parts | {f"config.data.image.{key}": value for key, value in pixels.items() if key not in VARIED}


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) < 200 else f"{text[:200]}..."
