"""Captions written and judged in training: the same on any mesh, killed and resumed, and what is refused."""

import json

import jax
import numpy as np
import pytest

from tests.tiny import VOCAB, leaves, tiny_batch, tiny_config, tiny_model
from tests.train.test_loop import PLAIN, config, final_checksums
from vlc.config import check_config
from vlc.data.sources import Scenes
from vlc.data.tokenizers import Tokenizer
from vlc.errors import CheckpointError, ConfigError, DataError
from vlc.parallel import Share, make_mesh
from vlc.parallel.sharding import batch_sharding, state_sharding
from vlc.train import train
from vlc.train.lowering import batch_shapes
from vlc.train.rollout import Rollout
from vlc.train.step import loss_and_gradient

REWARDED = PLAIN | {
    "objectives__clip__weight": 0.5,
    "objectives__policy__weight": 1.0,
    "objectives__policy__kl": 0.1,
    "objectives__policy__baseline": "running",
    "model__decoder__layers": 2,
    "model__decoder__length": 10,
    "reward__terms": "length:-0.1,cider:1",
    "reward__samples": 3,
    "reward__references": "short",
    "optimizer__lr": 1e-3,
}


def tiny(**changes):
    return tiny_config(
        objectives__policy__weight=0.8, objectives__policy__kl=0.3, objectives__preference__weight=0.5,
        objectives__best_of__weight=0.2, reward__terms="length:1", reward__samples=3,
        model__decoder__length=12, **{f"objectives__{name}__weight": 0.0 for name in ("filip", "multi_positive",
        "grouping")}, **changes,
    )  # fmt: skip


def rewarded_batch(settings):
    rng, count = np.random.default_rng(4), 8
    ids = rng.integers(3, VOCAB, (count, 3, 12))
    ids[:, 0, 5:], ids[2, 1, 3:] = VOCAB, VOCAB
    return tiny_batch(settings, count) | {
        "sampled": jax.numpy.asarray(ids, jax.numpy.int32),
        "reward": jax.numpy.asarray(rng.normal(size=(count, 3)), jax.numpy.float32),
        "reward_baseline": jax.numpy.asarray(rng.normal(size=count), jax.numpy.float32),
    }


def gradient_of(settings, shape=(1, 1, 1), accumulate=1):
    graph, params = tiny_model(settings)
    _, first = tiny_model(settings, seed=9)
    mesh = make_mesh(dict(zip(("data", "fsdp", "tensor"), shape, strict=True)), jax.devices()[: int(np.prod(shape))])
    with jax.set_mesh(mesh):
        places = state_sharding(params, mesh)
        given = jax.device_put((params, first, rewarded_batch(settings)), (places, places, batch_sharding(mesh)))
        step = jax.jit(lambda params, first, batch: loss_and_gradient(
            graph, params, batch, settings.objectives, accumulate, None, first))  # fmt: skip
        total, terms, gradient = step(*given)
    return float(total), [float(terms[name]) for name in ("policy", "preference", "best_of")], leaves(gradient)


@pytest.mark.slow
def test_meshes_and_parts_give_the_same_gradient():
    settings = tiny()
    total, term, gradient = gradient_of(settings)
    assert np.isfinite(total) and any("decoder" in path and np.abs(x).max() > 0 for path, x in gradient.items())
    for shape, accumulate in (((2, 2, 2), 1), ((4, 1, 2), 2)):
        other, also, moved = gradient_of(settings, shape, accumulate)
        np.testing.assert_allclose([other, *also], [total, *term], rtol=1e-5)
        for path, value in gradient.items():
            np.testing.assert_allclose(moved[path], value, rtol=1e-5, atol=2e-5, err_msg=path)


def writer(settings, tokenizer: Tokenizer, shape=(1, 1, 1)):
    """A rollout of a tiny model, the parameters, and a batch of scenes."""
    from flax import nnx

    from vlc.train.state import build_model, make_graph

    graph = make_graph(settings, tokenizer.vocab_size)
    params = nnx.state(build_model(settings, tokenizer.vocab_size, jax.random.key(5)), nnx.Param)
    mesh = make_mesh(dict(zip(("data", "fsdp", "tensor"), shape, strict=True)), jax.devices()[: int(np.prod(shape))])
    share, source = Share(mesh, settings.batch_size), Scenes(side=16, length=64)
    sharding = state_sharding(params, mesh)
    rollout = Rollout(settings, graph, mesh, share, tokenizer, source, None, sharding)
    host = {"index": np.arange(settings.batch_size), "image": np.stack([source[i].image for i in range(8)])}
    batch = share.to_devices({"image": host["image"]})
    return rollout, jax.device_put(params, sharding), host, batch, graph


def test_what_is_written_is_of_the_step_and_the_row(tokenizer):
    settings = tiny(batch_size=8, reward__updates=2, objectives__policy__baseline="greedy")
    rollout, params, host, batch, graph = writer(settings, tokenizer)
    first, again, later = (rollout(step, params, host, batch) for step in (3, 3, 4))
    shapes = {name: (x.shape, x.dtype) for name, x in batch_shapes(settings).items() if name in first}
    assert {name: (x.shape, x.dtype) for name, x in first.items()} == shapes and len(shapes) == 4
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    assert (np.asarray(first["sampled"]) != np.asarray(later["sampled"])).any()
    np.testing.assert_array_equal(first["reward_baseline"], later["reward_baseline"])  # greedy ones do not change
    ids = np.asarray(first["sampled"])
    assert (ids[..., 0] == tokenizer.begin_id).all()
    words = [[len(tokenizer.decode(row).split()) for row in some] for some in ids]
    np.testing.assert_allclose(first["reward"], words)
    # What is remembered of the writing is what the step finds before it moves: all ratios are 1.
    from flax import nnx

    from vlc.objectives import encode_batch

    known = tiny_batch(settings) | dict(batch) | first
    encoded = encode_batch(nnx.merge(graph, params), known | {"text": known["text"]}, settings.objectives)
    np.testing.assert_allclose(encoded.sampled_log_prob, first["sampled_old"], atol=1e-4)
    report = rollout.report(1.0)
    assert {"reward", "reward/length", "reward/cut", "rollout/writing", "rollout/scoring"} <= report.keys()


@pytest.mark.slow
def test_what_is_written_is_the_same_on_every_mesh(tokenizer):
    settings = tiny(batch_size=8)
    made = []
    for shape in ((1, 1, 1), (2, 2, 2), (8, 1, 1)):
        rollout, params, host, batch, _ = writer(settings, tokenizer, shape)
        made.append(rollout(3, params, host, batch))
    for other in made[1:]:
        for name, value in made[0].items():
            np.testing.assert_array_equal(value, other[name])


def test_a_run_with_rewards_that_is_stopped_ends_with_the_same_bits(tmp_path):
    made = config(steps=4, **REWARDED)
    made.optimizer.schedule = "constant"
    assert train(made, tmp_path / "whole") == 0
    for steps in (2, 4):
        part = config(steps=steps, **REWARDED)
        part.optimizer.schedule = "constant"
        assert train(part, tmp_path / "cut") == 0
    assert final_checksums(tmp_path / "cut") == final_checksums(tmp_path / "whole")
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["reward"]) and "reward/cider" in row for row in rows if "loss" in row)
    with pytest.raises(CheckpointError, match="holds other things of rewards"):
        train(config(steps=6, **REWARDED | {"objectives__policy__kl": 0.0}), tmp_path / "cut")


def test_after_another_batch_size_the_next_batch_is_written(tmp_path, monkeypatch):
    """Two batches of 8 were seen, so that the next of 16 is number 1: no number of an image comes again."""
    asked, write = [], Rollout.__call__

    def remember(self, number, *more):
        asked.append((number, self._config.batch_size))
        return write(self, number, *more)

    monkeypatch.setattr(Rollout, "__call__", remember)
    assert train(config(steps=2, **REWARDED), tmp_path) == 0
    assert train(config(steps=4, batch_size=16, **REWARDED), tmp_path) == 0
    assert asked == [(0, 8), (1, 8), (1, 16), (2, 16)]


@pytest.mark.slow
def test_a_judge_sees_pictures_of_its_own_size_and_texts(tiny_regions, tmp_path):
    changes = REWARDED | {"reward__terms": "self_retrieval:1,clip_s:1", "reward__judge": "JUDGE",
                          "objectives__policy__baseline": "greedy", "reward__updates": 2}  # fmt: skip
    asked = []

    def load(path):
        asked.append(path)
        return tiny_regions

    made = config(steps=2, **changes)
    assert train(made, tmp_path / "run", load_judge=load) == 0 and asked == ["JUDGE"]
    with pytest.raises(ConfigError, match="load_judge"):
        train(made, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"set config.reward.judge"):
        train(config(steps=2, **changes | {"reward__judge": ""}), tmp_path / "other")


def nonsense(written):
    return np.full((len(written.texts), len(written.texts[0])), np.nan)


@pytest.mark.slow
def test_a_reward_that_is_no_number_stops_a_run_and_loses_nothing(tmp_path):
    made = config(steps=2, **REWARDED)
    assert train(made, tmp_path) == 0
    wrong = config(steps=4, **REWARDED | {"reward__terms": "tests.train.test_rewards.nonsense:1"})
    with pytest.raises(DataError, match="nonsense is nan for the caption"):
        train(wrong, tmp_path)
    assert train(config(steps=3, **REWARDED), tmp_path) == 0  # goes on from what was there


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives__policy__weight": 1.0}, "reward.terms names no reward"),
        ({"reward__terms": "length:1"}, "nothing is written"),
        ({"reward__terms": "length:x", "objectives__policy__weight": 1.0}, "not a number"),
        ({"reward__terms": "length:0", "objectives__policy__weight": 1.0}, "finite and not 0"),
        ({"reward__terms": "bag_retrieval:1", "objectives__policy__weight": 1.0}, "data.bags"),
        ({"reward__terms": "length:1", "objectives__policy__weight": 1.0, "objectives__policy__baseline": "group",
          "reward__samples": 1}, "2 or more"),
        ({"reward__terms": "length:1", "objectives__policy__weight": 1.0, "model__image__drop_patches": 0.5}, "whole"),
        ({"reward__terms": "length:1", "objectives__policy__weight": 1.0, "reward__max_tokens": 99}, "max_tokens=99"),
        ({"reward__terms": "length:1", "objectives__policy__weight": 1.0, "model__decoder__layers": 0,
          "objectives__caption__weight": 0.0}, "needs a captioner"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(changes, said):
    with pytest.raises(ConfigError, match=said):
        check_config(tiny_config(**changes))


def test_scenes_of_the_first_part_are_judged_as_they_were_drawn(tokenizer):
    """With a curriculum an index is another scene at the beginning."""
    settings = tiny(batch_size=8, objectives__policy__baseline="greedy")
    settings.reward.terms = "precision:1"
    rollout, params, host, batch, _ = writer(settings, tokenizer)
    source = Scenes(side=16, length=64, objects=(2, 3), first_objects=(1, 1), first_share=0.5)
    rollout._source, seen = source, []
    rollout._terms = (rollout._terms[0]._replace(reward=lambda some: seen.append(some.scenes) or np.zeros((8, 4))),)
    for step in (0, settings.steps - 1):
        rollout(step, params, host, batch)
    assert [{len(scene.objects) > 1 for scene in scenes} for scenes in seen] == [{False}, {True}]
