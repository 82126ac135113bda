"""What sentence-transformers does around a BERT: its modules, its pooling, its longest text, its prompts."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vlc.config import Config
from vlc.errors import CheckpointError, ConfigError
from vlc.interop import keys
from vlc.interop.late_interaction import Role, Tokens, of_colbert, of_modules, of_pylate
from vlc.interop.weights import read_json, read_json_if_there

SETTINGS = "config_sentence_transformers.json"
_POOLS = {"mean": "mean", "mean_tokens": "mean", "cls": "first", "cls_token": "first"}
_ONE_VECTOR = r"Transformer Pooling( Dense)?( Normalize)?"
_ORDERS = {  # of the modules, by model type
    None: _ONE_VECTOR, "SentenceTransformer": _ONE_VECTOR,
    "ColBERT": r"Transformer Dense", "MultiVectorEncoder": r"Transformer Dense( MultiVectorMask)? Normalize",
}  # fmt: skip
_PYLATE = ("query_prefix", "document_prefix", "query_length", "document_length", "attend_to_expansion_tokens",
           "do_query_expansion", "skiplist_words")  # fmt: skip
_BY_ROLE = ("query_length", "document_length", "query_expansion")


@dataclass(frozen=True)
class Reading:
    """What is done with the tokens of a BERT, and with texts before.

    Attributes:
        tower: The folder of the transformer.
        pool: `mean` or `first`.
        dense: The settings and the folder of a linear layer behind it, where there is one.
        longest: Tokens of the longest text; `None`: as many as there are positions.
        lower: Texts are lower-cased before they are cut.
        prompt: Put before every text.
        tokens: How tokens are compared; `None`: the pooled vector is.
    """

    tower: Path
    pool: str = "mean"
    dense: tuple[Mapping[str, Any], Path] | None = None
    longest: int | None = None
    lower: bool = False
    prompt: str = ""
    tokens: Tokens | None = None


def read_modules(folder: Path, role: Role) -> Reading:
    """The modules of a folder; of a plain transformer the mean of its tokens.

    Args:
        folder: With or without `modules.json`.
        role: As what texts are read; empty: as the folder has it, documents where tokens are compared.

    Raises:
        CheckpointError: A module, or a setting of one, is not known.
        ConfigError: `role` is not known, or the folder has no such role.
    """
    if role not in ("", "query", "document"):
        raise ConfigError(f'role is "{role}"; it must be query or document, or left out.')
    path = folder / SETTINGS
    stated = read_json_if_there(path)
    keys.SENTENCES.check(stated, str(path))
    if (folder / "modules.json").is_file():
        return _of_modules(folder, stated, role)
    if (folder / "1_Pooling").is_dir():
        raise CheckpointError(f"{folder}: 1_Pooling is there, but no modules.json, which says that it is used.")
    if _is_colbert(folder):
        return Reading(folder, tokens=of_colbert(folder, role))
    return _with_prompt(_with_limits(Reading(folder), folder), stated, role, path)


def _of_modules(folder: Path, stated: Mapping[str, Any], role: Role) -> Reading:
    path, kind, modules = folder / SETTINGS, stated.get("model_type"), _modules(folder / "modules.json")
    _check_order([name for name, _ in modules], kind, folder / "modules.json")
    places = {name: folder / place if place else folder for name, place in modules}
    reads = "token_embeddings" if kind in ("ColBERT", "MultiVectorEncoder") else "sentence_embedding"
    found = _with_limits(Reading(places["Transformer"]), folder)
    if "Dense" in places:
        found = replace(found, dense=_dense(places["Dense"], reads))
    if "Normalize" in places:
        _check_names(places["Normalize"] / "config.json", reads, "sentence_embedding")
    limits = found.tower / "sentence_bert_config.json"
    if kind != "MultiVectorEncoder":
        _refuse(read_json_if_there(limits), _BY_ROLE, limits)
    if kind == "ColBERT":
        return replace(found, tokens=of_pylate(stated, path, role))
    _refuse(stated, _PYLATE, path)
    if kind == "MultiVectorEncoder":
        return replace(found, tokens=of_modules(stated, found.tower, places.get("MultiVectorMask"), role))
    return _with_prompt(replace(found, pool=_pool(places["Pooling"])), stated, role, path)


def _refuse(stated: Mapping[str, Any], others: tuple[str, ...], path: Path) -> None:
    """Stops at settings of another kind of model."""
    given = [key for key in others if stated.get(key) is not None or (key == "query_expansion" and key in stated)]
    if given:
        raise CheckpointError(
            f"{path}: {given[0]} is {stated[given[0]]!r}, which is of another kind of model than this."
        )


def _is_colbert(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and "HF_ColBERT" in (read_json(path).get("architectures") or [])


def _modules(path: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, in order."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [(str(one["type"]).rsplit(".", 1)[-1], str(one.get("path") or "")) for one in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a list of modules ({error!r}).") from error


def _check_order(names: list[str], kind: Any, path: Path) -> None:
    if kind not in _ORDERS:
        raise CheckpointError(
            f"{path}: the model_type {kind!r} is not known; there are {', '.join(filter(None, _ORDERS))}."
        )
    wanted = _ORDERS[kind]
    if not re.fullmatch(wanted, " ".join(names)):
        known = re.sub(r"\(\s*(\w+)\)\?", r"[\1]", wanted)
        raise CheckpointError(f"{path}: the modules are {', '.join(names)}; vlc reads {known}.")


def _check_names(path: Path, reads: str, default: str) -> Mapping[str, Any]:
    """The settings of a module that must read and write vectors of one kind."""
    found = read_json_if_there(path)
    name = found.get("module_input_name") or default
    if name != reads or (found.get("module_output_name") or reads) != reads:
        raise CheckpointError(f"{path}: it reads {name!r}; {reads!r} is meant.")
    return found


def _dense(folder: Path, reads: str) -> tuple[Mapping[str, Any], Path]:
    """A linear layer behind the tower or its pooling."""
    path = folder / "config.json"
    found = {"bias": True, **_check_names(path, reads, reads)}
    keys.DENSE.check(found, str(path))
    if "activation_function" not in found:
        raise CheckpointError(f"{path}: activation_function is missing, which is then a tanh; vlc has none there.")
    if not isinstance(found["bias"], bool):
        raise CheckpointError(f"{path}: bias is {found['bias']!r}; true or false is meant.")
    return found, folder


def _pool(folder: Path) -> str:
    """How tokens become one vector.

    Raises:
        CheckpointError: It is neither the mean nor the first token alone.
    """
    path = folder / "config.json"
    found = read_json(path)
    keys.POOLING.check(found, str(path))
    if "pooling_mode" in found:
        given = found["pooling_mode"]
        modes = [given] if isinstance(given, str) else list(given)
    else:
        modes = [
            key.removeprefix("pooling_mode_") for key, on in found.items() if key.startswith("pooling_mode_") and on
        ]
    if len(modes) != 1 or modes[0] not in _POOLS:
        raise CheckpointError(
            f"{path}: pooling by {' and '.join(map(str, modes)) or 'nothing'} is not known; mean or cls."
        )
    return _POOLS[modes[0]]


def _with_limits(found: Reading, folder: Path) -> Reading:
    """With the longest text, and whether texts are lower-cased.

    Raises:
        CheckpointError: The length is no number.
    """
    path = found.tower / "sentence_bert_config.json"
    stated: dict[str, Any] = read_json_if_there(path)
    keys.SENTENCE_TOWER.check(stated, str(path))
    longest = stated.get("max_seq_length")
    if longest is not None and (not isinstance(longest, int) or isinstance(longest, bool) or longest < 1):
        raise CheckpointError(f"{path}: max_seq_length is {longest!r}; a whole number or null is meant.")
    if longest is None and (path.is_file() or (folder / "modules.json").is_file()):
        tokenizer = found.tower / "tokenizer_config.json"
        most = read_json_if_there(tokenizer).get("model_max_length")
        longest = int(most) if isinstance(most, (int, float)) and most >= 1 else None
    return replace(found, longest=longest, lower=bool(stated.get("do_lower_case")))


def _with_prompt(found: Reading, stated: Mapping[str, Any], role: Role, path: Path) -> Reading:
    """With what stands before every text: the role's prompt, or the default one.

    Raises:
        CheckpointError: The default prompt is not among those given.
        ConfigError: There is no prompt of this role.
    """
    prompts, name = stated.get("prompts") or {}, role or stated.get("default_prompt_name")
    if not name:
        return found
    if role and role not in prompts:
        raise ConfigError(f'role="{role}": {path} has no prompt of this name, so its texts are read in one way.')
    if not isinstance(prompts.get(name), str):
        raise CheckpointError(f"{path}: default_prompt_name is {name!r}; prompts has {', '.join(prompts) or 'none'}.")
    return replace(found, prompt=prompts[name])


def set_texts(config: Config, found: Reading, notes: list[str]) -> None:
    """Takes over the pooling, the linear layer and the longest text."""
    text = config.model.text
    text.pool = found.pool
    longest, positions = found.tokens.longest or found.longest if found.tokens else found.longest, text.length
    if longest is not None:
        if longest > positions and longest < 1 << 30:
            notes.append(f"max_seq_length is {longest}, but there are {positions} positions: texts are cut to those")
        text.positions, text.length = positions, min(longest, positions)
    if found.dense is not None:
        settings, folder = found.dense
        if settings.get("in_features") != text.width:
            raise CheckpointError(
                f"{folder}: reads {settings.get('in_features')!r} numbers, the tower gives {text.width}."
            )
        text.projection = "bias" if settings["bias"] else "linear"
        config.model.embed_dim = int(settings["out_features"])
