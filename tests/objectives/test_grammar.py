"""The head for grammar: its loss, what it learns, and that a model without it is what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import VOCAB, tiny_batch, tiny_config, tiny_model
from vlc.config import check_config
from vlc.errors import ConfigError
from vlc.objectives import encode_batch
from vlc.objectives.grammar import grammar_loss
from vlc.train.step import loss_and_gradient

SETTINGS = {
    "model__text__grammar": True, "objectives__grammar__weight": 0.7,
    **{f"objectives__{name}__weight": 0.0 for name in ("filip", "multi_positive", "grouping")},
}  # fmt: skip


def test_the_loss_by_hand():
    good, broken, there = np.array([2.0, -1.0]), np.array([0.5, 9.0]), np.array([1.0, 0.0])
    wanted = (np.log1p(np.exp(-good)).mean() + np.log1p(np.exp(0.5))) / 2
    assert float(grammar_loss(*map(jnp.asarray, (good, broken, there)))) == pytest.approx(wanted, rel=1e-6)
    none = grammar_loss(jnp.asarray(good), jnp.asarray(broken), jnp.zeros(2))
    assert float(none) == pytest.approx(np.log1p(np.exp(-good)).mean() / 2, rel=1e-6)


def test_the_head_reads_the_feature_before_its_projection_and_trains_the_tower():
    settings = tiny_config(**SETTINGS)
    graph, params = tiny_model(settings)
    batch = tiny_batch(settings)
    broken = np.array(batch["text"])
    broken[0] = VOCAB  # one that could not be broken
    batch |= {"broken": jnp.asarray(np.roll(broken, 0))}
    model = nnx.merge(graph, params)
    encoded = encode_batch(model, batch, settings.objectives)
    np.testing.assert_array_equal(encoded.grammar[1:], encoded.grammar_of_broken[1:])
    assert encoded.broken_there.tolist() == [0.0] + [1.0] * (len(broken) - 1)
    _, pooled, _ = model.text_tower(batch["text"])
    hidden = np.maximum(np.asarray(model.grammar.hidden(pooled)), 0)
    classes = hidden @ np.asarray(model.grammar.classes.kernel[...])
    np.testing.assert_allclose(encoded.grammar, classes[:, 1] - classes[:, 0], rtol=1e-4, atol=1e-5)
    _, terms, gradient = loss_and_gradient(graph, params, batch, settings.objectives, 1, None, None)
    assert "grammar" in terms
    for part in ("grammar", "text_tower"):
        assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient[part])) > 0


def test_a_head_that_is_not_there():
    with pytest.raises(ConfigError, match=r"set config\.model\.text\.grammar=True"):
        check_config(tiny_config(**SETTINGS | {"model__text__grammar": False}))
    graph, params = tiny_model(tiny_config())
    assert nnx.merge(graph, params).encode_text(jnp.zeros((1, 8), jnp.int32)).grammar is None
