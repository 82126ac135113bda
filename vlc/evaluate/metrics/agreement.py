"""How well a figure orders captions as people do."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from vlc.errors import DataError


def agreement(figure: Float[np.ndarray, " N"], human: Float[np.ndarray, " N"]) -> dict[str, float]:
    """Kendall's tau-b and tau-c, Spearman's and Pearson's correlations, and of how many captions.

    Flickr8k-Expert is published by tau-c, CrowdFlower by tau-b (Hodosh et al., 2013; CLIPScore, arXiv 2104.08718,
    section 4.1). Captions that either side has no value of are left out.

    Raises:
        DataError: Fewer than three captions have both, or one side says the same of all.
    """
    known = ~(np.isnan(figure) | np.isnan(human))
    one, other = figure[known], human[known]
    if known.sum() < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        raise DataError(
            f"{int(known.sum())} captions have both a figure and a judgement, and each must take two values at least."
        )
    found: dict[str, Any] = {
        "tau_b": stats.kendalltau(one, other, variant="b"),
        "tau_c": stats.kendalltau(one, other, variant="c"),
        "spearman": stats.spearmanr(one, other),
        "pearson": stats.pearsonr(one, other),
    }
    return {name: float(result.statistic) for name, result in found.items()} | {"captions": float(known.sum())}
