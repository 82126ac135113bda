"""What sentence-transformers does around a BERT: its modules, its pooling, its longest text."""

import json
from pathlib import Path
from typing import Any

from vlc.config import Config
from vlc.errors import CheckpointError
from vlc.interop.weights import read_json

_KNOWN = ("Transformer", "Pooling", "Normalize")
_MODE = "pooling_mode_"
_POOLS = {"mean": "mean", "mean_tokens": "mean", "cls": "first", "cls_token": "first"}


def find_parts(folder: Path) -> tuple[Path, Path | None]:
    """The folders of the transformer and of the pooling, where there is one.

    Raises:
        CheckpointError: There are modules that vlc does not have, as a Dense layer, or prompts that are always put
            before a text.
    """
    path = folder / "modules.json"
    modules = _modules(path) if path.is_file() else []
    unknown = [kind for kind, _ in modules if kind not in _KNOWN]
    if unknown:
        raise CheckpointError(
            f"{path}: the module {unknown[0]} is not known; known are {', '.join(_KNOWN)}. Without it embeddings would "
            "be others."
        )
    _refuse_prompts(folder / "config_sentence_transformers.json")
    places = {kind: folder / place if place else folder for kind, place in modules}
    pooling = places.get("Pooling") or folder / "1_Pooling"
    return places.get("Transformer", folder), pooling if (pooling / "config.json").is_file() else None


def _modules(path: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module, in order."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        return [(str(one["type"]).rsplit(".", 1)[-1], str(one.get("path") or "")) for one in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a list of modules ({error!r}).") from error


def _refuse_prompts(path: Path) -> None:
    found = read_json(path) if path.is_file() else {}
    name = found.get("default_prompt_name")
    if name:
        raise CheckpointError(
            f"{path}: default_prompt_name is {name!r}: a prompt stands before every text, which vlc would not put "
            "there. Put it there yourself, and set the name to null."
        )


def set_pooling(config: Config, folder: Path | None) -> None:
    """Takes over how tokens become one vector.

    Raises:
        CheckpointError: It is neither the mean nor the first token alone.
    """
    if folder is None:
        return
    path = folder / "config.json"
    found = read_json(path)
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
    config.model.text.pool = _POOLS[modes[0]]


def set_limits(config: Config, folder: Path, notes: list[str]) -> bool:
    """Takes over the longest text; whether texts are lower-cased before they are cut.

    Raises:
        CheckpointError: It is no number.
    """
    path = folder / "sentence_bert_config.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    longest, positions = found.get("max_seq_length"), config.model.text.length
    if longest is not None:
        if not isinstance(longest, int) or isinstance(longest, bool) or longest < 1:
            raise CheckpointError(f"{path}: max_seq_length is {longest!r}; a whole number or null is meant.")
        if longest > positions:
            notes.append(f"max_seq_length is {longest}, but there are {positions} positions: texts are cut to those")
        config.model.text.positions, config.model.text.length = positions, min(longest, positions)
    return bool(found.get("do_lower_case"))
