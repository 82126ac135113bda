"""A caption among wrong ones: pair by pair, all pairs of a group at once, and among all (TemporalBench)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vlc.errors import DataError


def choice_figures(
    right: Float[np.ndarray, " P"], wrong: Sequence[Float[np.ndarray, " N"]], groups: Sequence[str]
) -> dict[str, float]:
    """Accuracies of a scorer; ties are wrong.

    `binary`: of pairs of a right and a wrong caption. `multiple_binary`: of groups in which every pair is right, whose
    chance is `.5^n`. `n_way`: of right captions above all their wrong ones, whose chance is `1 / (1 + n)`; it is
    biased towards what lies in the middle of the choices, which nobody needs a picture for (Cai et al., 2024, arXiv
    2410.10818, section 3.3). `chance_*`: those of a scorer that draws.

    Args:
        right: Scores of the right captions.
        wrong: Of each, those of its wrong ones, at least one.
        groups: To which group each belongs: the questions about one picture.

    Raises:
        DataError: A caption has no wrong one.
    """
    for group, some in zip(groups, wrong, strict=True):
        if not len(some):
            raise DataError(f"{group}: a right caption without wrong ones is no choice.")
    won = [own > np.asarray(some) for own, some in zip(right, wrong, strict=True)]
    of_group: dict[str, list[bool]] = {}
    for group, answers in zip(groups, won, strict=True):
        of_group.setdefault(group, []).extend(answers.tolist())
    return {
        "binary": float(np.mean(np.concatenate(won))),
        "multiple_binary": float(np.mean([all(answers) for answers in of_group.values()])),
        "n_way": float(np.mean([answers.all() for answers in won])),
        "chance_binary": 0.5,
        "chance_multiple_binary": float(np.mean([0.5 ** len(answers) for answers in of_group.values()])),
        "chance_n_way": float(np.mean([1 / (1 + len(answers)) for answers in won])),
    }


def blind_scores(
    right: Float[np.ndarray, "D"], wrong: Float[np.ndarray, "N D"]
) -> tuple[float, Float[np.ndarray, " N"]]:
    """Scores of somebody who sees no picture: the mean cosine of each choice with the others.

    Args:
        right: Unit embedding of the right caption.
        wrong: Of the wrong ones.
    """
    every = np.concatenate([right[None], wrong])
    near = every @ every.T
    middle = (near.sum(axis=1) - near.diagonal()) / max(len(every) - 1, 1)
    return float(middle[0]), middle[1:]
