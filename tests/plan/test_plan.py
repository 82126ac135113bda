"""Plans: what they say of memory and traffic is what a run has, and what theory gives; changes that fit are found."""

import dataclasses
import importlib.util
import json
import math

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from tests.conftest import ROOT, read_config
from tests.tiny import VOCAB, tiny_batch, tiny_config
from vlc.cli import main
from vlc.errors import ConfigError
from vlc.models import layers, vit
from vlc.parallel import Share, data_shares, make_mesh, state_sharding, topology_devices
from vlc.plan import advise, make_plan
from vlc.plan.advice import could_fit
from vlc.plan.collectives import read_collectives
from vlc.plan.compiled import compile_step
from vlc.plan.sweep import parse_shapes, shapes_of
from vlc.train.lowering import plain_step, state_shapes

CLIP = {
    "objectives__filip__weight": 0.0, "objectives__multi_positive__weight": 0.0, "objectives__grouping__weight": 0.0,
    "objectives__caption__weight": 0.0, "model__decoder__layers": 0, "data__captions__sub_captions": 0,
}  # fmt: skip


def clip(shape, batch_size=16, **changes):
    data, fsdp, tensor = shape
    return tiny_config(
        **CLIP, batch_size=batch_size, data__vocab_size=VOCAB, model__image__layers=3, model__text__layers=3,
        mesh__data=data, mesh__fsdp=fsdp, mesh__tensor=tensor, **{"model__scan": True} | changes,
    )  # fmt: skip


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((8, 1, 1), marks=pytest.mark.slow),
        pytest.param((2, 4, 1), marks=pytest.mark.slow),
        (2, 2, 2),
    ],
    ids=str,
)
def planned(request):
    config = clip(request.param)
    return config, make_plan(config, "cpu:8", jax.devices(), "tiny")


def test_memory_is_that_of_a_run(planned):
    """Parameters, optimizer and batch of a device, against the buffers that are alive when a step has been taken."""
    config, plan = planned
    mesh = make_mesh(config.mesh)
    step, optimizer = plain_step(config, VOCAB)
    sharding = state_sharding(state_shapes(config, VOCAB, optimizer), mesh)
    with jax.set_mesh(mesh):
        from vlc.train.state import init_state

        state = jax.jit(lambda key: init_state(config, VOCAB, optimizer, key), out_shardings=sharding)(
            jax.random.key(0)
        )
        host = {k: np.asarray(v) for k, v in tiny_batch(config, 16).items() if k in ("image", "text", "target")}
        batch = Share(mesh, 16).to_devices(host)
        state, _ = jax.jit(step, out_shardings=(sharding, None), donate_argnums=0)(state, batch)

    def bytes_of(tree):
        return sum(
            shard.data.nbytes for leaf in jax.tree.leaves(tree) for shard in leaf.addressable_shards
            if shard.device == jax.devices()[0]
        )  # fmt: skip

    assert plan.memory["parameters"] == bytes_of(state["params"])
    assert plan.memory["optimizer"] == bytes_of(state["opt"])
    assert plan.memory["batch"] == pytest.approx(bytes_of(batch), rel=0.1)
    assert sum(plan.memory.values()) == plan.needed


def test_frozen_parameters_have_no_optimizer_state():
    config = clip((8, 1, 1), optimizer__frozen=("image_tower", "text_tower"))
    memory = make_plan(config, "cpu:8", jax.devices(), "tiny").memory
    _, optimizer = plain_step(config, VOCAB)
    kept = jax.tree.leaves(state_shapes(config, VOCAB, optimizer)["opt"])
    assert memory["optimizer"] == sum(leaf.size * leaf.dtype.itemsize for leaf in kept) < 0.2 * memory["parameters"]


def test_traffic_is_what_theory_gives(planned):
    """Gradients go round along data, and along fsdp weights are gathered for both passes and gradients scattered."""
    config, plan = planned
    _, optimizer = plain_step(config, VOCAB)
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(state_shapes(config, VOCAB, optimizer)["params"]))
    data, fsdp, tensor = (plan.mesh[axis] for axis in ("data", "fsdp", "tensor"))
    if (fsdp, tensor) == (1, 1):
        assert plan.sent["data"]["all-reduce"] == pytest.approx(2 * weights * (data - 1) / data, rel=0.05)
        assert plan.sent["data"]["all-gather"] == 4 * 16 * config.model.embed_dim * (data - 1) // data  # texts
    else:
        matrices = 4 * 12 * config.model.image.width**2 * 6 / tensor  # of six blocks: 12 width^2 each
        twice = 2 * matrices * (fsdp - 1) / fsdp
        assert 0.75 * twice < plan.sent["fsdp"]["all-gather"] < 1.5 * twice


def unexplained(config):
    """Gathers of a step that the rules do not explain.

    Weights may be gathered along fsdp and tensor; embeddings and tokens of the whole batch along all axes, but only
    outside of the towers, by the losses. XLA looks words up in shares along tensor and puts them together once, which
    costs one activation.
    """
    mesh = make_mesh(config.mesh)
    _, optimizer = plain_step(config, VOCAB)
    params = jax.tree.leaves(state_shapes(config, VOCAB, optimizer)["params"])
    largest = 4 * max(leaf.size for leaf in params)
    compared = 4 * config.batch_size * config.model.embed_dim
    words = 4 * config.batch_size // data_shares(mesh) * config.model.text.length * config.model.text.width
    for one in read_collectives(compile_step(config, mesh, 0).partitioned, dict(mesh.shape)):
        if one.operation != "all-gather":
            continue
        of_tower = any(name in one.source for name in ("image_tower", "text_tower", "decoder"))
        over_data = "data" in one.axes
        if one.axes == ("tensor",) and "_take" in one.source and one.bytes <= words:
            continue
        if one.bytes > (compared if over_data else largest) or (of_tower and over_data):
            yield one


@pytest.mark.parametrize("shape", [(4, 2, 1), (2, 2, 2)])
def test_nothing_is_gathered_that_the_rules_do_not_explain(shape):
    assert list(unexplained(clip(shape, batch_size=512))) == []  # any share of activations is larger than a weight


@pytest.mark.slow
def test_a_replicated_activation_would_be_found(monkeypatch):
    whole = lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()) if layers.batch_axes() else x  # noqa: E731
    monkeypatch.setattr(vit, "shard_batch", whole)
    assert list(unexplained(clip((4, 2, 1), batch_size=512)))


@pytest.mark.slow
def test_a_loop_counts_as_often_as_it_runs():
    """Of three layers as a loop, and one by one: the same weights are gathered."""
    gathered = []
    for scan in (True, False):
        config = clip((1, 8, 1), model__scan=scan)
        gathered.append(make_plan(config, "cpu:8", jax.devices(), "tiny").sent["fsdp"]["all-gather"])
    assert gathered[0] == pytest.approx(gathered[1], rel=0.1)


HLO = """\
HloModule jit_step

%cond (p: (s32[], f32[4])) -> pred[] {
  %p = (s32[], f32[4]) parameter(0)
  %n = s32[] constant(7)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%body (p.1: (s32[], f32[4])) -> (s32[], f32[4]) {
  %r = bf16[8,16]{1,0} all-gather(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}, metadata={op_name="m/w"}
  %s = f32[32]{0} all-reduce(%y), replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add
  %cut = f32[8]{0} dynamic-slice(%s, %i), dynamic_slice_sizes={8}
  ROOT %t = (s32[], f32[4]) tuple(%i, %z)
}

ENTRY %main (a: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]) while(%init), condition=%cond, body=%body
  %q = (f32[10]{0}, f32[6]{0}) all-reduce(%u, %v), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  ROOT %k = f32[4]{0} collective-permute(%g), source_target_pairs={{0,2},{2,4},{4,6},{6,0},{1,3},{3,5},{5,7},{7,1}}
}
"""


def test_collectives_are_read_in_all_their_forms():
    found = read_collectives(HLO, {"data": 4, "tensor": 2})
    read = {(one.operation, one.axes, one.bytes, one.times, one.group) for one in found}
    assert read == {
        ("all-gather", ("data", "tensor"), 256, 7, 4),
        ("reduce-scatter", ("data",), 128, 7, 4),
        ("all-reduce", ("data", "tensor"), 64, 1, 8),
        ("collective-permute", ("data",), 16, 1, 4),
    }
    sent = {one.operation: one.sent for one in found}
    assert sent["all-gather"] == 256 * 7 * 3 / 4 and sent["reduce-scatter"] == 128 * 7 * 3 / 4
    assert sent["all-reduce"] == 2 * 64 * 7 / 8 and sent["collective-permute"] == 16


@pytest.mark.slow
def test_changes_that_fit_are_found_by_compiling():
    """On a device whose memory holds less than the step needs."""
    config = clip((8, 1, 1), batch_size=512)
    plan = make_plan(config, "cpu:8", jax.devices(), "tiny")
    tight = dataclasses.replace(plan, capacity=int(0.7 * plan.needed), fits=False)
    assert not could_fit({"optimizer.moment_dtype": "bfloat16"}, config, tight)
    tried = {tuple(one.change.items()): one.plan for one in advise(config, tight, jax.devices(), tries=2)}
    full = tried[("model.remat", "full"),]
    assert full.needed < tight.capacity and full.device_flops > 1.2 * plan.device_flops
    assert full.model_flops == plan.model_flops


def test_shapes_of_a_sweep():
    assert (256, 1, 1) in shapes_of(256) and (16, 16, 1) in shapes_of(256) and (1, 64, 4) in shapes_of(256)
    assert all(math.prod(shape) == 24 for shape in shapes_of(24))
    assert parse_shapes("4x2x1,8x1x1") == [(4, 2, 1), (8, 1, 1)]
    with pytest.raises(ConfigError, match="256x1x1"):
        parse_shapes("4x2")


@pytest.mark.parametrize("flags", [[], ["--topology", "v5e:2x2", "--devices", "2"]])
def test_one_target_is_to_be_named(flags, capsys):
    command = ["plan", "--config", str(ROOT / "configs" / "quickstart.py"), *flags]
    assert main(command) == 2 and "Name --topology" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_writes_figures_and_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    out = tmp_path / "plan"
    command = ["plan", "--config", str(ROOT / "configs" / "clip_b16.py") + ":smoke", "--devices", "8"]
    assert main([*command, "--sweep", "--meshes", "8x1x1,3x1x1", "--out", str(out)]) == 0
    assert "data=8" in capsys.readouterr().out
    rows = json.loads(out.with_suffix(".json").read_text())
    assert rows[0]["needed"] > 0 and rows[0]["mesh"]["data"] == 8 and "does not fit 8 devices" in rows[1]["refused"]
    assert out.with_suffix(".png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="`make compilers` installs libtpu")
def test_what_a_tpu_compiler_refuses_is_a_plan_that_does_not_fit():
    config = read_config("siglip_b16", "smoke")
    config.batch_size = 131_072  # 20 GiB of scores of all pairs
    plan = make_plan(config, "v5e:2x2", topology_devices("v5e:2x2"), "siglip")
    assert plan.fits is False and plan.needed > plan.capacity and sum(plan.memory.values()) == plan.needed
    assert could_fit({"objectives.siglip.exchange": "ring"}, config, plan)


@pytest.mark.slow
@pytest.mark.parametrize(("topology", "compiler"), [("v5e:2x2", "libtpu"), ("h100:4", "jax_cuda13_plugin")])
def test_on_chips_there_is_an_estimate(topology, compiler):
    if importlib.util.find_spec(compiler) is None:
        pytest.skip(f"{compiler} is not installed; `make compilers` installs it")
    config = read_config("siglip_b16", "smoke")
    plan = make_plan(config, topology, topology_devices(topology), "siglip")
    assert plan.fits and plan.capacity > 15 * 2**30
    assert set(plan.seconds) == {"compute", "memory", "network"} and plan.limit in plan.seconds
    assert plan.step_seconds[0] <= plan.step_seconds[1] and plan.images_per_second > 0
    assert plan.sent["data"]["all-reduce"] > 0
