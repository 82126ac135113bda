"""Folders whose token vectors are compared: ColBERT's own, PyLate's, and sentence-transformers' multi-vector encoders.

Queries and documents are read in two ways (ColBERT, Khattab and Zaharia, 2020, arXiv 2004.12832, section 3.2): each
begins with a mark of its own, a query is filled up with mask tokens that count, and punctuation of a document does not.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlc.errors import CheckpointError
from vlc.interop import keys
from vlc.interop.weights import read_json, read_json_if_there

Role = Literal["", "query", "document"]


@dataclass(frozen=True)
class Tokens:
    """How the tokens of texts are compared.

    Attributes:
        prompt: Put before every text.
        mark: A token in the prompt that is kept whole; empty: the prompt is a text like others.
        longest: Tokens of the longest text; `None`: no other than of the tower.
        fills: Texts are filled up to `longest` with this token, which counts; empty: with the mask token; `None`: not.
        attends: These fillings are attended to as well.
        skips: Words that do not count.
    """

    prompt: str = ""
    mark: str = ""
    longest: int | None = None
    fills: str | None = None
    attends: bool = False
    skips: tuple[str, ...] = ()


def of_pylate(stated: Mapping[str, Any], path: Path, role: Role) -> Tokens:
    """From PyLate's `config_sentence_transformers.json`."""
    kind = role or "document"
    if stated.get("default_prompt_name"):
        raise CheckpointError(f"{path}: default_prompt_name stands beside PyLate's prefixes; vlc reads one of them.")
    for key in ("query_prefix", "document_prefix", "query_length", "document_length"):
        if stated.get(key) is None:
            raise CheckpointError(f"{path}: {key} is missing; PyLate and sentence-transformers then take other values.")
    mark = str(stated[f"{kind}_prefix"])
    more = (stated.get("prompts") or {}).get(kind) or ""
    prompt = mark + str(more).removeprefix(mark)
    longest = _length(stated, f"{kind}_length", path)
    if kind == "document":
        words = stated.get("skiplist_words")
        return Tokens(prompt, mark, longest, skips=_words(string.punctuation if words is None else words, path))
    if stated.get("do_query_expansion") is False:
        return Tokens(prompt, mark, longest)
    return Tokens(prompt, mark, longest, "", bool(stated.get("attend_to_expansion_tokens")))


def of_modules(stated: Mapping[str, Any], tower: Path, mask: Path | None, role: Role) -> Tokens:
    """From the modules of a `MultiVectorEncoder`."""
    kind = role or "document"
    prompt = (stated.get("prompts") or {}).get(kind) or ""
    path = tower / "sentence_bert_config.json"
    limits = read_json_if_there(path)
    longest = _length(limits, f"{kind}_length", path) if limits.get(f"{kind}_length") is not None else None
    skips = _skipped(mask, kind) if mask is not None else ()
    expansion = limits.get("query_expansion")
    if kind == "document" or not expansion:
        return Tokens(prompt, "", longest, skips=skips)
    if not isinstance(expansion, dict) or expansion.get("strategy") != "fixed" or set(expansion) - {
        "strategy", "attend", "length", "token"
    }:  # fmt: skip
        raise CheckpointError(f"{path}: query_expansion is {expansion!r}; vlc fills queries to one length (fixed).")
    length = _length(expansion, "length", path)
    return Tokens(prompt, "", length, expansion.get("token") or "", bool(expansion.get("attend")), skips)


def of_colbert(folder: Path, role: Role) -> Tokens:
    """From the `artifact.metadata` of Stanford's ColBERT."""
    path = folder / "artifact.metadata"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; it says with which marks and lengths the model was trained.")
    stated = read_json(path)
    keys.COLBERT.check(stated, str(path))
    if role == "query":
        mark = str(stated.get("query_token_id") or "[unused0]")
        length = _length({"query_maxlen": 32} | stated, "query_maxlen", path)
        return Tokens(f"{mark} ", mark, length, "", bool(stated.get("attend_to_mask_tokens")))
    mark = str(stated.get("doc_token_id") or "[unused1]")
    skips = _words(string.punctuation, path) if stated.get("mask_punctuation", True) else ()
    longest = _length(stated, "doc_maxlen", path) if stated.get("doc_maxlen") is not None else None
    return Tokens(f"{mark} ", mark, longest, skips=skips)


def _skipped(mask: Path, kind: str) -> tuple[str, ...]:
    path = mask / "config.json"
    found = read_json_if_there(path)
    keys.TOKEN_MASK.check(found, str(path))
    tasks = found.get("skiplist_tasks")
    tasks = ["document"] if tasks is None else [tasks] if isinstance(tasks, str) else tasks
    return _words(found.get("skiplist_words") or (), path) if kind in tasks else ()


def _words(given: Any, path: Path) -> tuple[str, ...]:
    words = tuple(given)
    if not all(isinstance(word, str) for word in words):
        raise CheckpointError(f"{path}: skiplist_words are {given!r}; words are meant.")
    return words


def _length(stated: Mapping[str, Any], key: str, path: Path) -> int:
    value = stated.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 4:
        raise CheckpointError(f"{path}: {key} is {value!r}; a whole number of tokens, 4 or more, is meant.")
    return value
