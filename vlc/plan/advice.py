"""When a config does not fit: the nearest changes that do, each tried by compiling."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vlc.config import Config, get_key
from vlc.errors import ConfigError
from vlc.plan.estimate import Plan, make_plan

Change = dict[str, Any]


@dataclass(frozen=True)
class Advice:
    """A change that was tried.

    Attributes:
        change: New values by key.
        plan: What it gives; `None` where it cannot be.
        reason: Why not.
    """

    change: Change
    plan: Plan | None
    reason: str = ""

    @property
    def flags(self) -> str:
        """As given on the command line."""
        return " ".join(f"--config.{key}={value}" for key, value in self.change.items())


def with_change(config: Config, change: Change) -> Config:
    """A copy of a config with some values changed."""
    changed = config.copy_and_resolve_references()
    for key, value in change.items():
        *parents, last = key.split(".")
        section = get_key(changed, ".".join(parents)) if parents else changed
        section[last] = value
    return changed


def advise(config: Config, plan: Plan, devices: list[Any], tries: int) -> Iterator[Advice]:
    """Tries changes one by one, those that change least first, until three fit or `tries` are spent."""
    fitting = 0
    hopeful = [change for change in changes(config, plan) if could_fit(change, config, plan)]
    for change in hopeful[:tries]:
        try:
            advice = Advice(change, make_plan(with_change(config, change), plan.topology, devices, plan.config))
        except ConfigError as error:
            advice = Advice(change, None, str(error))
        yield advice
        fitting += bool(advice.plan and advice.plan.fits)
        if fitting == 3:
            return


def could_fit(change: Change, config: Config, plan: Plan) -> bool:
    """Whether a change could save enough memory at best; one that cannot is not compiled."""
    memory = plan.memory
    state = memory["parameters"] + memory["optimizer"] + memory.get("average", 0)
    passing = memory["activations"] + memory["temporaries"]
    saved = 0.0
    if "mesh.fsdp" in change:  # of the state, and of gradients, which are temporary
        saved += (state + memory["parameters"]) * (1 - plan.mesh["fsdp"] / change["mesh.fsdp"])
    if "optimizer.moment_dtype" in change:
        saved += memory["optimizer"] / 4
    kept = 1.0
    if "model.remat" in change:
        kept *= 0.05 if change["model.remat"] == "full" else 0.2
    if "accumulate" in change:
        kept *= config.accumulate / change["accumulate"]
    saved += passing * (1 - kept)
    if any(key.endswith("exchange") for key in change):
        scores = 4 * plan.batch_size**2 / plan.devices  # of all pairs, float32; a few of them are alive at once
        saved += passing if "objectives.filip.exchange" in change else 8 * scores
    return plan.needed - saved <= plan.capacity


def changes(config: Config, plan: Plan) -> Iterator[Change]:
    """Changes, the cheapest first. None of them changes what is learned, except for rounding."""
    single = [*_exchange(config), *_remat(config), *_fsdp(config, plan), *_accumulate(config, plan), *_moments(config)]
    yield from single
    for first in _fsdp(config, plan):
        for second in [*_remat(config), *_accumulate(config, plan)]:
            yield first | second
    for first in _accumulate(config, plan):
        for second in _remat(config):
            yield {**_merged(_exchange(config)), **first, **second, **_merged(_moments(config))}


def _merged(some: list[Change]) -> Change:
    return {key: value for change in some for key, value in change.items()}


def _exchange(config: Config) -> list[Change]:
    """The ring instead of gathering, for the objectives in use."""
    used = [
        name for name, objective in config.objectives.items()
        if objective.weight and objective.get("exchange") == "gather"
    ]  # fmt: skip
    return [{f"objectives.{name}.exchange": "ring" for name in used}] if used else []


def _remat(config: Config) -> list[Change]:
    order = ("none", "dots", "full")
    return [{"model.remat": choice} for choice in order[order.index(config.model.remat) + 1 :]]


def _fsdp(config: Config, plan: Plan) -> list[Change]:
    sizes = (plan.mesh["fsdp"] * 4**step for step in range(1, 5))
    inside = plan.devices // plan.mesh["dcn"] // plan.mesh["tensor"]
    known = [size for size in sizes if inside % size == 0 and size < inside] + [inside]
    return [{"mesh.data": -1, "mesh.fsdp": size} for size in known if size > plan.mesh["fsdp"]]


def _accumulate(config: Config, plan: Plan) -> list[Change]:
    share = config.batch_size // (plan.devices // plan.mesh["tensor"])
    more = [config.accumulate * factor for factor in (2, 4, 8)]
    return [{"accumulate": parts} for parts in more if share % parts == 0]


def _moments(config: Config) -> list[Change]:
    return [{"optimizer.moment_dtype": "bfloat16"}] if config.optimizer.moment_dtype == "float32" else []
