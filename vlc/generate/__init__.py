"""Captions from images: cached decoding, search, and guidance."""

from vlc.generate.beam import beam
from vlc.generate.guidance import Guided, LanguageModel, NextWord, NullCaptioner, StopAt
from vlc.generate.options import Search
from vlc.generate.sampling import row_keys, write
from vlc.generate.written import Written

__all__ = [
    "Guided", "LanguageModel", "NextWord", "NullCaptioner", "Search", "StopAt", "Written", "beam", "row_keys", "write"
]  # fmt: skip
