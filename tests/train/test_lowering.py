"""The step for devices that are not there is the step that training runs."""

import importlib.util
import re

import numpy as np
import pytest

from tests.conftest import read_config
from vlc.errors import ConfigError
from vlc.parallel import make_mesh, topology_devices
from vlc.train.inputs import get_tokenizer, make_example_maker, open_split
from vlc.train.lowering import batch_shapes, lower_train_step


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
    assert set(example) == {*shapes, "seconds"}


def test_it_compiles_for_a_mesh():
    config = read_config("filip_b32", "smoke")
    mesh = make_mesh({"data": 4, "fsdp": 2, "tensor": 1})
    memory = lower_train_step(config, mesh).compile().memory_analysis()
    assert memory.argument_size_in_bytes > 0 and memory.temp_size_in_bytes > 0
    with pytest.raises(ConfigError, match="batch_size"):
        config.batch_size = 12
        lower_train_step(config, mesh)


@pytest.mark.slow
@pytest.mark.parametrize(
    "topology, compiler, kernel",
    [
        ("v5e:2x2", "libtpu", "tpu_custom_call"),
        ("h100:2", "jax_cuda13_plugin", "mosaic_gpu"),
    ],
)
def test_on_an_accelerator_it_runs_the_kernels_on_bfloat16(topology, compiler, kernel):
    if importlib.util.find_spec(compiler) is None:
        pytest.skip(f"{compiler} is not installed; `make compilers` installs it")
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, topology_devices(topology))
    text = lower_train_step(read_config("filip_b32", "smoke"), mesh).as_text()
    calls = re.findall(rf"custom_call @\w*{kernel}.*", text)
    assert calls and all("bf16>" in call for call in calls)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="`make compilers` installs libtpu")
def test_slices_are_an_axis_of_their_own_and_a_v4_chip_is_one_device():
    assert len(topology_devices("v4:2x2x2")) == 8
    mesh = make_mesh({"data": -1, "fsdp": 2, "tensor": 1}, topology_devices("v5e:2x2", slices=2))
    assert dict(mesh.shape) == {"dcn": 2, "data": 2, "fsdp": 2, "tensor": 1}
    assert [{device.slice_index for device in part.flat} for part in mesh.devices] == [{0}, {1}]
    with pytest.raises(ConfigError, match="2 slices"):
        make_mesh({"dcn": 1, "data": -1, "fsdp": 1, "tensor": 1}, topology_devices("v5e:2x2", slices=2))


@pytest.mark.parametrize("name", ["v99:2x2", "h100", "a100:8"])
def test_a_topology_that_is_not_known_is_named(name):
    with pytest.raises(ConfigError, match=name):
        topology_devices(name)
