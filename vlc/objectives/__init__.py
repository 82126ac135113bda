"""Scores and encodings to loss terms: pure functions, each with its equation and source."""

from vlc.objectives.base import Encoded, Objective
from vlc.objectives.captioning import caption_loss
from vlc.objectives.combine import (
    OBJECTIVES,
    compared_by,
    encode_batch,
    one_way,
    parts_used,
    total_loss,
    weighted,
)
from vlc.objectives.contrastive import clip_loss, siglip_loss
from vlc.objectives.grouping import grouping_loss
from vlc.objectives.late_interaction import filip_loss
from vlc.objectives.multi_positive import multi_positive_loss
from vlc.objectives.regions import region_contrastive_loss

__all__ = [
    "OBJECTIVES",
    "Encoded",
    "Objective",
    "caption_loss",
    "clip_loss",
    "compared_by",
    "encode_batch",
    "filip_loss",
    "grouping_loss",
    "multi_positive_loss",
    "one_way",
    "parts_used",
    "region_contrastive_loss",
    "siglip_loss",
    "total_loss",
    "weighted",
]  # fmt: skip
