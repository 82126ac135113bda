"""Smaller images and texts first: the step changes its shape on time, and a run resumes on either side of that."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import VOCAB, tiny_config
from tests.train.test_loop import PLAIN, _train_until, config, final_checksums
from vlc.config import check_config, resolve_auto
from vlc.data.pipeline import train_batches
from vlc.errors import ConfigError
from vlc.train import train
from vlc.train.flops import step_flops
from vlc.train.inputs import first_steps, get_tokenizer, make_example_maker, open_split
from vlc.train.lowering import batch_shapes
from vlc.train.state import build_model

SMALL = {"data__first_size": 16, "data__first_length": 8, "data__first_share": 0.5}


def test_batches_have_the_shapes_that_the_step_is_compiled_for():
    small = config(steps=4, **SMALL)
    source = open_split(small, "train")
    tokenizer = get_tokenizer(small, source, None)
    make = make_example_maker(small, source, tokenizer)
    batches = train_batches(make, batch_size=small.batch_size, seed=0)
    assert first_steps(small) == 2
    for step in range(4):
        batch = next(batches)
        for name, shape in batch_shapes(small, first=step < 2).items():
            assert batch[name].shape == shape.shape, (step, name)
    assert batch_shapes(small, first=True)["image"].shape[1] == 16
    full = config(steps=4)
    assert batch_shapes(full, first=True) == batch_shapes(full)
    run = resolve_auto(small, "cpu")
    assert step_flops(run, VOCAB, first=True) < 0.75 * step_flops(run, VOCAB)


@pytest.mark.slow
def test_a_run_that_is_stopped_on_either_side_ends_with_the_same_bits(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(config(steps=6, **SMALL, **PLAIN), whole) == 0
    for asked in (1, 4):  # and noticed a step later: in the first part, and after it
        _train_until(config(steps=6, **SMALL, **PLAIN), parts, asked)
    assert train(config(steps=6, **SMALL, **PLAIN), parts) == 0
    assert final_checksums(parts) == final_checksums(whole)


@pytest.mark.parametrize("positions", ["learned", "sines"])
@pytest.mark.parametrize("rotary", [False, True])
def test_a_small_image_is_seen_at_the_same_places(positions, rotary):
    """A picture without detail looks alike at half of its size, because a patch's place is that of its centre."""
    tower = {"model__image__positions": positions, "model__image__rotary": rotary, "model__image__pool": "mean"}
    settings = tiny_config(data__image__size=64, model__image__patch=8, **tower)
    model = build_model(settings, VOCAB, jax.random.key(0))
    table = model.image_tower
    if positions == "learned":  # smooth, as trained ones are
        y, x = np.mgrid[:8, :8].reshape(2, -1, 1) / 8
        waves = jnp.asarray(np.concatenate([np.sin(x + np.arange(16)), np.cos(y + np.arange(16))], axis=1), jnp.float32)
        table.positions = nnx.Param(waves)
    flat = np.full((1, 64, 64, 3), 130, np.uint8)
    whole, half = model.encode_image(flat), model.encode_image(flat[:, :32, :32])
    assert whole.tokens.shape[1] == 64 and half.tokens.shape[1] == 16
    corner, middle = (np.asarray(image.embed[0]) for image in (half, whole))
    assert corner @ middle > 0.99


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data__first_size": 20}, "does not divide config.data.first_size=20"),
        ({"data__first_length": 99}, "is more than config.model.text.length"),
        ({"data__first_length": 4, "model__text__pool": "end"}, "the place behind the last token"),
    ],
)
def test_what_cannot_be_smaller_is_named(changes, said):
    with pytest.raises(ConfigError, match=said):
        check_config(tiny_config(data__image__size=32, **changes))
