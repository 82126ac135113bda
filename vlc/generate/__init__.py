"""Captions from images: cached decoding and classifier-free guidance."""

from vlc.generate.greedy import greedy

__all__ = ["greedy"]
