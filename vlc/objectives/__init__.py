"""Scores and encodings to loss terms: pure functions, each with its equation and source."""

from vlc.objectives.captioning import caption_loss
from vlc.objectives.combine import Encoded, encode_batch, total_loss
from vlc.objectives.contrastive import clip_loss, siglip_loss
from vlc.objectives.grouping import grouping_loss
from vlc.objectives.late_interaction import filip_loss
from vlc.objectives.multi_positive import multi_positive_loss

__all__ = [
    "Encoded", "caption_loss", "clip_loss", "encode_batch", "filip_loss", "grouping_loss", "multi_positive_loss",
    "siglip_loss", "total_loss",
]  # fmt: skip
