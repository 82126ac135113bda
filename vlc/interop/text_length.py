"""The same model for longer texts: position embeddings stretched, `at_length`."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from vlc.errors import CheckpointError, ConfigError
from vlc.interop.load import Imported, abstract_params, fill, paths_of
from vlc.settings import is_whole

_POSITIONS = "text_tower/embed/positions"


def at_length(imported: Imported, length: int, kept: int = 20) -> Imported:
    """The model with a text tower for longer texts.

    Texts as short as before have nearly the positions that they had: CLIP learnt from texts of about 20 tokens, so the
    first positions stay, and those after them are stretched (Long-CLIP, Zhang et al., ECCV 2024, arXiv 2403.15378,
    section 3.2: 77 to 248 with 20 kept). It is a start for training on long captions, not a model of long texts yet.

    Args:
        imported: With a text tower.
        length: Tokens of a text, marks included; at least as many as before.
        kept: Positions that stay as they are.

    Raises:
        ConfigError: `length` or `kept` is no whole number, or out of range.
        CheckpointError: There is no text tower, or its positions are not a table of one row a token.
    """
    if not imported.config.model.text.layers:
        raise CheckpointError("A text length was asked for, but the model has no text tower.")
    text = imported.config.model.text
    if text.positions or text.pool == "cls":
        raise CheckpointError("Only a table of one position a token can be stretched; this model's has others too.")
    if not is_whole(length) or length < text.length:
        raise ConfigError(f"The text length is {length!r}; it must be a whole number, {text.length} or more.")
    if not is_whole(kept) or not 0 <= kept < text.length - 1:
        raise ConfigError(f"Positions kept: {kept!r}; it must be a whole number from 0 to {text.length - 2}.")
    if length == text.length:
        return imported
    config = imported.config.copy_and_resolve_references()
    if config.model.decoder.layers and not config.model.decoder.length:
        config.model.decoder.length = text.length  # the captioner's positions are its own
    config.model.text.length = length
    arrays = {path: np.asarray(value) for path, value in paths_of(imported.params).items()}
    arrays[_POSITIONS] = stretched(arrays[_POSITIONS], length, kept)
    notes = (*imported.notes, f"text positions stretched from {text.length} to {length}, the first {kept} kept")
    return replace(
        imported, config=config, params=fill(abstract_params(config, imported.tokenizer), arrays), notes=notes
    )


def stretched(table: Float[np.ndarray, "N W"], length: int, kept: int) -> Float[np.ndarray, "L W"]:
    """A longer table: the first rows, then a straight line between neighbours, beyond the last row that of the last
    two."""
    at = np.arange(length, dtype=np.float64)
    at[kept:] = kept + (at[kept:] - kept) * (len(table) - kept) / (length - kept)
    below = np.minimum(at.astype(int), len(table) - 2)
    share = (at - below)[:, None]
    return (table[below] * (1 - share) + table[below + 1] * share).astype(table.dtype)
