"""Other optimizers, rates that fall with the depth, the guard against spikes, FLIP in a step, twins in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image

from tests.tiny import VOCAB, tiny_batch, tiny_config, tiny_model
from vlc.config import check_config
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import Lengths, MakeExample, train_batches, twin_of
from vlc.data.sources import Scenes
from vlc.data.sources.mixture import Mixture
from vlc.data.sources.sample import Sample
from vlc.data.sources.scenes import language
from vlc.errors import ConfigError, DataError
from vlc.objectives.captioning import caption_loss, caption_nll
from vlc.parallel import make_mesh
from vlc.parallel.sharding import state_sharding
from vlc.train.flops import step_flops
from vlc.train.guards import scale_by_depth, skip_spikes
from vlc.train.inputs import make_example_maker, open_split
from vlc.train.optimizer import averaged, make_optimizer
from vlc.train.state import init_state, make_graph
from vlc.train.step import make_train_step


def random_like(params, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params)


def first_update(config, params):
    optimizer = make_optimizer(config.optimizer, 10)
    gradient = random_like(params)
    return gradient, optimizer.update(gradient, optimizer.init(params), params)[0]


PLAIN = {"optimizer__warmup_steps": 0, "optimizer__schedule": "constant", "optimizer__weight_decay": 0.0}


def test_muon_makes_each_matrix_orthogonal_and_leaves_the_rest_to_adamw():
    config = tiny_config(optimizer__name="muon", model__image__layers=2, model__image__stem="conv", **PLAIN)
    _, params = tiny_model(config)
    _, update = first_update(config, params)
    adam = tiny_config(**PLAIN)
    _, others = first_update(adam, params)
    update, others = nnx.to_pure_dict(update), nnx.to_pure_dict(others)
    blocks = update["image_tower"]["stack"]["blocks"]
    matrices = [
        *(layer.reshape(32, -1) for layer in blocks["attention"]["query"]["kernel"]),
        *(layer[:, half].reshape(32, -1) for layer in blocks["attention"]["key_value"]["kernel"] for half in (0, 1)),
        *(layer.reshape(-1, 32) for layer in blocks["attention"]["out"]["kernel"]),
        *blocks["mlp"]["up"]["kernel"],
        (convolution := update["image_tower"]["embed"]["convolutions"][1]["kernel"]).reshape(-1, convolution.shape[-1]),
    ]
    for matrix in matrices:
        values = np.linalg.svd(matrix, compute_uv=False)
        assert np.quantile(values, 0.1) > 0.5 * values.max()  # a square matrix may have one that stays small
        size = float(jnp.sqrt((matrix**2).mean()))
        assert 0.15 * config.optimizer.lr < size < 0.25 * config.optimizer.lr
    for name in ("cls", "positions"):
        assert np.array_equal(update["image_tower"][name], others["image_tower"][name])
    assert np.array_equal(update["log_scale"], others["log_scale"])


def test_adafactor_keeps_rows_and_columns_of_matrices_alone():
    """Against the paper's equations, on a matrix that is factored and a vector that is not."""
    config = tiny_config(optimizer__name="adafactor", optimizer__clip_norm=0.0, **PLAIN).optimizer
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.zeros((40, 50)), "bias": jnp.zeros(7)}
    rule = make_optimizer(config, 10)
    state = rule.init(params)
    assert sum(x.size for x in jax.tree.leaves(state)) < 2.2 * (40 * 50 + 7)  # Adam's two moments and a half
    rows, columns, whole, mean = 0.0, 0.0, 0.0, {"kernel": 0.0, "bias": 0.0}
    for step in range(4):
        gradient = {name: rng.normal(size=x.shape).astype(np.float32) for name, x in params.items()}
        update, state = rule.update(gradient, state, params)
        keep = min(1 - (step + 1.0) ** -0.8, config.b2)
        square = gradient["kernel"] ** 2
        rows = keep * rows + (1 - keep) * square.mean(1)
        columns = keep * columns + (1 - keep) * square.mean(0)
        whole = keep * whole + (1 - keep) * gradient["bias"] ** 2
        second = {"kernel": np.outer(rows, columns) / rows.mean(), "bias": whole}
        for name, value in second.items():
            wanted = gradient[name] / np.sqrt(value)
            wanted /= max(1.0, np.sqrt((wanted**2).mean()))
            mean[name] = config.b1 * mean[name] + (1 - config.b1) * wanted
            np.testing.assert_allclose(update[name], -config.lr * mean[name], rtol=2e-4, atol=1e-9)


@pytest.mark.slow
def test_adafactor_s_state_lies_on_any_mesh():
    config = tiny_config(optimizer__name="adafactor", model__image__width=64, model__text__width=64)
    optimizer = make_optimizer(config.optimizer, 10)
    mesh = make_mesh({"data": 2, "fsdp": 2, "tensor": 2}, jax.devices()[:8])

    def fresh(key):
        return init_state(config, VOCAB, optimizer, key)

    sharding = state_sharding(jax.eval_shape(fresh, jax.random.key(0)), mesh)
    step = jax.jit(make_train_step(make_graph(config, VOCAB), optimizer, config))
    with jax.set_mesh(mesh):
        state = jax.jit(fresh, out_shardings=sharding)(jax.random.key(0))
        batch = {name: x for name, x in tiny_batch(config).items() if name != "null"}
        _, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"])


def test_lion_is_optax_s():
    config = tiny_config(optimizer__name="lion", optimizer__clip_norm=0.0, **PLAIN)
    _, params = tiny_model(config)
    gradient, update = first_update(config, params)
    for g, u in zip(jax.tree.leaves(gradient), jax.tree.leaves(update), strict=True):
        np.testing.assert_allclose(u, -config.optimizer.lr * jnp.sign(g), rtol=1e-6)


def test_learning_rates_fall_with_the_depth():
    _, params = tiny_model(tiny_config(model__image__layers=3))
    ones = jax.tree.map(jnp.ones_like, params)
    rule = scale_by_depth(0.5)
    scaled = nnx.to_pure_dict(rule.update(ones, rule.init(params), params)[0])
    image = scaled["image_tower"]
    up = image["stack"]["blocks"]["mlp"]["up"]["kernel"]
    assert [float(layer.max()) for layer in up] == [float(layer.min()) for layer in up] == [0.125, 0.25, 0.5]
    assert {float(x.max()) for x in jax.tree.leaves([image["embed"], image["positions"], image["cls"]])} == {0.0625}
    assert {float(x.max()) for x in jax.tree.leaves([image["norm"], scaled["image_embed"], scaled["decoder"]])} == {1.0}
    assert float(scaled["text_tower"]["embed"]["tokens"].max()) == 0.25  # one block


def test_spikes_are_left_out_and_counted():
    guard = skip_spikes(optax.sgd(0.1, momentum=0.9), 5.0)
    params = {"w": jnp.ones(4)}
    state, plain = guard.init(params), optax.sgd(0.1, momentum=0.9)
    other = plain.init(params)
    for step in range(40):
        bad = step in (3, 30, 35)
        gradient = {"w": jnp.full(4, {3: jnp.nan, 30: 100.0, 35: jnp.inf}.get(step, 1.0 + step % 3))}
        update, state = guard.update(gradient, state, params)
        if bad:
            assert not update["w"].any()
        else:
            wanted, other = plain.update(gradient, other, params)
            np.testing.assert_allclose(update["w"], wanted["w"], rtol=1e-6)
    assert int(state.skipped) == 3


@pytest.mark.slow
def test_a_guarded_step_of_flip_trains_and_says_what_it_left_out():
    """In one step: the guard, patches dropped, another optimizer; and half of the patches cost less."""
    changes = {"data__image__size": 32, "model__image__layers": 2}
    config = tiny_config(
        optimizer__skip_spikes=3.0, optimizer__layer_decay=0.8, optimizer__name="muon", optimizer__ema=0.9,
        model__image__drop_patches=0.5, accumulate=2, **changes,
    )  # fmt: skip
    optimizer = make_optimizer(config.optimizer, 10)
    state = init_state(config, VOCAB, optimizer, jax.random.key(0))
    step = jax.jit(make_train_step(make_graph(config, VOCAB), optimizer, config))
    batch = {name: x for name, x in tiny_batch(config).items() if name != "null"}
    new, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"]) and int(metrics["skipped_steps"]) == 0 and int(new["step"]) == 1
    whole = tiny_config(**changes)
    half = tiny_config(model__image__drop_patches=0.5, **changes)
    assert step_flops(half, VOCAB) < 0.9 * step_flops(whole, VOCAB)


def test_z_loss_is_the_square_of_the_normaliser():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(3, 4, 6)), jnp.float32)
    labels, mask = jnp.asarray(rng.integers(0, 6, (3, 4))), jnp.arange(4) < jnp.asarray([[4], [2], [0]])
    nll, count = caption_nll(logits, labels, mask, z_loss=0.01)
    normaliser = np.log(np.exp(np.asarray(logits, np.float64)).sum(-1))
    wanted = caption_loss(logits, labels, mask) + 0.01 * (normaliser**2 * mask).sum() / mask.sum()
    assert float(nll.sum() / count.sum()) == pytest.approx(float(wanted), rel=1e-5)


# -- twins


def pairs(tokenizer, share, **options):
    choice = CaptionChoice(Mix({"long": 1.0, "varied": 1.0}))
    scenes = Scenes(side=16, length=200, objects=(2, 3), varied=True)
    make = MakeExample(scenes, Preprocess(16), choice, tokenizer, Lengths(60, 60, 60))
    return scenes, train_batches(make, batch_size=8, seed=3, twins=share, **options)


def test_twins_stand_beside_their_records_and_each_caption_is_wrong_of_the_other(tokenizer):
    scenes, batches = pairs(tokenizer, 0.25)
    different = 0
    for _ in range(8):
        batch = next(batches)
        texts = [tokenizer.decode(ids) for ids in batch["text"]]
        for row in (0, 2):
            scene, _ = scenes.scene(int(batch["index"][row]))
            assert language.is_true(scene, texts[row]) and not language.is_true(scene, texts[row + 1])
            different += not np.array_equal(batch["image"][row], batch["image"][row + 1])
            assert abs(len(texts[row].split()) - len(texts[row + 1].split())) <= 1  # worded alike
        for row in range(4, 8):
            assert language.is_true(scenes.scene(int(batch["index"][row]))[0], texts[row])
    assert different == 16


def test_twins_depend_on_neither_processes_nor_where_a_run_was_resumed(tokenizer):
    _, batches = pairs(tokenizer, 0.5)
    whole = [next(batches) for _ in range(3)]
    _, resumed = pairs(tokenizer, 0.5, start_step=2)
    _, odd = pairs(tokenizer, 0.5, rows=[1, 3, 5, 7])
    assert np.array_equal(next(resumed)["image"], whole[2]["image"])
    assert np.array_equal(next(odd)["text"], whole[0]["text"][1::2])


def test_twins_come_after_the_step_from_which_there_are_some(tokenizer):
    _, plain = pairs(tokenizer, 0.0)
    _, from_start = pairs(tokenizer, 0.5)
    _, late = pairs(tokenizer, 0.5, twins_from=1)
    assert np.array_equal(next(late)["image"], next(plain)["image"])
    next(from_start)
    assert np.array_equal(next(late)["text"], next(from_start)["text"])


def test_a_curriculum_shows_its_first_scenes_first(tokenizer):
    scenes = Scenes(side=16, length=200, objects=(3, 3), first_objects=(1, 1), first_share=0.5)
    both = Mixture({"a": scenes, "b": Scenes(side=16, length=10, objects=(2, 2))}, {"a": 1.0, "b": 1.0})
    assert len(scenes.at(0.4).scene(5)[0].objects) == 1 and scenes.at(0.5) is scenes
    assert [len(both.at(0.0)[i].extra["scene"].objects) for i in (0, 200)] == [1, 2] and both.at(0.5) is both
    choice = CaptionChoice(Mix({"short": 1.0}))
    make = MakeExample(scenes, Preprocess(16), choice, tokenizer, Lengths(60, 60, 60), draws=32)
    batches = train_batches(make, batch_size=8, seed=3, twins=0.25)
    for step in range(4):
        batch = next(batches)
        for row in (0, 1, 7):
            objects = language.read_facts(tokenizer.decode(batch["text"][row])).mentions
            assert len(objects) == (1 if step < 2 else 3)


def test_a_curriculum_does_not_go_with_filters():
    for train in ("scenes", "scenes, more.csv"):
        config = tiny_config(data__scenes__first_share=0.5, data__filters=("words(min=3)",), data__train=train)
        with pytest.raises(ConfigError, match=r"first_share changes the scenes"):
            check_config(config)


def test_data_without_twins_are_refused(tokenizer, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a black square")
    config = tiny_config(data__twins=0.5, data__train=str(tmp_path), data__captions__sub_captions=0)
    with pytest.raises(DataError, match=r"none of 1 records has such a twin"):
        make_example_maker(config, open_split(config, "train"), tokenizer)


def test_a_twin_is_not_taken_where_its_captions_stand_elsewhere():
    """A filter that left out the first long caption: places would name others in the twin."""
    scenes, choice = Scenes(side=16, length=9), CaptionChoice(Mix({"long": 1.0}))

    class Filtered(Sample):
        def captions(self, index):
            captions = super().captions(index)
            return {**captions, "long": captions["long"][1:]}

    def known(source):
        return [twin_of(source, index, choice, np.random.default_rng(0)) is not None for index in range(9)]

    assert any(known(Sample(scenes, 9))) and not any(known(Filtered(scenes, 9)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"clip__hard_texts": 1.0}, r"set config\.data\.captions\.negatives"),
        ({"clip__hard_texts": 1.0, "clip__label_smoothing": 0.1}, "label_smoothing"),
        ({"filip__hard_texts": 1.0, "filip__keep_tokens": 0.5}, "keep_tokens"),
    ],
)
def test_what_does_not_go_with_wrong_texts_is_refused(changes, said):
    negatives = 0 if "negatives" in said else 2
    changes = {f"objectives__{key}": value for key, value in changes.items()}
    with pytest.raises(ConfigError, match=said):
        check_config(tiny_config(data__captions__negatives=negatives, **changes))


def test_twins_need_a_main_caption():
    config = tiny_config(data__twins=0.5, data__captions__first="pool")
    with pytest.raises(ConfigError, match=r"config\.data\.twins"):
        check_config(config)


def test_schedule_free_is_optaxs_and_its_average_is_what_is_evaluated():
    config = tiny_config(
        optimizer__name="schedule_free", optimizer__schedule="constant", optimizer__warmup_steps=2,
        optimizer__weight_decay=0.0, optimizer__clip_norm=0.0,
    )  # fmt: skip
    check_config(config)
    settings = config.optimizer
    ours = make_optimizer(settings, 10)
    theirs = optax.contrib.schedule_free_adamw(
        settings.lr, warmup_steps=2, b1=settings.b1, b2=settings.b2, eps=settings.eps, weight_decay=0.0
    )
    graph, params = tiny_model(config)
    state = init_state(config, VOCAB, ours, jax.random.key(0))
    step = jax.jit(make_train_step(graph, ours, config))
    for number in range(4):
        state, _ = step(state, {name: x for name, x in tiny_batch(config, seed=number).items() if name != "null"})
    opt, mine = ours.init(params), params
    their_opt, their = theirs.init(params), params
    for number in range(4):
        gradient = random_like(params, number)
        (one, opt), (two, their_opt) = ours.update(gradient, opt, mine), theirs.update(gradient, their_opt, their)
        mine, their = optax.apply_updates(mine, one), optax.apply_updates(their, two)
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(their), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    for a, b in zip(
        jax.tree.leaves(state["ema"]), jax.tree.leaves(averaged(state["opt"], state["params"])), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for change in ({"optimizer__schedule": "cosine"}, {"optimizer__ema": 0.9}, {"optimizer__frozen": ("image_tower",)}):
        with pytest.raises(ConfigError, match="schedule_free does not go with"):
            check_config(tiny_config(optimizer__name="schedule_free", **{"optimizer__schedule": "constant"} | change))
