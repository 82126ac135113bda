"""The Hopper kernels: values and gradients in the interpreter, with race detection, and the real compiler's word."""

import importlib.util
import itertools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from tests.conftest import unit_rows
from tests.similarity.kernels import check_against_the_oracle, lowered
from vlc.errors import ConfigError
from vlc.similarity import core, gpu
from vlc.similarity.gpu.backward import equals
from vlc.similarity.gpu.forward import Positions, Tiling, scores_and_positions

INTERPRETER = plgpu.InterpretGPUParams(detect_races=True)


@pytest.mark.parametrize(
    "shape, keep",  # B, C, P, T, D: nothing divides anything; positions found again or saved
    [
        ((70, 9, 5, 6, 40), 1 << 30),  # two blocks of images, an odd number of patches
        ((3, 66, 2, 13, 64), 1 << 30),  # two blocks of texts
        ((2, 3, 2, 6, 264), 0),  # a width in two parts
        pytest.param((1, 2, 1, 82, 8), 0, marks=pytest.mark.slow),  # a text on its own
    ],
)
def test_values_and_gradients_are_the_oracle_s(shape, keep, monkeypatch):
    monkeypatch.setattr(gpu, "_CHUNK_BYTES", {True: 1, False: 1})  # several chunks of images
    check_against_the_oracle(
        plgpu.force_gpu_interpret_mode(INTERPRETER), shape, "bfloat16",
        scores_within=2e-5 if keep else 3e-6, gradients_within=8e-3, implementation="pallas_gpu", argmax_bytes=keep,
    )  # fmt: skip


@pytest.mark.parametrize("patches, tokens", [pytest.param(131, 3, marks=pytest.mark.slow), (2, 150)])
def test_positions_fill_a_byte(patches, tokens):
    tiling = Tiling.of(tokens, 64)
    rng = np.random.default_rng(0)
    images = jnp.asarray(unit_rows(rng, 64, patches, 64), jnp.bfloat16)
    texts = jnp.asarray(unit_rows(rng, 32, tiling.tokens, 64), jnp.bfloat16)
    with plgpu.force_gpu_interpret_mode(INTERPRETER):
        _, _, found = scores_and_positions(tiling, images, texts, jnp.ones(texts.shape[:2]), save=True)
    found = Positions(*found)
    products = np.einsum("ipd,jtd->ijpt", *(np.asarray(x, np.float32) for x in (images, texts)))
    for positions, axis in ((found.tokens_by_patch(patches), 3), (found.patches_by_token(32), 2)):
        positions = np.expand_dims(np.asarray(positions, np.int64).transpose(2, 1, 0), axis)
        assert positions.max() > 127 or products.shape[axis] < 128
        chosen = np.take_along_axis(products, positions, axis)
        np.testing.assert_allclose(chosen, products.max(axis=axis, keepdims=True), rtol=2**-14)


def test_bfloat16_can_tell_all_positions_apart():
    numbers = jnp.append(jnp.arange(256), gpu._NEVER).astype(jnp.bfloat16)
    same = jax.vmap(lambda number: equals(numbers, number))(jnp.arange(256))
    np.testing.assert_array_equal(same, np.eye(256, 257))


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="the CUDA plugin is not installed; `make compilers` installs it",
)


ALONE = (196, 160, 512)  # shared memory has room for one warpgroup's texts


def test_a_tiling_divides_what_it_is_given():
    for tokens, width in itertools.product(range(1, 161), range(64, 2049, 64)):
        if t := Tiling.of(tokens, width):
            assert t.tokens >= tokens and t.width % 16 == 0 and width % t.depth == 0 and t.stages >= 3
            assert 64 % (t.columns * t.texts * t.cluster) == 0
    assert Tiling.of(77, 512).groups == 2  # that take turns, rather than one with twice the texts
    assert Tiling.of(*ALONE[1:]).groups == 1


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    "patches, tokens, width",
    [(*shape, 512) for shape in ((49, 32), (196, 64), (196, 77), (256, 77))]
    + [(*shape, width) for shape in ((49, 32), (256, 77)) for width in (256, 768)]
    + [ALONE],
)
def test_the_gpu_compiler_takes_them_and_spills_nothing(patches, tokens, width, tmp_path, monkeypatch):
    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
    lowered("h100:1", 512, patches, tokens, width, 0).compile()
    reports = [path.read_text() for path in tmp_path.glob("*.ptxas")]
    assert len(reports) == 4  # scores; scores and positions; the gradient of images, and of texts
    for report in reports:
        assert re.findall(r"(\d+) bytes spill", report) == ["0", "0"]
        assert "serializ" not in report  # of products that should be in flight together


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("keep, gibibytes", [(core.ARGMAX_BYTES, 6), (0, 1)], ids=["default", "found again"])
def test_memory_at_4096_by_4096(keep, gibibytes):
    """The products alone would be 784 GiB."""
    memory = lowered("h100:1", 4096, 196, 64, 256, keep).compile().memory_analysis()
    assert memory.temp_size_in_bytes < gibibytes << 30


@needs_compiler
@pytest.mark.parametrize(
    "patches, tokens, dtype, said",
    [(257, 64, "bfloat16", "257 patches"), (49, 161, "bfloat16", "161 tokens"), (49, 64, "float32", "float32")],
)
def test_where_no_kernel_fits_xla_is_taken_and_it_is_said_once(patches, tokens, dtype, said, caplog):
    core._say_once.cache_clear()
    with caplog.at_level(logging.WARNING, "vlc"):
        programs = [lowered("h100:1", 64, patches, tokens, 64, 0, dtype).as_text() for _ in range(2)]
    assert not any("mosaic_gpu" in program for program in programs)
    assert [said in record.message for record in caplog.records] == [True]
    with pytest.raises(ConfigError, match=said):
        lowered("h100:1", 64, patches, tokens, 64, 0, dtype, implementation="pallas_gpu")
