"""Bootstrap intervals: how far a figure moves when the images are drawn again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

DRAWS = 1000


@dataclass(frozen=True)
class Figure:
    """A figure over images.

    Attributes:
        value: Over all of them.
        over: Its value over some of the images, each as often as it is named; `None`: it has no interval.
        by_image: That of each image, NaN where it has none; `None`: it is no mean over images.
    """

    value: float
    over: Callable[[Int[np.ndarray, " N"]], float] | None = None
    by_image: Float[np.ndarray, " N"] | None = None

    @classmethod
    def mean(cls, by_image: Float[np.ndarray, " N"]) -> "Figure":
        """The mean of a figure of each image."""
        kept = np.asarray(by_image, np.float64)
        return cls(float(kept.mean()), lambda rows: float(kept[rows].mean()), kept)

    @classmethod
    def where_known(cls, by_image: Float[np.ndarray, " N"]) -> "Figure":
        """The mean over the images that have a value; NaN where none has."""
        kept = np.asarray(by_image, np.float64)

        def over(rows: Int[np.ndarray, " M"]) -> float:
            known = kept[rows][~np.isnan(kept[rows])]
            return float(known.mean()) if known.size else float("nan")

        return cls(over(np.arange(len(kept))), over, kept)

    @classmethod
    def ratio(cls, hits: Sequence[float], answers: Sequence[int]) -> "Figure":
        """The share of answers that are hits, where an image has several: all or none of them are drawn.

        Args:
            hits: Of each image.
            answers: Likewise, one or more.
        """
        some, all_of = np.asarray(hits, np.float64), np.asarray(answers, np.float64)
        return cls(float(some.sum() / all_of.sum()), lambda rows: float(some[rows].sum() / all_of[rows].sum()))


def interval(
    figure: Figure, images: int, *, draws: int = DRAWS, share: float = 0.95, seed: int = 0
) -> tuple[float, float] | None:
    """The middle `share` of a figure's values over images drawn with replacement (Efron's percentile interval).

    The same draws for every figure, so that those of two systems on the same images can be compared.

    Args:
        figure: What is drawn again.
        images: How many there are.
        draws: How often.
        share: Of the values that lie within.
        seed: Of the draws.

    Returns:
        The bounds, or `None` where the figure has none.
    """
    if figure.over is None or np.isnan(figure.value):
        return None
    rng = np.random.default_rng(seed)
    values = [figure.over(rng.integers(images, size=images)) for _ in range(draws)]
    low, high = np.nanquantile(values, [(1 - share) / 2, (1 + share) / 2])
    return float(low), float(high)
