"""Text to ids: one interface over SentencePiece models, `tokenizer.json` files and CLIP's byte pairs."""

import os
from collections.abc import Mapping
from typing import Any

from vlc.data.tokenizers.base import Rules, Tokenizer, saved_parts
from vlc.data.tokenizers.json_file import JsonTokenizer, clip_tokenizer, read_merges
from vlc.data.tokenizers.sentence_piece import OWN_RULES, SentencePiece
from vlc.errors import CheckpointError, DataError
from vlc.storage import read_bytes

__all__ = [
    "JsonTokenizer",
    "Rules",
    "SentencePiece",
    "Tokenizer",
    "clip_tokenizer",
    "load_tokenizer",
    "read_merges",
    "tokenizer_from_json",
]


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Reads a SentencePiece `.model` or a `tokenizer.json`.

    Raises:
        DataError: The file cannot be read or is neither.
    """
    try:
        data = read_bytes(path)
    except DataError as error:
        raise DataError(f"The tokenizer: {error} Train one with: vlc data tokenizer SOURCE --out FILE") from error
    return JsonTokenizer(data, Rules()) if str(path).endswith(".json") else SentencePiece(data)


def tokenizer_from_json(saved: Mapping[str, Any]) -> Tokenizer:
    """Undoes `Tokenizer.to_json`.

    Raises:
        CheckpointError: It is damaged or of a kind that this version does not know.
    """
    model, rules = saved_parts(saved)
    try:
        known = None if rules is None else Rules(**rules)
    except TypeError as error:
        raise CheckpointError(f"The saved tokenizer does not fit this version: {error}.") from error
    if saved.get("kind") == JsonTokenizer.kind:
        return JsonTokenizer(model, known or Rules())
    if saved.get("kind") == SentencePiece.kind:
        return SentencePiece(model, known or OWN_RULES)  # checkpoints of the first versions have no rules
    raise CheckpointError(
        f"The saved tokenizer is of the kind {saved.get('kind')!r}, which this version does not know."
    )
