"""Text positions stretched for longer texts, by Long-CLIP's rule."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

import vlc
from tests.tiny import leaves
from vlc.errors import CheckpointError, ConfigError
from vlc.interop import at_length, write_native
from vlc.interop.text_length import stretched
from vlc.train.state import build_model


@pytest.fixture
def captioner_import(tiny_import, tokenizer):
    config = tiny_import.config.copy_and_resolve_references()
    config.model.decoder.update({"layers": 1, "width": 16, "heads": 2, "length": 0})
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(0)), nnx.Param)
    return dataclasses.replace(tiny_import, config=config, params=params)


def released_rule(table: np.ndarray, kept: int) -> np.ndarray:
    """Long-CLIP's: behind the kept rows, three more after each, a quarter of the way to the next one at a time; after
    the last row, which has no next, the steps before it go on."""
    steps = np.diff(table, axis=0)[kept:] / 4
    steps = np.concatenate([steps, steps[-1:]])
    rows = [table[:kept]] + [table[kept + i] + k * steps[i] for i in range(len(steps)) for k in range(4)]
    return np.vstack(rows)


def test_77_become_248_as_long_clip_has_it(rng):
    table = rng.normal(size=(77, 6)).astype(np.float32)
    longer = stretched(table, 248, 20)
    assert longer.shape == (248, 6)
    assert np.abs(longer - released_rule(table, 20)).max() < 1e-6
    assert np.array_equal(longer[:21], table[:21])


def test_other_lengths_are_straight_lines(rng):
    line = np.outer(np.arange(10), [1.0, -2.0]).astype(np.float32)
    longer = stretched(line, 15, 4)
    assert np.allclose(np.diff(longer[4:], axis=0), np.array([1.0, -2.0]) * 6 / 11, atol=1e-5)


def test_short_texts_keep_their_embedding(tiny_import):
    before = vlc.Model.of(tiny_import)
    length = tiny_import.config.model.text.length
    after = vlc.Model.of(at_length(tiny_import, 4 * length - 3 * 6, kept=6))
    short, long = "a red ball", " ".join(["a red ball on the green grass"] * 4)
    assert np.abs(before.encode_text(short).embed - after.encode_text(short).embed).max() < 1e-6
    assert after.encode_text(long).mask.sum() > length and "stretched" in after.notes[-1]


def test_a_captioner_keeps_its_own_positions(captioner_import):
    longer = at_length(captioner_import, 40, kept=4)
    before, after = leaves(captioner_import.params), leaves(longer.params)
    assert all(before[name].shape == after[name].shape for name in before if name.startswith("decoder"))


def test_bad_lengths_are_refused(tiny_import):
    with pytest.raises(ConfigError, match="text length is 5"):
        at_length(tiny_import, 5)
    with pytest.raises(ConfigError, match="Positions kept: 99"):
        at_length(tiny_import, 200, kept=99)
    config = tiny_import.config.copy_and_resolve_references()
    config.model.text.pool = "cls"
    with pytest.raises(CheckpointError, match="one position a token"):
        at_length(dataclasses.replace(tiny_import, config=config), 200)


def test_a_stretched_model_is_kept(tiny_import, tmp_path):
    length = tiny_import.config.model.text.length
    write_native(at_length(tiny_import, 2 * length, kept=4), tmp_path / "long")
    assert vlc.load(tmp_path / "long").config.model.text.length == 2 * length
