"""Where words are found in a picture: by similarity, and by what the captioner looks at when it writes them."""

import numpy as np
from jaxtyping import Float

from vlc.errors import ConfigError, DataError
from vlc.inference.comparison import compared_by
from vlc.inference.encoder import Encoder


def similarity_maps(model: Encoder, pixels: np.ndarray, text: str) -> tuple[list[str], Float[np.ndarray, "T R C"]]:
    """See `Model.word_maps`; of pixels that are preprocessed."""
    compared_by(model, "tokens")
    if model.config.model.image.pool == "queries":
        raise ConfigError("This model's image tokens are pooled queries (CoCa), not patches: they have no places.")
    encoded, words = model.encode_pixels(pixels[None]), model.encode_text(text)
    ids = model.token_ids(text)[0]
    count = int((ids != model.tokenizer.pad_id).sum())
    rows, columns = model.grid_of(pixels)
    maps = words.tokens[0, :count] @ encoded.tokens[0, : rows * columns].T
    return model.tokenizer.pieces(ids[:count]), maps.reshape(count, rows, columns)


def attends_to_patches(model: Encoder) -> bool:
    """Whether there is a captioner that shows where it looks."""
    decoder = model.config.model.decoder
    patches = model.config.model.image.pool != "queries"
    return bool(decoder.layers) and decoder.memory == "tokens" and decoder.reads == "ids" and patches


def written_maps(model: Encoder, pixels: np.ndarray, text: str) -> tuple[list[str], Float[np.ndarray, "N R C"]]:
    """See `Model.written_maps`; of pixels that are preprocessed."""
    if not attends_to_patches(model):
        raise ConfigError(
            "There is no captioner that attends to patches: config.model.decoder has no layers, or memory=pooled, or "
            "reads=text, or the image tower pools by queries."
        )
    ids = model.tokenizer.encode(text, model.caption_length + 1)
    looked = model.caption_attention(pixels[None], ids[:, :-1])[0]
    rows, columns = model.grid_of(pixels)
    cleaned, spans = model.tokenizer.clean(text), model.tokenizer.spans(text)
    words, maps, end = cleaned.split(), [], 0
    for word in words:
        start = cleaned.index(word, end)
        end = start + len(word)
        tokens = [i for i, (a, b) in enumerate(spans) if a < end and b > start and 0 < i <= len(looked)]
        if not tokens:
            break  # the captioner writes no more than this
        maps.append(looked[np.array(tokens) - 1].mean(axis=0)[: rows * columns])  # of the places that write them
    if not maps:
        raise DataError(f'written_maps: "{text}" has no words.')
    return words[: len(maps)], np.stack(maps).reshape(-1, rows, columns)
