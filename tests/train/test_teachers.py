"""Learning from another model, and from the moving average of one's own: equations, gradients, meshes, whole runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from tests.conftest import unit_rows
from tests.tiny import VOCAB, leaves, tiny_batch, tiny_config, tiny_model
from tests.train.test_loop import config, final_checksums
from vlc.config import check_config
from vlc.errors import ConfigError
from vlc.inference import load_initial
from vlc.objectives import encode_batch, total_loss
from vlc.objectives.distillation import distillation_loss
from vlc.objectives.self_distillation import agreement, balanced
from vlc.parallel import make_mesh
from vlc.parallel.sharding import batch_sharding, state_sharding
from vlc.train import train
from vlc.train.state import init_state
from vlc.train.step import loss_and_gradient, make_train_step
from vlc.train.views import add_views, embeddings_of, random_crops, resized, taught

ALONE = {f"objectives__{name}__weight": 0.0 for name in ("clip", "filip", "multi_positive", "grouping", "caption")}
SELF = {
    "objectives__local_global__weight": 1.0,
    "objectives__masked__weight": 0.5,
    "model__image__prototypes": 16,
    "optimizer__ema": 0.9,
    "data__image__size": 32,
    "model__image__patch": 8,
}
MOMENTUM = {"objectives__distill__weight": 1.0, "optimizer__ema": 0.9}


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def test_scores_are_learnt_by_their_divergence():
    rng = np.random.default_rng(0)
    image, text = unit_rows(rng, 6, 8), unit_rows(rng, 6, 8)
    other_image, other_text = unit_rows(rng, 6, 5), unit_rows(rng, 6, 5)
    found = distillation_loss(image, text, 7.0, other_image, other_text, 11.0)
    student, teacher = 7.0 * image @ text.T, 11.0 * other_image @ other_text.T
    expected = 0.0
    for axis in (0, 1):
        p, q = softmax(teacher, axis), softmax(student, axis)
        expected += 0.5 * (p * np.log(p / q)).sum() / 6
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(distillation_loss(image, text, 7.0, image, text, 7.0)) < 1e-6
    same = distillation_loss(image, text, 7.0, image[::-1], text, 7.0, features=2.0)
    plain = distillation_loss(image, text, 7.0, image[::-1], text, 7.0)
    np.testing.assert_allclose(same - plain, 2.0 * (2 - (image * image[::-1]).sum(axis=1).mean() - 1), rtol=1e-4)
    with pytest.raises(ConfigError, match="8 and 5 numbers"):
        distillation_loss(image, text, 7.0, other_image, other_text, 11.0, features=1.0)


def test_choices_are_balanced_and_the_cross_entropy_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, 8)) * 0.3 + np.array([0.9] + [0.0] * 7)  # which all choose the first
    targets = np.asarray(balanced(jnp.asarray(logits), 0.1))
    assert softmax(logits / 0.1, 1)[:, 0].mean() > 0.8
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-5)
    assert abs(targets.mean(axis=0) - 1 / 8).max() < 0.12  # after three rounds
    views = rng.normal(size=(64, 3, 8)) * 0.3
    expected = -(targets[:, None] * np.log(softmax(views / 0.2, 2))).sum(axis=2).mean()
    np.testing.assert_allclose(agreement(jnp.asarray(views), jnp.asarray(logits), 0.2, 0.1), expected, rtol=1e-5)
    teaching = jax.grad(lambda x: agreement(jnp.asarray(views), x, 0.2, 0.1))(jnp.asarray(logits))
    assert not np.asarray(teaching).any()


def test_crops_are_shares_of_their_own_picture():
    y, x = np.mgrid[:64, :64]
    images = np.stack([np.stack([y * 4, x * 4, np.full_like(x, 60 * row)], axis=-1) for row in range(4)])
    crops = np.asarray(random_crops(images.astype(np.uint8), 16, 5, (0.05, 0.4), jax.random.key(0)), np.float32)
    assert crops.shape == (4, 5, 16, 16, 3)
    for row in range(4):
        assert abs(crops[row, ..., 2] - 60 * row).max() <= 1
        spans = crops[row, :, -1, 0, 0] - crops[row, :, 0, 0, 0]  # of 15 of 16 pixels, in quarters
        sides = spans / 4 * 16 / 15
        assert (sides > 0.9 * 64 * np.sqrt(0.05)).all() and (sides < 1.1 * 64 * np.sqrt(0.4)).all()
        across = crops[row, :, 0, -1, 1] - crops[row, :, 0, 0, 1]
        np.testing.assert_allclose(across, spans, atol=4)
    assert len({tuple(np.round(crop.ravel()[:3])) for crop in crops.reshape(20, -1, 3)}) > 15


def prepared(settings, count=8, key=0):
    graph, params = tiny_model(settings)
    _, average = tiny_model(settings, seed=1)
    batch = add_views(settings, tiny_batch(settings, count), jax.random.key(key))
    return graph, params, batch | taught(settings, batch, nnx.merge(graph, average), None)


def test_hidden_patches_are_told_by_the_others_and_the_teacher_sees_them():
    settings = tiny_config(**ALONE, **SELF)
    check_config(settings)
    graph, params, batch = prepared(settings)
    model = nnx.merge(graph, params)
    assert batch["hidden"].shape == (8, 8) and batch["crops"].shape == (8, 2, 16, 16, 3)
    assert batch["teacher_whole"].shape == (8, 16) and batch["teacher_hidden"].shape == (8, 8, 16)
    _, patches = model.encode_view(batch["image"], batch["hidden"])
    changed = np.array(batch["image"])
    for row, places in enumerate(np.asarray(batch["hidden"])):
        for place in places:
            down, across = divmod(int(place), 4)
            changed[row, down * 8 : (down + 1) * 8, across * 8 : (across + 1) * 8] = 0
    _, same = model.encode_view(changed, batch["hidden"])
    np.testing.assert_allclose(patches, same, atol=1e-6)
    whole = jax.jit(lambda params, batch: loss_and_gradient(graph, params, batch, settings.objectives))
    total, terms, gradient = whole(params, batch)
    assert set(terms) == {"local_global", "masked"} and np.isfinite(total)
    moved = leaves(gradient)
    for name in ("image_tower/mask", "prototypes/prototypes", "prototypes/up/kernel", "image_tower/embed/kernel"):
        assert any(np.abs(value).max() > 0 for path, value in moved.items() if name in path), name
    assert not any(np.abs(value).max() for path, value in moved.items() if "text_tower" in path)


@pytest.mark.slow
def test_a_step_is_the_same_on_eight_devices_and_in_parts():
    """Every gradient, read off a step of gradient descent, and every term."""
    descent = optax.sgd(1.0)
    state = init_state(tiny_config(**SELF | MOMENTUM), VOCAB, descent, jax.random.key(0))
    state["ema"] = tiny_model(tiny_config(**SELF), seed=1)[1]
    before = leaves(state["params"])

    def run(shape, accumulate):
        settings = tiny_config(**SELF | MOMENTUM, accumulate=accumulate, batch_size=16)
        sizes = dict(zip(("data", "fsdp", "tensor"), shape, strict=True))
        mesh = make_mesh(sizes, jax.devices()[: int(np.prod(shape))])
        batch = {name: x for name, x in tiny_batch(settings, 16).items() if name != "null"}
        step = jax.jit(make_train_step(tiny_model(settings)[0], descent, settings))
        with jax.set_mesh(mesh):
            placed = jax.device_put(state, state_sharding(state, mesh)), jax.device_put(batch, batch_sharding(mesh))
            new, metrics = step(*placed)
        after = leaves(new["params"])
        return {path: before[path] - after[path] for path in before}, {name: float(x) for name, x in metrics.items()}

    gradient, said = run((1, 1, 1), 1)
    assert sum(np.abs(x).max() > 1e-3 for x in gradient.values()) > 40
    for shape, accumulate in (((2, 2, 2), 1), ((2, 2, 2), 2)):
        other, also = run(shape, accumulate)
        for name, value in said.items():
            np.testing.assert_allclose(also[name], value, rtol=2e-5, atol=1e-5, err_msg=name)
        for path, value in gradient.items():
            np.testing.assert_allclose(other[path], value, atol=1e-4 * np.abs(value).max() + 1e-5, err_msg=path)


def test_the_average_teaches_and_is_not_taught():
    settings = tiny_config(**MOMENTUM)
    graph, params, batch = prepared(settings)

    def loss(params, average):
        said = batch | taught(settings, batch, nnx.merge(graph, average), None)
        model = nnx.merge(graph, params)
        return total_loss(encode_batch(model, said, settings.objectives), model.scales(), settings.objectives)[0]

    _, average = tiny_model(settings, seed=1)
    learner, teacher = jax.jit(jax.grad(loss, (0, 1)))(params, average)
    assert any(np.abs(x).max() for x in leaves(learner).values())
    assert not any(np.abs(x).max() for x in leaves(teacher).values())


def test_a_teacher_of_another_size_is_shown_the_same_pictures():
    small, large = tiny_config(data__image__size=16), tiny_config(data__image__size=32)
    images = jnp.full((4, 16, 16, 3), 77, jnp.uint8)
    assert (np.asarray(resized(images, 32)) == 77).all() and resized(images, 16) is images
    graph, params = tiny_model(large)
    batch = tiny_batch(small, 4)
    says = embeddings_of(nnx.merge(graph, params), 32)(batch)
    shown = nnx.merge(graph, params).encode_image(resized(batch["image"], 32))
    np.testing.assert_allclose(says["teacher_image"], shown.embed, atol=1e-6)
    assert says["teacher_scale"].shape == (4,)


@pytest.mark.slow
def test_a_run_learns_from_a_run(tmp_path, capsys):
    """The student of a stored model: with its tokenizer, its own width, and no trace of it in the checkpoint."""
    plain = {"objectives__caption__weight": 0.0, "model__decoder__layers": 0}
    assert train(config(steps=2, **plain), tmp_path / "teacher") == 0
    words = {"data__tokenizer": str(tmp_path / "teacher" / "tokenizer.model")}
    distill = {"objectives__distill__weight": 1.0, "objectives__distill__teacher": str(tmp_path / "teacher")}
    student = config(steps=3, model__embed_dim=16, **plain, **words, **distill)
    assert train(student, tmp_path / "student", load_initial=load_initial) == 0
    assert "distill" in capsys.readouterr().out
    arrays, _, _ = final_checksums(tmp_path / "student")
    assert not any("teacher" in path for path in arrays)
    features = config(steps=3, model__embed_dim=16, objectives__distill__features=1.0, **plain, **words, **distill)
    with pytest.raises(ConfigError, match="16 and 32 numbers"):
        train(features, tmp_path / "other", load_initial=load_initial)
    with pytest.raises(ConfigError, match="cuts texts otherwise"):
        train(config(steps=3, data__vocab_size=200, **plain, **distill), tmp_path / "third", load_initial=load_initial)
    longer = config(steps=3, model__text__length=60, **plain, **words, **distill)
    with pytest.raises(ConfigError, match="would not see the end"):
        train(longer, tmp_path / "fourth", load_initial=load_initial)


@pytest.mark.slow
def test_a_run_learns_from_itself(tmp_path):
    settings = config(
        steps=2, **{key: value for key, value in SELF.items() if "size" not in key and "patch" not in key}
    )
    settings.model.image.stem, settings.objectives.distill.weight = "patch", 0.5
    assert train(settings, tmp_path / "run") == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimizer__ema": 0.0}, "set config.optimizer.ema"),
        ({"model__image__prototypes": 0}, "set config.model.image.prototypes"),
        ({"data__image__resize": "naflex"}, "needs square images"),
        ({"objectives__local_global__size": 12}, "does not divide config.objectives.local_global.size=12"),
    ],
)
def test_what_is_missing_is_named(changes, said):
    with pytest.raises(ConfigError, match=said):
        check_config(tiny_config(**SELF | changes))
