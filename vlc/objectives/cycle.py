"""Captions that are reconstructed from where their words are found: grounding that nobody labelled.

Cyclical training (Ma et al., ECCV 2020, arXiv 1906.00283): the captioner writes; each word that it would write is
looked up in the picture (`Localiser`); and from what is found there, without the picture, the caption is written once
more. So a word must be found where it can be told again from. The paper weighs both losses alike (0.5 each); the
localiser is of no use afterwards.
"""

from typing import Any

from jaxtyping import Array

from vlc.models import Scales
from vlc.objectives.base import Encoded, Objective, Weighted
from vlc.objectives.captioning import average_nll


class Cycle(Weighted):
    """Cross-entropy of captions that are reconstructed from where their words are found."""


def _loss(encoded: Encoded, _: Scales, options: Any) -> Array:
    del options
    return average_nll(encoded.cycle_nll, encoded.caption_count, "token")


CYCLE = Objective("cycle", Cycle, ("caption", "cycle"), _loss)
