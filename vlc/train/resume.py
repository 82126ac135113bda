"""What may change between the parts of a run, and what may not."""

from collections.abc import Iterator
from typing import Any

from vlc.config import config_from_json
from vlc.errors import CheckpointError
from vlc.objectives.policy import baseline_of, needs_first
from vlc.train.restoring import read_meta

# Changes of these alone do not change what is trained, and are not worth a line.
_QUIET = ("steps", "log_every", "mesh.", "checkpoint.", "eval.", "data.threads", "data.workers", "data.dev", "init",
          "track")  # fmt: skip
# The optimizer's state is another one after these; "ema" counts where it is turned on or off.
_OPTIMIZER = ("name", "moment_dtype", "frozen")


def check_same_model(saved: dict, current: dict, where: str) -> None:
    """Refuses to go on with another model, tokenizer, preprocessing or optimizer than the checkpoint's.

    Args:
        saved: The checkpoint's meta.
        current: The meta of this start.
        where: The workdir, for messages.

    Raises:
        CheckpointError: Every difference is named.
    """
    saved_config, tokenizer, _ = read_meta(saved, where)
    now_config, now_tokenizer, _ = read_meta(current, where)
    configs = [config_from_json(config) for config in (saved_config, now_config)]
    before, now = (config.to_dict() for config in configs)
    sections = (("model.", "model"), ("data.image.", "image"))
    pairs = {"model": (before["model"], now["model"]), "image": (before["data"]["image"], now["data"]["image"])}
    problems = [
        f"config.{prefix}{key} was {old!r} and is now {new!r}"
        for prefix, name in sections
        for key, old, new in _differences(*pairs[name])
    ]
    saved_tokens, now_tokens = (words and words.to_json() for words in (tokenizer, now_tokenizer))
    if saved_tokens != now_tokens:
        problems.append("the tokenizer is another one")
    if problems:
        raise CheckpointError(
            f"{where} holds checkpoints of another model:\n  "
            + "\n  ".join(problems)
            + "\nUse the same settings, or another --workdir."
        )
    _check_same_optimizer(before["optimizer"], now["optimizer"], where)
    held = [(needs_first(one.objectives), baseline_of(one.objectives) == "running") for one in configs]
    if held[0] != held[1]:
        raise CheckpointError(
            f"{where}: its state holds other things of rewards than are asked for now (config.objectives.policy.kl, "
            f".preference, or a running baseline). Start anew: --config.init={where} --workdir OTHER."
        )


def _check_same_optimizer(before: dict[str, Any], now: dict[str, Any], where: str) -> None:
    problems = [
        f"config.optimizer.{key} was {before[key]!r} and is now {now[key]!r}"
        for key in _OPTIMIZER
        if before[key] != now[key]
    ]
    if bool(before["ema"]) != bool(now["ema"]):
        problems.append(f"config.optimizer.ema was {before['ema']} and is now {now['ema']}")
    if problems:
        raise CheckpointError(
            f"{where} holds the state of another optimizer:\n  "
            + "\n  ".join(problems)
            + f"\nUse the same, or start anew from these weights: --config.init={where} --workdir OTHER."
        )


def next_batch(saved: dict[str, Any], batch_size: int) -> int:
    """The number of the batch that a checkpoint is followed by.

    With another batch size than before, the first that holds no example which was seen; a few may be passed over.

    Args:
        saved: The checkpoint's meta.
        batch_size: Of this start.
    """
    # The first versions kept steps alone.
    examples = saved.get("examples", saved["step"] * saved["config"]["batch_size"])
    return -(-examples // batch_size)


def changes_of(saved: dict[str, Any], now: dict[str, Any], step: int, example: int) -> list[str]:
    """Settings that differ from the checkpoint's, a line each, with what that means from here on.

    Args:
        saved: The checkpoint's config as JSON.
        now: This start's.
        step: The checkpoint's.
        example: From which example of the data training goes on.
    """
    before, after = (config_from_json(config).to_dict() for config in (saved, now))
    lines = []
    for key, old, new in _differences(before, after):
        if key.startswith(_QUIET):
            continue
        lines.append(f"config.{key} was {old!r} and is now {new!r}{_meaning(key, step, example)}")
    if before["steps"] != after["steps"]:
        lines.append(
            f"config.steps was {before['steps']} and is now {after['steps']}: from step {step} on the learning "
            f"rate follows the schedule of {after['steps']} steps"
        )
    return lines


def _meaning(key: str, step: int, example: int) -> str:
    if key == "batch_size":
        return f": the data continue at example {example:,}"
    if key == "seed":
        return ": from here on the data come in another order"
    if key.startswith("optimizer."):
        return f": it holds from step {step} on"
    if key.startswith("data."):
        return f": the loss from step {step} on is of other data"
    if key.startswith("objectives."):
        return ": it holds from here on"
    return ""


def _differences(old: dict, new: dict, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            yield prefix + key, a, b
