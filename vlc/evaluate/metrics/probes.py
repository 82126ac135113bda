"""Probes of frozen features: a linear classifier and the nearest neighbours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize

NEIGHBOURS, TEMPERATURE = 20, 0.07
_STRENGTHS = tuple(10.0**power for power in range(-6, 3))  # of the penalty, tried on a part of the training images
_HELD_OUT = 5  # one image in so many chooses the penalty
_STEPS = 300
_QUERIES = 1024

Features = Float[np.ndarray, "N D"]
Labels = Int[np.ndarray, " N"]


def knn_scores(train: Features, labels: Labels, queries: Features, classes: int) -> Float[np.ndarray, "Q classes"]:
    """Votes of the 20 nearest by cosine, each with weight exp(cosine / 0.07) (Wu et al., CVPR 2018, section 3.4)."""
    count = min(NEIGHBOURS, len(train))
    one_hot = np.eye(classes, dtype=np.float32)[labels]
    votes = []
    for start in range(0, len(queries), _QUERIES):
        cosines, places = (np.asarray(x) for x in _nearest(queries[start : start + _QUERIES], train, count))
        votes.append(np.einsum("qk,qkc->qc", np.exp((cosines - 1) / TEMPERATURE), one_hot[places]))
    return np.concatenate(votes)


@functools.partial(jax.jit, static_argnames="count")
def _nearest(queries: jax.Array, train: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    return jax.lax.top_k(jnp.matmul(queries, train.T, precision="highest"), count)


def linear_scores(
    train: Features, labels: Labels, queries: Features, classes: int
) -> tuple[Float[np.ndarray, "Q classes"], float]:
    """Multinomial logistic regression with an L2 penalty, by L-BFGS (CLIP, section 3.2).

    The penalty is chosen on every fifth training image; the classifier is then fitted to all of them.

    Returns:
        Scores, and the penalty.
    """
    held_out = np.arange(len(train)) % _HELD_OUT == 0
    best, strength = -1.0, _STRENGTHS[0]
    if held_out.any() and len(np.unique(labels[~held_out])) > 1:
        weights = None
        for one in reversed(_STRENGTHS):  # each starts from the solution for a stronger penalty
            weights = _fit(train[~held_out], labels[~held_out], classes, one, weights)
            right = float((_apply(weights, train[held_out]).argmax(axis=1) == labels[held_out]).mean())
            if right > best:
                best, strength = right, one
    return _apply(_fit(train, labels, classes, strength, None), queries), strength


def _apply(weights: np.ndarray, features: Features) -> np.ndarray:
    return features @ weights[:-1] + weights[-1]


def _fit(features: Features, labels: Labels, classes: int, strength: float, start: np.ndarray | None) -> np.ndarray:
    """Weights `[D + 1, classes]`, the bias last; the bias is not penalised."""
    shape = (features.shape[1] + 1, classes)
    first = np.zeros(shape, np.float32) if start is None else start
    x, y = jnp.asarray(features), jnp.asarray(labels)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _loss(jnp.asarray(flat, jnp.float32).reshape(shape), x, y, strength)
        return float(value), np.asarray(gradient, np.float64).ravel()

    found = minimize(loss, first.ravel().astype(np.float64), jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    return found.x.reshape(shape).astype(np.float32)


@jax.jit
@jax.value_and_grad
def _loss(weights: jax.Array, features: jax.Array, labels: jax.Array, strength: float) -> jax.Array:
    logits = jnp.matmul(features, weights[:-1], precision="highest") + weights[-1]
    right = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -right.mean() + strength / 2 * jnp.sum(weights[:-1] ** 2)
