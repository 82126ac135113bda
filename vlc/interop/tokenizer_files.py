"""The tokenizer of a folder, with the cleaning, marks and pads of its family."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers as hf

from vlc.config import Config
from vlc.data.tokenizers import JsonTokenizer, Rules, SentencePiece, Tokenizer, clip_tokenizer, read_merges
from vlc.data.tokenizers.json_file import HUGGING_FACE_MARKS, OPENAI_MARKS
from vlc.errors import CheckpointError
from vlc.interop import keys
from vlc.interop.late_interaction import Tokens
from vlc.interop.weights import read_json, read_json_if_there

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


# The marks that a class of transformers has where its files name none.
_CLIP_MARKS = {"bos_token": HUGGING_FACE_MARKS[0], "eos_token": HUGGING_FACE_MARKS[1],
               "unk_token": HUGGING_FACE_MARKS[1], "pad_token": HUGGING_FACE_MARKS[1]}  # fmt: skip
_GEMMA_MARKS = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
_SIGLIP_MARKS = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
_BERT_MARKS = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
               "mask_token": "[MASK]"}  # fmt: skip
_PLAIN = ("", "PreTrainedTokenizerFast", "TokenizersBackend")  # which take a tokenizer.json as it is
_LEFT = ("GemmaTokenizer", "Siglip2Tokenizer")  # which pad on the left where nothing else is said
# Texts that tell tokenizers apart: capitals, accents, digits, punctuation, marks, spaces, other scripts.
_PROBES = (
    "a cat", "Two DOGS, it's theirs!", "  spaces\tand\nlines ", "Stra\u00dfe caf\u00e9 cafe\u0301 \u0130I",
    "42 $3.99 (50%)", "under_score hy-phen", "\u72ac\u304c\u8d70\u308b \u043a\u043e\u0448\u043a\u0430",
    "emoji \U0001f600\U0001f680", "!", "fox", "",
)  # fmt: skip


def _settings(folder: Path) -> dict[str, Any]:
    """The `tokenizer_config.json` of a folder.

    Raises:
        CheckpointError: It asks for something that is not done.
    """
    path = folder / "tokenizer_config.json"
    found = read_json_if_there(path)
    keys.TOKENIZER.check(found, str(path))
    if found.get("padding_side", "right") != "right":
        raise CheckpointError(f"{path}: its tokenizer pads on the left, which its text tower was not trained with.")
    return found


def _marks(folder: Path, defaults: Mapping[str, str]) -> dict[str, str]:
    """Names of the marks, of `tokenizer_config.json` and `special_tokens_map.json`.

    Raises:
        CheckpointError: The two name different ones.
    """
    path = folder / "special_tokens_map.json"
    named = [{key: value.get("content") if isinstance(value, dict) else value for key, value in found.items()
              if key.endswith("_token")}
             for found in (_settings(folder), read_json_if_there(path))]  # fmt: skip
    stated, mapped = ({key: value for key, value in one.items() if isinstance(value, str)} for one in named)
    for key, value in mapped.items():
        if stated.get(key, defaults.get(key, value)) != value:
            other = stated.get(key, defaults.get(key))
            raise CheckpointError(f"{path}: {key} is {value!r}, and {other!r} in tokenizer_config.json: which is it?")
    return {**defaults, **stated, **mapped}


def _class_of(folder: Path, known: tuple[str, ...]) -> str:
    """The class that a folder names, without `Fast`.

    Raises:
        CheckpointError: It is one of another family, which would cut texts otherwise.
    """
    given = str(_settings(folder).get("tokenizer_class") or "")
    name = given if given in _PLAIN else given.removesuffix("Fast")
    if name not in known:
        listed = ", ".join(one for one in known if one)
        raise CheckpointError(f"{folder}: its tokenizer is a {given}; of this family {listed} are known.")
    return name


def _json_tokenizer(path: Path, rows: int, clean: str, marks: Mapping[str, str], *, end: str) -> JsonTokenizer:
    """A `tokenizer.json` with the marks that the files beside it name, which are kept whole inside a text.

    Args:
        path: The file.
        rows: Of the model's token table.
        clean: What is done to a text before.
        marks: Names of the marks.
        end: Which of them is put after a text where the file's own template does not; empty: none.

    Raises:
        CheckpointError: A mark is not in the vocabulary, or the template ends with another.
    """
    plain = JsonTokenizer(_bytes(path), Rules(clean=clean, rows=rows))
    for key in ("pad_token", "eos_token", "bos_token", "unk_token", "sep_token", "cls_token", "mask_token"):
        if key in marks and plain.id_of(marks[key]) is None:
            raise CheckpointError(f"{path.parent}: {key} is {marks[key]!r}, which is not in the vocabulary.")
    pad, last = (plain.id_of(marks[name]) if name in marks else None for name in ("pad_token", end))
    if last is not None and plain.end_id not in (last, plain.vocab_size):
        raise CheckpointError(
            f"{path.parent}: {end} is {marks[end]!r}, but tokenizer.json ends texts with {plain.piece(plain.end_id)!r}."
        )
    return plain.marked(marks.values(), Rules(clean=clean, rows=rows, pad=pad, end=last))


def clip(folder: Path, rows: int) -> Tokenizer:
    """Of transformers' CLIP: `tokenizer.json`, or `merges.txt`, whose ids are those of its class."""
    path = _find(folder, ("tokenizer.json", "merges.txt"))
    name = _class_of(path.parent, ("CLIPTokenizer", *_PLAIN))
    alone = path.suffix == ".json" and name in _PLAIN  # the file says all
    marks = _marks(path.parent, {} if alone and name else _CLIP_MARKS)
    if alone:
        return _json_tokenizer(path, rows, "", marks, end="eos_token")
    made = _clip_bytes(path, rows, "", HUGGING_FACE_MARKS, normalise=True, pad=marks["pad_token"])
    if path.suffix != ".json":
        _check_vocabulary(path.parent, made)
        return made
    found = _json_tokenizer(path, rows, "", marks, end="eos_token")
    _check_clip_class(path, found, made)
    return found


def _check_clip_class(path: Path, found: Tokenizer, made: Tokenizer) -> None:
    """Refuses a `tokenizer.json` that CLIP's class, which makes its own from the same pieces, cuts otherwise."""
    if any(found.ids(text, 64) != made.ids(text, 64) for text in _PROBES):
        raise CheckpointError(
            f"{path}: cuts texts otherwise than CLIPTokenizer, the class that tokenizer_config.json names, does from "
            "the same pieces. Name PreTrainedTokenizerFast there where the file is right."
        )


def _check_vocabulary(folder: Path, made: JsonTokenizer) -> None:
    """Refuses a `vocab.json` or `added_tokens.json` that gives pieces other ids than their place among the merges."""
    for name in ("vocab.json", "added_tokens.json"):
        path = folder / name
        for piece, index in read_json_if_there(path).items():
            if made.id_of(piece) != index:
                raise CheckpointError(
                    f"{path}: {piece!r} has the id {index}, but {made.id_of(piece)} by merges.txt. A tokenizer.json "
                    "says both: save the tokenizer once more with transformers (its class with Fast)."
                )


def _clip_bytes(
    path: Path, rows: int, clean: str, marks: tuple[str, str], *, normalise: bool, pad: str = ""
) -> JsonTokenizer:
    merges = read_merges(_bytes(path), str(path))
    plain = clip_tokenizer(merges, Rules(clean=clean, rows=rows, pad=0), marks=marks, normalise=normalise)
    if not normalise:
        return plain
    index = plain.id_of(pad)
    if index is None:
        raise CheckpointError(f"{path.parent}: pad_token is {pad!r}, which is not in the vocabulary.")
    return plain.marked([pad], Rules(clean=clean, rows=rows, pad=index))


def open_clip(folder: Path, text: Mapping[str, Any], rows: int) -> Tokenizer:
    """Of open_clip: OpenAI's byte pairs, or a `tokenizer.json` where the config names a tokenizer of Hugging Face."""
    options = text.get("tokenizer_kwargs") or {}
    own = not text.get("hf_tokenizer_name")
    clean = options.get("clean", "lower" if own else "whitespace")
    if clean not in _OPEN_CLIP_CLEAN or set(options) - {"clean"}:
        raise CheckpointError(f"{folder}: tokenizer_kwargs {options} are not known; only clean is.")
    if own:
        return _clip_bytes(_find(folder, _MERGES), rows, _OPEN_CLIP_CLEAN[clean], OPENAI_MARKS, normalise=False)
    path = _find(folder, ("tokenizer.json",))
    name = _class_of(path.parent, ("T5Tokenizer", "GemmaTokenizer", "CLIPTokenizer", *_PLAIN))
    stated = _settings(path.parent)
    _check_gemma(path.parent, name, stated)
    defaults = {"GemmaTokenizer": _GEMMA_MARKS, "CLIPTokenizer": _CLIP_MARKS}.get(name, {})
    marks = _marks(path.parent, defaults)
    found = _json_tokenizer(path, rows, _OPEN_CLIP_CLEAN[clean], marks, end="")
    if name == "CLIPTokenizer":
        pad = marks["pad_token"]
        _check_clip_class(path, found, _clip_bytes(path, rows, "", HUGGING_FACE_MARKS, normalise=True, pad=pad))
    return found


def _check_gemma(folder: Path, name: str, stated: Mapping[str, Any]) -> None:
    """Gemma's class pads on the left and begins with a mark where a folder does not say otherwise."""
    if name in _LEFT and stated.get("padding_side") != "right":
        raise CheckpointError(
            f"{folder}: a {name} pads on the left where padding_side is not given, which SigLIP's text tower was not "
            'trained with. Write "padding_side": "right" into tokenizer_config.json.'
        )
    if name == "GemmaTokenizer" and stated.get("add_bos_token") is not False:
        raise CheckpointError(
            f"{folder}: a GemmaTokenizer begins with a mark where add_bos_token is not false; SigLIP 2 has none. Write "
            '"add_bos_token": false into tokenizer_config.json.'
        )


def siglip(folder: Path, rows: int, notes: list[str] | None = None) -> Tokenizer:
    """Of SigLIP: a SentencePiece model; of SigLIP 2: Gemma's `tokenizer.json`, lower-cased as in training."""
    path = _find(folder, ("spiece.model", "sentencepiece.model", "tokenizer.json"))
    if path.suffix != ".json":
        _class_of(path.parent, ("SiglipTokenizer", ""))
        _check_siglip_marks(path.parent)
        return siglip_pieces(path, rows)
    stated = _settings(path.parent)
    name = _class_of(path.parent, ("SiglipTokenizer", "GemmaTokenizer", "Siglip2Tokenizer", *_PLAIN))
    _check_gemma(path.parent, name, stated)
    second = rows >= _GEMMA_ROWS or name in _LEFT
    marks = _marks(path.parent, _GEMMA_MARKS if second else {})
    clean = "" if name in _PLAIN and name else "lower" if second else "siglip"
    if name == "GemmaTokenizer" and notes is not None:
        notes.append("texts are lower-cased, as in SigLIP 2's training; transformers' GemmaTokenizer leaves them as is")
    found = _json_tokenizer(path, rows, clean, marks, end="eos_token")
    if second:
        _check_pieces(path)
    return found


def _check_siglip_marks(folder: Path) -> None:
    """Refuses settings beside a SentencePiece model that would cut or end texts otherwise than SigLIP's class does."""
    marks = _marks(folder, _SIGLIP_MARKS)
    for key, value in _SIGLIP_MARKS.items():
        if marks[key] != value:
            raise CheckpointError(f"{folder}: {key} is {marks[key]!r}; SigLIP's is {value!r}.")
    if _settings(folder).get("do_lower_case", True) is not True:
        raise CheckpointError(f"{folder}: do_lower_case is false; SigLIP's texts are lower-cased.")


def _check_pieces(path: Path) -> None:
    """Refuses a SigLIP 2 file that does not cut at spaces as Gemma's pieces do, or ends no text."""
    given = read_json(path)
    written = str(given.get("normalizer")) + str(given.get("pre_tokenizer"))
    if "\u2581" not in written or not given.get("post_processor"):
        raise CheckpointError(f"{path}: its normalizer or template is not Gemma's, whose class SigLIP 2 names.")


def siglip_pieces(path: Path, rows: int) -> SentencePiece:
    """A SentencePiece model with SigLIP's rules; SigLIP 2 keeps punctuation, and pads with another id."""
    second = rows >= _GEMMA_ROWS
    rules = Rules(clean="lower" if second else "siglip", end=_SIGLIP_END, rows=rows, pad=0 if second else _SIGLIP_END)
    tokenizer = SentencePiece(_bytes(path), rules)
    if tokenizer.pieces_of_model > rows:
        raise CheckpointError(f"{path}: {tokenizer.pieces_of_model:,} pieces, but the model's table has {rows:,} rows.")
    return tokenizer


def bert(folder: Path, rows: int, *, lower: bool = False, prompt: str = "") -> JsonTokenizer:
    """Of BERT: `tokenizer.json`, or `vocab.txt`.

    Args:
        folder: Where they lie.
        rows: Of the model's token table.
        lower: Texts are lower-cased before, except for marks.
        prompt: Put before every text.
    """
    path = _find(folder, ("tokenizer.json", "vocab.txt"))
    stated = _settings(path.parent)
    name = _class_of(path.parent, ("BertTokenizer", *_PLAIN))
    if path.suffix == ".json":
        marks = _marks(path.parent, _BERT_MARKS)
        found = _json_tokenizer(path, rows, "", marks, end="sep_token")
        if name not in _PLAIN:
            _check_bert(path, stated, marks, found)
    else:
        options = {key: stated[key] for key in ("strip_accents",) if stated.get(key) is not None}
        made = hf.BertWordPieceTokenizer(
            str(path), lowercase=bool(stated.get("do_lower_case", True)),
            handle_chinese_chars=bool(stated.get("tokenize_chinese_chars", True)), **options,
        )  # fmt: skip
        found = JsonTokenizer(made.to_str().encode(), Rules(rows=rows, pad=made.token_to_id("[PAD]")))
    if lower:
        found = JsonTokenizer(_lower_cased(found.model), found.rules)
    return JsonTokenizer(found.model, replace(found.rules, prompt=prompt))


def _lower_cased(model: bytes) -> bytes:
    """A `tokenizer.json` that lower-cases first."""
    given = json.loads(model)
    before = given.get("normalizer")
    given["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *([before] if before else [])]}
    return json.dumps(given).encode()


def for_tokens(found: JsonTokenizer, config: Config, tokens: Tokens, folder: Path) -> JsonTokenizer:
    """The tokenizer of a text model whose tokens are compared; the config learns what is filled up and left out.

    Raises:
        CheckpointError: The mark or the token that fills is not in the vocabulary.
    """
    model, pad, text = found.model, found.rules.pad, config.model.text
    marks = _marks(folder if folder.is_dir() else folder.parent, _BERT_MARKS)
    if tokens.mark:
        model = _kept_whole(found, tokens.mark)
    if tokens.fills is not None:
        filling = tokens.fills or marks["mask_token"]
        pad = found.id_of(filling)
        if pad is None:
            raise CheckpointError(f"{folder}: queries are filled up with {filling!r}, which is not in the vocabulary.")
        text.compare_pads, text.attend_pads = True, tokens.attends
    ids = {found.id_of(word) for word in tokens.skips} - {None, found.id_of(marks["unk_token"])}
    text.skip = tuple(sorted(index for index in ids if index is not None))
    return JsonTokenizer(model, replace(found.rules, prompt=tokens.prompt, pad=pad))


def _kept_whole(found: JsonTokenizer, mark: str) -> bytes:
    """A `tokenizer.json` that never cuts a mark, and finds it before texts are normalised.

    Raises:
        CheckpointError: The mark is no token, or a word like others.
    """
    name = next((one for one in (mark, mark.strip()) if found.id_of(one) is not None), None)
    given = json.loads(found.model)
    others = [one for one in given.get("added_tokens") or [] if one["content"] != name]
    added = len(others) < len(given.get("added_tokens") or [])
    if name is None or (not added and len(found.spans(name)) == 2):
        what = "is not in the tokenizer's vocabulary" if name is None else "is a word of the vocabulary like others"
        raise CheckpointError(f"The mark {mark!r}, which stands before every text, {what}.")
    token = {"id": found.id_of(name), "content": name, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}  # fmt: skip
    given["added_tokens"] = sorted([*others, token], key=lambda one: one["id"])
    return json.dumps(given).encode()


def _check_bert(path: Path, stated: Mapping[str, Any], marks: Mapping[str, str], found: JsonTokenizer) -> None:
    """Refuses a `tokenizer.json` whose marks or normalizer are not those that `tokenizer_config.json` describes."""
    given = read_json(path)
    around = {"cls_token": found.begin_id, "sep_token": found.end_id}
    for key, index in around.items():
        if found.id_of(marks[key]) != index:
            raise CheckpointError(f"{path}: it does not put {key}={marks[key]!r} around texts, as BERT's class does.")
    if (given.get("model") or {}).get("unk_token") != marks["unk_token"]:
        raise CheckpointError(f"{path}: its unk_token is not {marks['unk_token']!r} of tokenizer_config.json.")
    normalizer = given.get("normalizer") or {}
    meant = {"lowercase": stated.get("do_lower_case", True), "strip_accents": stated.get("strip_accents"),
             "handle_chinese_chars": stated.get("tokenize_chinese_chars", True)}  # fmt: skip
    for key, value in meant.items():
        if normalizer.get("type") != "BertNormalizer" or normalizer.get(key) != value:
            raise CheckpointError(
                f"{path}: its normalizer has {key}={normalizer.get(key)!r}, tokenizer_config.json {value!r}: which is "
                "it?"
            )
