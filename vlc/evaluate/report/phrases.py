"""Where the phrases of a caption are found in its picture, to be drawn by `figures.word_maps`."""

from typing import Any

import numpy as np

from vlc.data.images import Preprocess
from vlc.data.record import Record
from vlc.data.sources.scenes import language
from vlc.data.tokenizers import Tokenizer

_WORDS = 5  # of a caption that says nothing of its phrases


def phrase_maps(
    record: Record, caption: str, maps: np.ndarray, tokenizer: Tokenizer, preprocess: Preprocess
) -> dict[str, Any]:
    """A heat map for each named object of a scene, or for the longest words of another caption.

    Args:
        record: The picture's.
        caption: One of its captions.
        maps: Similarity of each piece of the caption with each patch, `[pieces, rows, columns]`.
        tokenizer: The model's.
        preprocess: The model's.

    Returns:
        `image`, and `maps`: pairs of a phrase and the map of its last token.
    """
    spans = tokenizer.spans(caption)
    pictures = []
    for start, end in _phrases(record, caption):
        tokens = [i for i, (a, b) in enumerate(spans) if a < end and b > start and i < len(maps)]
        if tokens:
            pictures.append((caption[start:end], maps[tokens[-1]]))
    return {"image": preprocess.picture(preprocess(record.image)), "maps": pictures}


def _phrases(record: Record, caption: str) -> list[tuple[int, int]]:
    """Where in the caption they begin and end."""
    if "scene" in record.extra:
        described = language.long_caption(record.extra["scene"], record.extra["style"])
        first = {phrase.index: phrase for phrase in reversed(described.phrases)}
        return [(phrase.start, phrase.end) for phrase in sorted(first.values(), key=lambda p: p.start)]
    words = sorted(set(caption.split()), key=len, reverse=True)[:_WORDS]
    return sorted((caption.index(word), caption.index(word) + len(word)) for word in words)
