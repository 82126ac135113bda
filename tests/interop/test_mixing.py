"""Means of the weights of models: WiSE-FT, uniform and greedy soups."""

import dataclasses

import jax
import numpy as np
import pytest

import vlc
from tests.tiny import leaves
from vlc.cli import main
from vlc.errors import CheckpointError, ConfigError
from vlc.interop import greedy_soup, mix, write_native


def moved(model, amount, seed=0):
    """The same model with other weights."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda x: x + amount * rng.normal(size=x.shape).astype(np.float32), model.params)
    return dataclasses.replace(model, params=params)


def test_weights_lie_between(tiny_import):
    other = moved(tiny_import, 1.0)
    mixed = leaves(mix([tiny_import, other], [1, 3]).params)
    before, after = leaves(tiny_import.params), leaves(other.params)
    assert all(np.allclose(mixed[name], 0.25 * before[name] + 0.75 * after[name], atol=1e-6) for name in mixed)
    same = leaves(mix([tiny_import, other], [1, 0]).params)
    assert all(np.array_equal(same[name], before[name]) for name in same)


def test_a_greedy_soup_keeps_what_helps(tiny_import):
    """Two models are off to both sides of the best, one is far away."""
    far = moved(tiny_import, 5.0)
    near = [moved(tiny_import, amount) for amount in (0.2, -0.2)]
    best = leaves(tiny_import.params)

    def score(model):
        return -sum(float(np.abs(x - best[name]).mean()) for name, x in leaves(model.params).items())

    soup, kept = greedy_soup([far, *near], score)
    assert sorted(kept) == [1, 2]
    assert score(soup) > max(map(score, near))
    assert greedy_soup([far, tiny_import], score)[1] == [1]


def test_what_cannot_be_mixed_is_named(tiny_import):
    with pytest.raises(ConfigError, match="two models or more"):
        mix([tiny_import])
    with pytest.raises(ConfigError, match="2 models and 3 weights"):
        mix([tiny_import] * 2, [1, 1, 1])
    with pytest.raises(ConfigError, match="may be negative"):
        mix([tiny_import] * 2, [2, -1])
    config = tiny_import.config.copy_and_resolve_references()
    config.model.image.heads = 2 * config.model.image.heads
    with pytest.raises(CheckpointError, match=r"Model 2 is another .*: config.model.image.heads is 4, not 2"):
        mix([tiny_import, dataclasses.replace(tiny_import, config=config)])
    pixels = dataclasses.replace(tiny_import.preprocess, resample="nearest")
    with pytest.raises(CheckpointError, match=r"config.data.image.resample is nearest"):
        mix([tiny_import, dataclasses.replace(tiny_import, preprocess=pixels)])


def test_the_command_writes_a_model(tiny_import, tmp_path, capsys):
    other = moved(tiny_import, 0.1)
    for name, model in (("one", tiny_import), ("two", other)):
        write_native(model, tmp_path / name)
    paths = [str(tmp_path / name) for name in ("one", "two")]
    assert main(["mix", *paths, "--weights", "1,1", "--out", str(tmp_path / "mean")]) == 0
    expected = leaves(mix([tiny_import, other]).params)
    made = vlc.load(tmp_path / "mean")
    assert all(np.array_equal(x, expected[name]) for name, x in leaves(made.params).items())
    assert "mean of 2 models" in made.notes[-1]
    greedy = ["mix", *paths, "--greedy", "scenes", "--examples", "12", "--out", str(tmp_path / "soup")]
    assert main(greedy) == 0 and "Kept: " in capsys.readouterr().out
    assert main([*greedy[:-1], str(tmp_path / "third"), "--weights", "1,1"]) == 2
    assert "leave --weights out" in capsys.readouterr().err and not (tmp_path / "third").exists()
