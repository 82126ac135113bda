"""The TPU kernels: values and gradients in the interpreter, with race detection, and the real compiler's word."""

import importlib.util
import itertools

import pytest
from jax.experimental.pallas import tpu as pltpu

from tests.similarity.kernels import check_against_the_oracle, lowered
from vlc.similarity import tpu

INTERPRETER = pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
SHAPES = [(49, 32), (196, 64), (196, 77), (256, 77)]  # patches and tokens
V5E, V5P, V6E = tpu.Chip(128, 1, False, 1 << 30), tpu.Chip(128, 2, False, 1 << 30), tpu.Chip(256, 1, True, 1 << 30)


@pytest.mark.parametrize("keep", [0, 1 << 30], ids=["found again", "saved"])
@pytest.mark.parametrize(
    "chip, dtype, shape",  # B, C, P, T, D: nothing divides anything; several blocks each way; images that share a tile
    [
        (V5E, "float32", (18, 130, 5, 6, 16)),
        (V5E, "bfloat16", (3, 2, 17, 1, 8)),
        (V5P, "float32", (40, 9, 6, 7, 24)),
        pytest.param(V6E, "bfloat16", (33, 300, 20, 9, 32), marks=pytest.mark.slow),
        pytest.param(V6E, "float32", (5, 7, 3, 300, 8), marks=pytest.mark.slow),  # positions beyond a byte
    ],
)
def test_values_and_gradients_are_the_oracle_s(chip, dtype, shape, keep, monkeypatch):
    monkeypatch.setattr(tpu, "_chip", lambda: chip)
    monkeypatch.setattr(tpu, "_ROWS", 16)
    check_against_the_oracle(
        pltpu.force_tpu_interpret_mode(INTERPRETER), shape, dtype,
        scores_within=3e-6,
        gradients_within=1e-6 if dtype == "float32" else 6e-3,  # the gradient of the products has the inputs' type
        implementation="pallas_tpu", argmax_bytes=keep,
    )  # fmt: skip


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed; `make compilers` installs it"
)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    "topology, shape, width, keep",  # all on one chip; on the others the least and the most
    [
        *itertools.product(["v5e:2x2"], SHAPES, [256, 768], [0, 1 << 40]),
        ("v5e:2x2", (196, 77), 512, 0),
        *itertools.product(["v5p:2x2x2", "v6e:2x2"], [SHAPES[0], SHAPES[-1]], [256, 768], [1 << 40]),
        *itertools.product(["v5p:2x2x2", "v6e:2x2"], SHAPES[-1:], [768], [0]),
    ],
)
def test_the_tpu_compiler_takes_them(topology, shape, width, keep):
    text = lowered(topology, 512, *shape, width, keep).compile().as_text()
    assert "late_interaction_forward" in text and "late_interaction_backward" in text


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("topology", ["v5e:2x2", "v6e:2x2"])
@pytest.mark.parametrize("keep, gibibytes", [(9 << 29, 6), (0, 1)], ids=["default", "found again"])
def test_memory_at_4096_by_4096(topology, keep, gibibytes):
    """The products alone would be 784 GiB."""
    memory = lowered(topology, 4096, 196, 64, 256, keep).compile().memory_analysis()
    assert memory.temp_size_in_bytes < gibibytes << 30
