"""Encodings to scores: the late-interaction core, one function, one file a backend; and retrieval with it."""

from vlc.similarity.core import late_interaction
from vlc.similarity.max_sim import max_sim
from vlc.similarity.search import Found, find_images, find_texts, in_blocks

__all__ = ["Found", "find_images", "find_texts", "in_blocks", "late_interaction", "max_sim"]
