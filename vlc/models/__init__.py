"""Batches to encodings: towers, projections and the caption decoder, as Flax NNX modules."""

from vlc.models.dual_encoder import DualEncoder, ImageEncoding, Scales, TextEncoding

__all__ = ["DualEncoder", "ImageEncoding", "Scales", "TextEncoding"]
