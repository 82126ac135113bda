"""The tokenizer of a folder, with the cleaning, marks and pads of its family."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers as hf

from vlc.data.tokenizers import JsonTokenizer, Rules, SentencePiece, Tokenizer, clip_tokenizer, read_merges
from vlc.data.tokenizers.json_file import HUGGING_FACE_MARKS, OPENAI_MARKS
from vlc.errors import CheckpointError
from vlc.interop.weights import read_json

_MERGES = ("merges.txt", "tokenizer.json", "bpe_simple_vocab_16e6.txt.gz")
_SIGLIP_END = 1  # in the vocabularies of both SigLIPs
_OPEN_CLIP_CLEAN = {"whitespace": "whitespace", "canonicalize": "canonical", "lower": "clip"}
_GEMMA_ROWS = 256_000


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


def _missing(folder: Path, names: tuple[str, ...]) -> CheckpointError:
    return CheckpointError(
        f"{folder}: no tokenizer there (looked for {', '.join(names)}). A model with another tokenizer than its own "
        "gives wrong answers quietly. Put its file there, or name it: --tokenizer PATH."
    )


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of these files; `folder` may be the file itself."""
    if folder.is_file():
        return folder
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise _missing(folder, names)


def _json_tokenizer(path: Path, rows: int, clean: str, *, end: str = "eos_token") -> JsonTokenizer:
    """A `tokenizer.json` with the pad and end marks that the files beside it name."""
    data = _bytes(path)
    plain = JsonTokenizer(data, Rules(clean=clean, rows=rows))
    special = _special_tokens(path.parent)
    pad, last = (plain.id_of(special[name]) if name in special else None for name in ("pad_token", end))
    return JsonTokenizer(data, Rules(clean=clean, rows=rows, pad=pad, end=last))


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.is_file() else {}


def _special_tokens(folder: Path) -> dict[str, str]:
    """Names of the marks, from `tokenizer_config.json` or `special_tokens_map.json`."""
    path = folder / "special_tokens_map.json"
    found: Mapping[str, Any] = (read_json(path) if path.is_file() else {}) | _settings(folder)
    names = {key: value.get("content") if isinstance(value, dict) else value for key, value in found.items()}
    return {key: value for key, value in names.items() if isinstance(value, str)}


def clip(folder: Path, rows: int) -> Tokenizer:
    """Of transformers' CLIP: `tokenizer.json`, or `merges.txt`."""
    path = _find(folder, ("tokenizer.json", "merges.txt"))
    if path.suffix == ".json":
        return _json_tokenizer(path, rows, "")
    return _clip_bytes(path, rows, "", HUGGING_FACE_MARKS, normalise=True)


def _clip_bytes(path: Path, rows: int, clean: str, marks: tuple[str, str], *, normalise: bool) -> Tokenizer:
    merges = read_merges(_bytes(path), str(path))
    end = 2 * 256 + len(merges) + 1
    rules = Rules(clean=clean, rows=rows, pad=end if normalise else 0)
    return clip_tokenizer(merges, rules, marks=marks, normalise=normalise)


def open_clip(folder: Path, text: Mapping[str, Any], rows: int) -> Tokenizer:
    """Of open_clip: OpenAI's byte pairs, or a `tokenizer.json` where the config names a tokenizer of Hugging Face."""
    if not text.get("hf_tokenizer_name"):
        return _clip_bytes(_find(folder, _MERGES), rows, "clip", OPENAI_MARKS, normalise=False)
    options = text.get("tokenizer_kwargs") or {}
    clean = options.get("clean", "whitespace")
    others = set(options) - {"clean"}
    if clean not in _OPEN_CLIP_CLEAN or others:
        raise CheckpointError(f"{folder}: tokenizer_kwargs {options} are not known; only clean is.")
    return _json_tokenizer(_find(folder, ("tokenizer.json",)), rows, _OPEN_CLIP_CLEAN[clean])


def siglip(folder: Path, rows: int) -> Tokenizer:
    """Of SigLIP: a SentencePiece model; of SigLIP 2: Gemma's `tokenizer.json`, lower-cased as in training."""
    path = _find(folder, ("spiece.model", "sentencepiece.model", "tokenizer.json"))
    if path.suffix != ".json":
        return siglip_pieces(path, rows)
    stated = _settings(path.parent)
    if stated.get("padding_side", "right") != "right":
        raise CheckpointError(
            f"{folder}: its tokenizer pads on the left, which SigLIP's text tower was not trained with."
        )
    second = rows >= _GEMMA_ROWS or str(stated.get("tokenizer_class", "")).startswith(("Gemma", "Siglip2"))
    return _json_tokenizer(path, rows, "lower" if second else "siglip")


def siglip_pieces(path: Path, rows: int) -> SentencePiece:
    """A SentencePiece model with SigLIP's rules; SigLIP 2 keeps punctuation, and pads with another id."""
    second = rows >= _GEMMA_ROWS
    rules = Rules(clean="lower" if second else "siglip", end=_SIGLIP_END, rows=rows, pad=0 if second else _SIGLIP_END)
    tokenizer = SentencePiece(_bytes(path), rules)
    if tokenizer.pieces_of_model > rows:
        raise CheckpointError(f"{path}: {tokenizer.pieces_of_model:,} pieces, but the model's table has {rows:,} rows.")
    return tokenizer


def bert(folder: Path, rows: int) -> Tokenizer:
    """Of BERT: `tokenizer.json`, or `vocab.txt`."""
    path = _find(folder, ("tokenizer.json", "vocab.txt"))
    if path.suffix == ".json":
        return _json_tokenizer(path, rows, "", end="sep_token")
    lower = bool(_settings(folder).get("do_lower_case", True))
    made = hf.BertWordPieceTokenizer(str(path), lowercase=lower)
    return JsonTokenizer(made.to_str().encode(), Rules(rows=rows, pad=made.token_to_id("[PAD]")))
