"""Which captioner is preferred: battles of two captions each, ratings of all, and win rates of equal length."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, log_expit

from vlc.errors import DataError
from vlc.evaluate.metrics.intervals import DRAWS

ELO = 400 / np.log(10)  # a rating's unit, so that 400 more wins ten times as often
PRIOR = 1e-4


class Battle(NamedTuple):
    """Two captions of one image, and which is preferred.

    Attributes:
        a: Who wrote one.
        b: Who wrote the other.
        won: 1: `a`; 0: `b`; 0.5: neither.
        longer: By how many words the caption of `a` is longer.
        image: Of what.
    """

    a: str
    b: str
    won: float
    longer: float = 0.0
    image: str = ""


@dataclass(frozen=True)
class Ratings:
    """What battles say.

    Attributes:
        names: Who, the best first.
        ratings: Their means are 1,000; 400 more wins ten times as often.
        low: Lower bounds of 95% intervals, over battles drawn again.
        high: Upper bounds.
        battles: How many each was in.
    """

    names: tuple[str, ...]
    ratings: Float[np.ndarray, " M"]
    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]
    battles: Int[np.ndarray, " M"]


def bradley_terry(battles: Sequence[Battle], *, draws: int = DRAWS // 5, seed: int = 0) -> Ratings:
    """Ratings by `P(i beats j) = sigmoid(t_i - t_j)` (Bradley and Terry, 1952; CapArena, arXiv 2503.12329, section 3).

    A draw is half a win for each; a prior of `1e-4 t^2` keeps who always wins finite; the mean of `t` is 0.

    Args:
        battles: In any order, which changes nothing.
        draws: How often battles are drawn again, for the intervals.
        seed: Of the draws.

    Raises:
        DataError: There is none; one is between a name and itself; or some names never met others, even by way of
            others, so that nothing can be said between them.
    """
    names, a, b, won = _as_arrays(battles)
    count = np.bincount(np.concatenate([a, b]), minlength=len(names))
    value = _fit(a, b, won, len(names))
    rng = np.random.default_rng(seed)
    again = []
    for _ in range(draws):
        rows = rng.integers(len(a), size=len(a))
        again.append(_fit(a[rows], b[rows], won[rows], len(names)))
    low, high = np.quantile(again, [0.025, 0.975], axis=0)
    order = np.argsort(-value, kind="stable")
    rating, lowest, highest = (1000 + ELO * some[order] for some in (value, low, high))
    return Ratings(tuple(names[i] for i in order), rating, lowest, highest, count[order])


def _as_arrays(battles: Sequence[Battle]) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    if not battles:
        raise DataError("There is no battle.")
    names = sorted({name for battle in battles for name in (battle.a, battle.b)})
    number = {name: i for i, name in enumerate(names)}
    for battle in battles:
        if battle.a == battle.b:
            raise DataError(f"A battle of {battle.image or 'some image'} is between {battle.a} and itself.")
    a, b = (np.array([number[getattr(x, side)] for x in battles]) for side in ("a", "b"))
    met = coo_matrix((np.ones(len(a)), (a, b)), shape=(len(names), len(names)))
    groups, label = connected_components(met, directed=False)
    if groups > 1:
        parts = [
            " ".join(name for name, one in zip(names, label, strict=True) if one == part) for part in range(groups)
        ]
        raise DataError(f"No battles join these groups, so that they cannot be rated together: {' | '.join(parts)}.")
    return names, a, b, np.array([battle.won for battle in battles], np.float64)


def _fit(a: np.ndarray, b: np.ndarray, won: np.ndarray, count: int) -> Float[np.ndarray, " M"]:
    def loss(t: np.ndarray) -> tuple[float, np.ndarray]:
        gap = t[a] - t[b]
        lost = -(won * log_expit(gap) + (1 - won) * log_expit(-gap)).sum() + PRIOR * (t**2).sum()
        pull = expit(gap) - won
        slope = np.bincount(a, pull, count) - np.bincount(b, pull, count) + 2 * PRIOR * t
        return float(lost), slope

    t = minimize(loss, np.zeros(count), jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-9}).x
    return t - t.mean()


def win_rates(battles: Sequence[Battle], baseline: str) -> dict[str, dict[str, float]]:
    """Of each other name against `baseline`: `win_rate`, and `length_controlled`, that of captions of equal length.

    A logistic regression of the wins on a constant and `tanh(longer / its deviation)`, read where none is longer
    (Dubois et al., 2024, arXiv 2404.04475, section 3, without its term for single instructions).

    Raises:
        DataError: Nobody met the baseline.
    """
    turned = [x if x.b == baseline else Battle(x.b, x.a, 1 - x.won, -x.longer, x.image) for x in battles
              if baseline in (x.a, x.b)]  # fmt: skip
    if not turned:
        raise DataError(f"{baseline} is in no battle; there are {', '.join(sorted({x.a for x in battles}))}.")
    rates = {}
    for name in sorted({battle.a for battle in turned}):
        own = [battle for battle in turned if battle.a == name]
        won, longer = (np.array([getattr(x, side) for x in own], np.float64) for side in ("won", "longer"))
        rates[name] = {"win_rate": float(won.mean()), "length_controlled": _at_equal_length(won, longer)}
    return rates


def _at_equal_length(won: np.ndarray, longer: np.ndarray) -> float:
    deviation = longer.std()
    by_length = np.tanh(longer / deviation) if deviation else np.zeros_like(longer)

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        gap = w[0] + w[1] * by_length
        pull = expit(gap) - won
        lost = -(won * log_expit(gap) + (1 - won) * log_expit(-gap)).sum() + PRIOR * (w**2).sum()
        return float(lost), np.array([pull.sum(), (pull * by_length).sum()]) + 2 * PRIOR * w

    return float(expit(minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x[0]))
