"""Captions from images: cached decoding, search, and guidance."""

from vlc.generate.beam_search import beam_search
from vlc.generate.guidance import GuidanceWeights, LanguageModel, NextToken, StopAt, UnconditionalCaptioner
from vlc.generate.options import DecodingOptions
from vlc.generate.output import GenerateOutput
from vlc.generate.sampling import sample, sampling_keys

__all__ = [
    "DecodingOptions",
    "GenerateOutput",
    "GuidanceWeights",
    "LanguageModel",
    "NextToken",
    "StopAt",
    "UnconditionalCaptioner",
    "beam_search",
    "sample",
    "sampling_keys"
]  # fmt: skip
