"""Encodings to scores: the late-interaction core, one function, one file a backend."""

from vlc.similarity.core import late_interaction

__all__ = ["late_interaction"]
