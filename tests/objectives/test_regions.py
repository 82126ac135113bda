"""Objectives of regions against their equations, in plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests import oracle
from tests.conftest import unit_rows
from tests.oracle import log_softmax, numerical_gradient
from vlc.data.boxes import box_iou
from vlc.errors import ConfigError
from vlc.objectives.attribute_mil import attribute_mil_loss, best_of_regions
from vlc.objectives.region_queries import match, query_loss
from vlc.objectives.regions import region_contrastive_loss


def ragged(rng, rows=3, count=4, width=5):
    regions, texts = (unit_rows(rng, rows, count, width).astype(np.float64) for _ in range(2))
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], float)
    ids = rng.integers(0, 9999, (rows, count, 3)).astype(float)
    return regions, texts, mask, ids


def expected_contrastive(regions, texts, mask, scale, negatives, ids):
    """By the definition, a region at a time."""
    places = [place for place in itertools.product(*map(range, mask.shape)) if mask[place]]
    lost = []
    for own in places:

        def may(other, own=own):
            return other == own or (ids[other] != ids[own]).any()

        others = [p for p in places if (negatives == "batch" or p[0] == own[0]) and may(p)]
        right = scale * regions[own] @ texts[own]
        by_text = np.log(sum(np.exp(scale * regions[own] @ texts[p]) for p in others))
        by_region = np.log(sum(np.exp(scale * regions[p] @ texts[own]) for p in others))
        lost.append(0.5 * (by_text + by_region) - right)
    return float(np.mean(lost)) if lost else 0.0


@pytest.mark.parametrize("negatives", ["batch", "image"])
@pytest.mark.parametrize("equal", [False, True])
def test_value_and_gradient_of_regions_and_texts(negatives, equal, rng):
    regions, texts, mask, ids = ragged(rng)
    if equal:
        ids[0, 1], ids[1, 0] = ids[0, 0], ids[0, 0]

    def loss(x):
        return region_contrastive_loss(x, texts, mask, 9.0, negatives=negatives, ids=ids)

    wanted = expected_contrastive(regions, texts, mask, 9.0, negatives, ids)
    np.testing.assert_allclose(loss(regions), wanted, rtol=1e-5)
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(regions)))
    assert np.isfinite(gradient).all() and not gradient[mask == 0].any()  # of what is not there: exactly none
    numeric = numerical_gradient(lambda x: expected_contrastive(x, texts, mask, 9.0, negatives, ids), regions)
    np.testing.assert_allclose(gradient, numeric, atol=2e-4)
    other = region_contrastive_loss(
        jnp.where(mask[..., None] > 0, regions, 3.0), texts, mask, 9.0, negatives=negatives, ids=ids
    )
    assert other == loss(regions)


def test_regions_of_no_image_and_of_one(rng):
    regions, texts, mask, _ = ragged(rng)
    nothing = jax.value_and_grad(lambda x: region_contrastive_loss(x, texts, 0 * mask, 9.0))(jnp.asarray(regions))
    assert nothing[0] == 0 and not np.asarray(nothing[1]).any()
    one = unit_rows(rng, 6, 1, 5)
    other = unit_rows(rng, 6, 1, 5)
    alone = region_contrastive_loss(one, other, np.ones((6, 1)), 9.0)
    np.testing.assert_allclose(alone, oracle.clip(one[:, 0], other[:, 0], 9.0), rtol=1e-5)
    assert abs(region_contrastive_loss(one, other, np.ones((6, 1)), 9.0, negatives="image")) < 1e-6
    with pytest.raises(ConfigError, match="negatives"):
        region_contrastive_loss(one, other, np.ones((6, 1)), 9.0, negatives="all")


def test_overlap_of_boxes_by_counting(rng):
    boxes = np.sort(rng.random((2, 12, 2, 2)), axis=2).reshape(2, 12, 4)
    points = (np.arange(400) + 0.5) / 400

    def inside(box):
        return ((points >= box[1]) & (points < box[3]))[:, None] & ((points >= box[0]) & (points < box[2]))[None]

    iou, giou = box_iou(jnp.asarray(boxes[0]), jnp.asarray(boxes[1]))
    for i in range(12):
        a, b = inside(boxes[0, i]), inside(boxes[1, i])
        around = inside([*np.minimum(boxes[0, i, :2], boxes[1, i, :2]), *np.maximum(boxes[0, i, 2:], boxes[1, i, 2:])])
        union = (a | b).sum()
        np.testing.assert_allclose(iou[i], (a & b).sum() / union, atol=0.03)
        np.testing.assert_allclose(giou[i], (a & b).sum() / union - (around.sum() - union) / around.sum(), atol=0.03)
    same = jnp.asarray([0.1, 0.1, 0.5, 0.6])
    np.testing.assert_allclose(box_iou(same, same), (1, 1), rtol=1e-6)
    gradient = jax.grad(lambda x: box_iou(x, x[::-1])[1].sum())(jnp.zeros(4))
    assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.parametrize(("queries", "regions"), [(5, 3), (3, 5), (4, 4)])
def test_the_cheapest_match(queries, regions, rng):
    cost = rng.random((6, queries, regions)).astype(np.float32)
    there = rng.random((6, regions)) < 0.7
    found = np.asarray(jax.jit(match)(jnp.asarray(cost), jnp.asarray(there)))
    for row in range(6):
        own = np.flatnonzero(there[row])
        a, b = linear_sum_assignment(cost[row][:, own])
        matched = np.flatnonzero(found[row] >= 0)
        assert set(matched) <= set(own) and len(matched) == len(a) == len(set(found[row][matched]))
        np.testing.assert_allclose(
            cost[row][found[row][matched], matched].sum(), cost[row][:, own][a, b].sum(), rtol=1e-5
        )


def expected_queries(boxes, embeds, nothing, truth, texts, mask, scale, ids):
    columns = []  # a text once
    for place in itertools.product(*map(range, mask.shape)):
        if mask[place] and not any((ids[place] == ids[other]).all() for other in columns):
            columns.append(place)
    l1, giou_lost, chosen = [], [], []
    for b in range(len(mask)):
        logits = np.array([[scale * q @ nothing, *(scale * q @ texts[c] for c in columns)] for q in embeds[b]])
        share = log_softmax(logits, 1)
        own = np.flatnonzero(mask[b])
        column = [1 + next(i for i, c in enumerate(columns) if (ids[c] == ids[b, r]).all()) for r in own]
        apart = np.abs(boxes[b][:, None] - truth[b, own][None]).sum(axis=2)
        overlap = np.array(
            [[float(box_iou(jnp.asarray(q), jnp.asarray(t))[1]) for t in truth[b, own]] for q in boxes[b]]
        )
        overlap = overlap.reshape(apart.shape)
        rows, places = linear_sum_assignment(-np.exp(share[:, column]) + apart + 1 - overlap)
        l1 += list(apart[rows, places])
        giou_lost += list(1 - overlap[rows, places])
        target = np.zeros(len(boxes[b]), int)
        target[rows] = np.array(column, int)[places]
        chosen += [-share[q, target[q]] for q in range(len(boxes[b]))]
    return np.mean(l1), np.mean(giou_lost), np.mean(chosen)


def test_what_queries_find_and_say(rng):
    _, texts, mask, ids = ragged(rng)
    ids[1, 0] = ids[0, 0]
    texts[1, 0] = texts[0, 0]
    boxes = np.sort(rng.random((3, 6, 2, 2)), axis=2).reshape(3, 6, 4)
    truth = np.sort(rng.random((3, 4, 2, 2)), axis=2).reshape(3, 4, 4)
    embeds, nothing = unit_rows(rng, 3, 6, 5), unit_rows(rng, 5)
    arguments = boxes, embeds, nothing, truth, texts, mask, 7.0
    wanted = expected_queries(*arguments, ids)
    np.testing.assert_allclose(jax.jit(query_loss)(*arguments, ids=ids), wanted, rtol=1e-4)

    def total(boxes, texts):
        return sum(query_loss(boxes, embeds, nothing, truth, texts, mask, 7.0, ids=ids))

    by_box, by_text = jax.jit(jax.grad(total, argnums=(0, 1)))(jnp.asarray(boxes), jnp.asarray(texts))
    assert np.isfinite(np.asarray(by_box)).all() and not np.asarray(by_text)[mask == 0].any()
    empty = query_loss(boxes, embeds, nothing, truth, texts, 0 * mask, 7.0, ids=ids)
    np.testing.assert_allclose(empty, (0, 0, 0), atol=1e-6)  # all choose nothing, of which there is one


def test_the_best_region_speaks_for_its_picture(rng):
    scores, there = rng.normal(size=(4, 3, 5)) * 0.3, np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]], float)
    best = np.asarray(best_of_regions(jnp.asarray(scores), there))
    wanted = [[scores[i, there[i] > 0, a].max() if there[i].any() else -1.0 for a in range(5)] for i in range(4)]
    np.testing.assert_allclose(best, wanted, rtol=1e-6)
    present = np.array([[1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 1, 1, 1]], float)
    lost = []
    for i, a in itertools.product(range(4), range(5)):
        if present[i, a]:
            own = np.exp(best[i, a] / 0.07)
            lost.append(-np.log(own / (own + sum(np.exp(best[j, a] / 0.07) for j in range(4) if not present[j, a]))))
    np.testing.assert_allclose(attribute_mil_loss(best, present), np.mean(lost), rtol=1e-4)
    gradient = jax.grad(lambda x: attribute_mil_loss(best_of_regions(x, there), present))(jnp.asarray(scores))
    assert np.isfinite(np.asarray(gradient)).all() and not np.asarray(gradient)[there == 0].any()
    assert attribute_mil_loss(best, 0 * present) == 0 and abs(attribute_mil_loss(best, 0 * present + 1)) < 1e-6
