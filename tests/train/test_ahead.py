"""The step for devices that are not there is the step that training runs."""

import importlib.util

import jax
import numpy as np
import pytest

from tests.conftest import read_config
from vlc.errors import ConfigError
from vlc.parallel import make_mesh, topology_devices
from vlc.train.ahead import batch_shapes, lower_train_step
from vlc.train.inputs import get_tokenizer, make_example_maker, open_split


@pytest.mark.parametrize("name", ["filip_b32", "dreamlip_b16_cc3m", "captioner_b16"])
def test_the_batch_has_the_shapes_of_real_examples(name):
    config = read_config(name, "smoke")
    source = open_split(config, "train")
    make = make_example_maker(config, source, get_tokenizer(config, source, None))
    example = make.make(source[0], np.random.default_rng(0))
    shapes = batch_shapes(config)
    for key, shape in shapes.items():
        assert (config.batch_size, *example[key].shape) == shape.shape, key
        assert example[key].dtype == shape.dtype, key
    assert set(example) == set(shapes)


def test_it_compiles_for_a_mesh():
    config = read_config("filip_b32", "smoke")
    mesh = make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    memory = lower_train_step(config, mesh).compile().memory_analysis()
    assert memory.argument_size_in_bytes > 0 and memory.temp_size_in_bytes > 0
    with pytest.raises(ConfigError, match="batch_size"):
        config.batch_size = 12
        lower_train_step(config, mesh)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="`make test` installs libtpu")
def test_it_compiles_for_a_slice_of_tpus():
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, topology_devices("v5e:2x2"))
    text = lower_train_step(read_config("filip_b32", "smoke"), mesh).compile().as_text()
    assert "late_interaction_forward" in text and jax.default_backend() == "cpu"


@pytest.mark.parametrize("name", ["v99:2x2", "h100", "a100:8"])
def test_a_topology_that_is_not_known_is_named(name):
    with pytest.raises(ConfigError, match=name):
        topology_devices(name)
