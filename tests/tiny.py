"""A tiny model, its batch, and its config, for the tests of models and training."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vlc.config import default_config, resolve_auto, shrink
from vlc.train.state import build_model

VOCAB = 50
# The objectives that need wrong texts.
HARD = {
    "data__captions__negatives": 2,
    **{f"objectives__{name}__weight": 0.7 for name in ("hard_clip", "hard_filip", "hard_margin")},
}


def tiny_config(**changes):
    """The smallest config with every objective but those of `HARD`; `changes` are dotted keys with `__` for dots."""
    config = default_config()
    config.model.decoder.layers = 2
    config.data.captions.sub_captions = 2
    config = shrink(config)
    config.model.text.length = 12
    config.data.image.size = 16
    for name in ("filip", "multi_positive", "grouping", "caption"):
        config.objectives[name].weight = 0.7
    for key, value in changes.items():
        *parents, last = key.split("__")
        target = config
        for parent in parents:
            target = target[parent]
        with target.ignore_type():
            target[last] = value
    return resolve_auto(config, "cpu")


def tiny_model(config, seed=0):
    """The graph and parameters of a tiny model."""
    return nnx.split(build_model(config, VOCAB, jax.random.key(seed)))


def tiny_batch(config, count=8, seed=0):
    """A batch with captions of uneven length."""
    rng = np.random.default_rng(seed)
    size, length = config.data.image.size, config.model.text.length

    def ids(*shape):
        lengths = rng.integers(3, length + 1, (*shape, 1))
        made = np.where(np.arange(length) < lengths, rng.integers(3, VOCAB, (*shape, length)), VOCAB)
        return jnp.asarray(made, jnp.int32)

    batch = {
        "image": jnp.asarray(rng.integers(0, 256, (count, size, size, 3)), jnp.uint8),
        "text": ids(count),
        "subs": ids(count, 2),
        "target": ids(count),
        "null": jnp.asarray(rng.random(count) < 0.3),
    }
    if config.data.captions.negatives:  # the second record has none
        batch["hard"] = ids(count, config.data.captions.negatives).at[1].set(VOCAB).at[3, 1].set(VOCAB)
    return batch


def leaves(params):
    """Arrays by their path."""
    found = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in found}
