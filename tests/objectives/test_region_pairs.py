"""Classes, wrong texts and realigned sentences of regions, against their equations in plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import oracle
from tests.conftest import unit_rows
from tests.oracle import numerical_gradient
from vlc.errors import ConfigError
from vlc.objectives.duplicates import class_digests
from vlc.objectives.region_hard import region_hard_loss
from vlc.objectives.same_class import same_class_loss
from vlc.objectives.sequence import paragraph_scores, realigned, sequence_loss


def expected_same_class(a, b, same, scale, there, reduction):
    rows = np.flatnonzero(there)
    logits = scale * a @ b.T
    lost = []
    for i in rows:
        right = [j for j in rows if same[i, j] or j == i]
        by_b = [logits[i, j] - np.log(sum(np.exp(logits[i, k]) for k in rows)) for j in right]
        by_a = [logits[j, i] - np.log(sum(np.exp(logits[k, i]) for k in rows)) for j in right]
        # of row i: its positives among the columns; of column i: its positives among the rows
        lost.append((-np.mean(by_b), -np.mean(by_a)))
    both = np.sum(lost, axis=1)
    return float(both.mean() if reduction == "sum" else both.mean() / 2)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_all_texts_of_a_class_are_right(reduction, rng):
    a, b = unit_rows(rng, 6, 5).astype(np.float64), unit_rows(rng, 6, 5).astype(np.float64)
    classes = np.array([0, 1, 0, 0, 1, 2])
    same, there = classes[:, None] == classes[None], np.array([1, 1, 1, 0, 1, 1.0])

    def loss(x):
        return same_class_loss(x, b, same, 7.0, there=there, reduction=reduction)

    def wanted(x):
        return expected_same_class(x, b, same, 7.0, there, reduction)

    np.testing.assert_allclose(loss(a), wanted(a), rtol=1e-5)
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(a)))
    np.testing.assert_allclose(gradient, numerical_gradient(wanted, a), atol=2e-4)
    assert not gradient[3].any()


def test_where_all_classes_differ_it_is_clips_loss(rng):
    a, b = unit_rows(rng, 6, 5), unit_rows(rng, 6, 5)
    for reduction in ("sum", "mean"):
        found = same_class_loss(a, b, np.eye(6, dtype=bool), 7.0, reduction=reduction)
        np.testing.assert_allclose(found, oracle.clip(a, b, 7.0, reduction=reduction), rtol=1e-5)
    assert same_class_loss(a, b, np.eye(6, dtype=bool), 7.0, there=np.zeros(6)) == 0
    with pytest.raises(ConfigError, match="reduction"):
        same_class_loss(a, b, np.eye(6, dtype=bool), 7.0, reduction="max")


def test_numbers_of_classes():
    ids = np.asarray(class_digests(jnp.array([5, -1, 5, 7, 2**31 - 1])))
    assert (ids[0] == ids[2]).all() and not (ids[0] == ids[3]).all() and (ids[1] == -1).all() and (ids[4] >= 0).all()


def test_wrong_texts_of_regions(rng):
    regions, texts = unit_rows(rng, 3, 4, 5).astype(np.float64), unit_rows(rng, 3, 4, 5).astype(np.float64)
    hard = unit_rows(rng, 3, 4, 2, 5).astype(np.float64)
    there = np.ones((3, 4, 2))
    there[0, 1, 1], there[1] = 0, 0

    def wanted(x):
        lost = []
        for place in np.ndindex(3, 4):
            wrong = [6 * x[place] @ hard[place][h] for h in range(2) if there[place][h]]
            if wrong:
                own = 6 * x[place] @ texts[place]
                lost.append(np.log(np.exp([own, *wrong]).sum()) - own)
        return float(np.mean(lost))

    def loss(x):
        return region_hard_loss(x, texts, hard, there, 6.0)

    np.testing.assert_allclose(loss(regions), wanted(regions), rtol=1e-5)
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(regions)))
    np.testing.assert_allclose(gradient, numerical_gradient(wanted, regions), atol=2e-4)
    nothing = jax.value_and_grad(lambda x: region_hard_loss(x, texts, hard, 0 * there, 6.0))(jnp.asarray(regions))
    assert nothing[0] == 0 and not np.asarray(nothing[1]).any()


def plain_plan(scores, rows, columns, bucket, smoothness, iterations):
    """By probabilities, of what is there alone; the bucket is the last row and column."""
    some = scores[np.ix_(rows > 0, columns > 0)].astype(np.float64)
    if bucket is not None:
        some = np.pad(some, ((0, 1), (0, 1)), constant_values=bucket)
    kernel = np.exp(some / smoothness)
    u, v = np.ones(kernel.shape[0]), np.ones(kernel.shape[1])
    for _ in range(iterations):
        u = 1 / kernel.shape[0] / (kernel @ v)
        v = 1 / kernel.shape[1] / (kernel.T @ u)
    plan = u[:, None] * kernel * v
    full = np.zeros(scores.shape)
    full[np.ix_(rows > 0, columns > 0)] = plan if bucket is None else plan[:-1, :-1]
    return full


@pytest.mark.parametrize("bucket", [None, 0.2])
def test_the_plan_of_regions_and_texts(bucket, rng):
    scores = rng.uniform(-1, 1, (4, 5)).astype(np.float32)
    rows, columns = np.array([1, 1, 0, 1.0]), np.array([1, 1, 1, 1, 0.0])
    found = np.asarray(realigned(scores, rows, columns, bucket, smoothness=0.3, iterations=50))
    np.testing.assert_allclose(found, plain_plan(scores, rows, columns, bucket, 0.3, 50), atol=1e-6)
    if bucket is None:
        np.testing.assert_allclose(found.sum(axis=0)[:4], 1 / 4, atol=1e-6)  # columns are scaled last
    assert not np.asarray(realigned(scores, 0 * rows, columns, bucket)).any()
    assert np.isfinite(np.asarray(realigned(50 * scores, rows, columns, bucket, smoothness=0.01))).all()


def test_the_bucket_takes_what_has_no_partner():
    scores = np.eye(3) * 0.9
    scores[2] = -0.5  # the third region is like nothing that is said
    with_bucket = np.asarray(realigned(scores, np.ones(3), np.ones(3), 0.3, smoothness=0.1))
    without = np.asarray(realigned(scores, np.ones(3), np.ones(3), None, smoothness=0.1))
    assert with_bucket[2].sum() < 0.01 < 0.3 < without[2].sum()
    assert with_bucket[0, 0] > 0.2 and with_bucket[1, 1] > 0.2


@pytest.mark.parametrize("quantile", [0.0, 0.3])
def test_scores_of_pictures_and_paragraphs(quantile, rng):
    regions, texts = unit_rows(rng, 3, 4, 5).astype(np.float64), unit_rows(rng, 3, 4, 5).astype(np.float64)
    rows = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0.0]])
    columns = np.array([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0.0]])
    aligned = np.einsum("brd,brd->br", regions, texts)[(rows * columns) > 0]
    bucket = np.quantile(aligned, quantile) if quantile else None
    plans = {(i, j): plain_plan(regions[i] @ texts[j].T, rows[i], columns[j], bucket, 0.2, 50)
             for i in range(2) for j in range(2)}  # fmt: skip

    def wanted(x):
        """The plans are constants: no gradient is taken of them."""
        return np.array([[(plans[i, j] * (x[i] @ texts[j].T)).sum() for j in range(2)] for i in range(2)])

    def scores(x):
        return paragraph_scores(x, texts, rows, columns, smoothness=0.2, quantile=quantile)

    found = np.asarray(scores(regions))
    np.testing.assert_allclose(found[:2, :2], wanted(regions), atol=1e-5)
    assert not found[2].any() and not found[:, 2].any()

    def loss(x):
        return sequence_loss(scores(x), rows.max(axis=1), 4.0)

    def wanted_loss(x):
        logits = 4 * wanted(x)
        log_probs = [logits - np.log(np.exp(logits).sum(axis=axis, keepdims=True)) for axis in (0, 1)]
        return float(-0.5 * np.mean([np.diag(log_probs[0]) + np.diag(log_probs[1])]))

    np.testing.assert_allclose(loss(regions), wanted_loss(regions), rtol=1e-4)
    gradient = np.asarray(jax.grad(loss)(jnp.asarray(regions)))
    np.testing.assert_allclose(gradient, numerical_gradient(wanted_loss, regions), atol=3e-4)
    assert not gradient[2].any() and np.isfinite(gradient).all()
