"""Training on regions: the same on every mesh and in parts; what is asked for is checked."""

import re

import jax
import numpy as np
import pytest

from tests.models.test_regions import REGIONS, region_batch
from tests.tiny import leaves, tiny_config, tiny_model
from tests.train.test_loop import config
from vlc.config import check_config
from vlc.errors import ConfigError, DataError
from vlc.parallel import make_mesh
from vlc.parallel.sharding import batch_sharding, state_sharding
from vlc.train import train
from vlc.train.step import loss_and_gradient, region_numbers
from vlc.train.views import add_views, some_as_points

OBJECTIVES = {
    "objectives__region__weight": 0.8,
    "objectives__region_boxes__weight": 0.6,
    "objectives__region_caption__weight": 0.5,
    "objectives__region_hard__weight": 0.6,
    "data__regions__negatives": 2,
    "objectives__same_class__weight": 0.4,
    "data__captions__class_source": "label",
    "objectives__region_same_class__weight": 0.3,
    "objectives__sequence__weight": 0.5,
    "objectives__cycle__weight": 0.5,
    "model__decoder__localiser": True,
    "objectives__attribute_mil__weight": 0.4,
    "data__regions__attributes": "red,blue,green",
    "model__regions__attributes": 3,
    "model__regions__queries": 4,
    "model__regions__layers": 1,
    "model__regions__width": 16,
    "model__regions__heads": 2,
    **{f"objectives__{name}__weight": 0.0 for name in ("filip", "multi_positive", "grouping")},
}


def gradient_of(settings, shape=(1, 1, 1), accumulate=1):
    graph, params = tiny_model(settings)
    batch = region_batch(settings)
    mesh = make_mesh(dict(zip(("data", "fsdp", "tensor"), shape, strict=True)), jax.devices()[: int(np.prod(shape))])
    with jax.set_mesh(mesh):
        placed = jax.device_put((params, batch), (state_sharding(params, mesh), batch_sharding(mesh)))
        step = jax.jit(lambda params, batch: loss_and_gradient(graph, params, batch, settings.objectives, accumulate))
        total, terms, gradient = step(*placed)
    return float(total), {name: float(term) for name, term in terms.items()}, leaves(gradient)


@pytest.mark.slow
def test_meshes_and_parts_give_the_same_gradient():
    settings = tiny_config(**REGIONS | OBJECTIVES)
    total, terms, gradient = gradient_of(settings)
    assert {name.split("__")[1] for name in OBJECTIVES if name.endswith("weight") and OBJECTIVES[name]} <= terms.keys()
    assert np.isfinite(total) and all(term > 0 for term in terms.values())
    learnt = [path for path, value in gradient.items() if np.abs(value).max() > 0]
    for part in (
        "queries/queries",
        "queries/nothing",
        "decoder/box/kernel",
        "decoder/inside",
        "attributes",
        "localiser",
    ):
        assert any(part in path for path in learnt), part
    for shape, accumulate in (((2, 2, 2), 1), ((4, 1, 2), 2)):
        other, also, moved = gradient_of(settings, shape, accumulate)
        np.testing.assert_allclose(other, total, rtol=1e-5)
        for name, value in terms.items():
            np.testing.assert_allclose(also[name], value, rtol=2e-5)
        for path, value in gradient.items():
            np.testing.assert_allclose(moved[path], value, rtol=1e-5, atol=2e-5, err_msg=path)


def test_without_weight_nothing_is_added():
    """No parameter, and not one operation."""
    batch = region_batch(tiny_config(**REGIONS))
    used = {name: batch[name] for name in ("image", "text", "subs", "target", "null")}
    steps = []
    for settings in (tiny_config(), tiny_config(data__regions__count=3)):
        graph, params = tiny_model(settings)
        traced = jax.make_jaxpr(lambda p, b, s=settings, g=graph: loss_and_gradient(g, p, b, s.objectives))(
            params, used
        )
        steps.append((sorted(leaves(params)), re.sub(r"0x[0-9a-f]+", "", str(traced))))
    assert steps[0] == steps[1]


def test_some_boxes_become_points():
    settings = tiny_config(**REGIONS)
    batch = region_batch(settings)
    boxes, cover = batch["boxes"], batch["cover"]
    made, marked = map(np.asarray, some_as_points(boxes, cover, 0.5, jax.random.key(0)))
    points = (made[..., :2] == made[..., 2:]).all(axis=-1)
    there = np.asarray(boxes).any(axis=-1)
    assert 0.2 < points[there].mean() < 0.8
    inside = (made[..., :2] >= np.asarray(boxes)[..., :2]) & (made[..., 2:] <= np.asarray(boxes)[..., 2:])
    assert inside.all() and np.array_equal(made[~points], np.asarray(boxes)[~points])
    assert np.array_equal(marked[~points], np.asarray(cover)[~points])
    told = points & there
    grid = int(cover.shape[2] ** 0.5)
    across, down = (np.minimum(made[told][:, axis] * grid, grid - 1).astype(int) for axis in (0, 1))
    assert (marked[told].sum(axis=1) == 1).all() and np.array_equal(marked[told].argmax(axis=1), down * grid + across)


@pytest.mark.slow
def test_points_are_told_to_the_captioner_alone():
    """The truth that queries learn is the same with and without points; what the captioner says is not."""
    settings = tiny_config(**REGIONS | OBJECTIVES)
    graph, params = tiny_model(settings)
    batch, losses = region_batch(settings), []
    for points in (0.0, 1.0):
        settings.objectives.region_caption.points = points
        seen = add_views(settings, batch, jax.random.key(0))
        losses.append(loss_and_gradient(graph, params, seen, settings.objectives)[1])
    same = {
        name: float(losses[0][name]) == float(losses[1][name]) for name in ("region_boxes", "region", "attribute_mil")
    }
    assert all(same.values()), same
    assert float(losses[0]["region_caption"]) != float(losses[1]["region_caption"])


def test_what_is_counted_of_regions():
    counts = region_numbers({"region_counts": np.array([[2, 1, 0], [4, 0, 3]])})
    assert {name: float(value) for name, value in counts.items()} == {
        "regions": 3.0, "regions_outside": 0.5, "regions_too_many": 1.5,
    }  # fmt: skip
    assert region_numbers({}) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives__region__weight": 1.0}, "data.regions.count"),
        (REGIONS | {"objectives__region_boxes__weight": 1.0}, "model.regions.queries"),
        ({"data__regions__count": 2, "objectives__region_caption__weight": 1.0}, "control.box or .mask"),
        (REGIONS | {"objectives__region__weight": 1.0, "model__image__drop_patches": 0.5}, "drop_patches"),
        (REGIONS | {"objectives__region__weight": 1.0, "model__image__pool": "queries"}, "no patches"),
        (REGIONS | {"model__decoder__memory": "embedding"}, "memory=tokens"),
        ({"data__regions__count": 2, "data__image__augment": "rand"}, "boxes do not follow"),
        (REGIONS | {"objectives__region_caption__weight": 1.0, "data__regions__length": 99}, "more than the captioner"),
        (REGIONS | {"objectives__attribute_mil__weight": 1.0, "data__regions__attributes": "a,b"}, "2 are named"),
        (REGIONS | {"objectives__attribute_mil__weight": 1.0, "data__regions__attributes": "a,A"}, "twice"),
        (REGIONS | {"objectives__region_hard__weight": 1.0}, "data.regions.negatives"),
        ({"objectives__same_class__weight": 1.0}, "data.captions.class_source"),
        ({"data__regions__count": 0, "objectives__sequence__weight": 1.0}, "data.regions.count"),
        ({"model__decoder__places": 8}, "set both alike"),
        ({"data__captions__places": 8}, "set config.data.regions.count"),
        ({"objectives__cycle__weight": 1.0}, "localiser=True"),
        ({"model__decoder__localiser": True, "model__decoder__memory": "embedding"}, "among patches"),
        ({"model__image__mask_prompt": 1}, "crops of regions"),
        ({"data__regions__crop": True}, "data.regions.count"),
        (REGIONS | {"objectives__region_caption__points": 0.5, "data__image__resize": "naflex"}, "square pictures"),
        ({"objectives__attribute_mil__weight": 1.0, "data__regions__attributes": "a,b"}, "data.regions.count"),
        ({"model__regions__width": 10, "model__regions__heads": 4}, "does not divide"),
    ],
)
def test_what_does_not_go_together_is_said(changes, said):
    with pytest.raises(ConfigError, match=said):
        check_config(tiny_config(**changes))


def test_data_without_regions_is_refused(tmp_path):
    settings = config(2)
    settings.data.regions.update({"count": 2, "sources": "nonsense"})
    settings.objectives.region.weight = 1.0
    with pytest.raises(DataError, match=r"none of .* records has one. Theirs are of the sources brief, compos"):
        train(settings, tmp_path)
