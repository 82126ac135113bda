"""Several sources as one: a list, or a weighted mixture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from vlc.data.parts import Parts
from vlc.data.record import Record, Source, add_counts
from vlc.errors import ConfigError

RULES = ("weights", "epochs")


@dataclass(frozen=True)
class Mixture(Source):
    """Records of all sources, one source after the other. In which order they are drawn, `vlc.data.order` says.

    Attributes:
        sources: By name.
        weights: By name. With the rule `weights`, the share of draws; with `epochs`, how often each record of the
            source is seen in one epoch.
        rule: `weights`: every stretch of draws holds the sources in these shares, and each source goes through its
            own exact epochs. `epochs`: an epoch holds every record exactly as often as the weight says.
    """

    sources: Mapping[str, Source]
    weights: Mapping[str, float]
    rule: str = "weights"
    _parts: Parts = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"config.data.mixture_rule is {self.rule!r}; it must be one of {RULES}.")
        for name, weight in self.weights.items():
            if not weight > 0:
                raise ConfigError(f"config.data.mixture.{name} is {weight}; weights must be positive.")
            if self.rule == "epochs" and weight != int(weight):
                raise ConfigError(
                    f"config.data.mixture.{name} is {weight}, but with mixture_rule=epochs a weight is how often each "
                    "record is seen in an epoch, a whole number."
                )
        object.__setattr__(self, "_parts", Parts(len(source) for source in self.sources.values()))

    @classmethod
    def of_list(cls, sources: Sequence[Source], names: Sequence[str]) -> "Mixture":
        """All records of several sources, each once an epoch."""
        unique = {f"{i}:{name}": source for i, (name, source) in enumerate(zip(names, sources, strict=True))}
        return cls(unique, dict.fromkeys(unique, 1.0), "epochs")

    @property
    def skipped(self) -> dict[str, int]:
        """Records left out of the sources' indices, by reason."""
        return add_counts(*(source.skipped for source in self.sources.values()))

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the first of them."""
        return tuple(problem for source in self.sources.values() for problem in source.problems)

    @property
    def dropped(self) -> list[dict[str, Any]]:
        """What filters dropped from each source."""
        return [
            dict(step) | {"step": f"{name}: {step['step']}"}
            for name, source in self.sources.items()
            for step in source.dropped
        ]

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, index: int) -> Record:
        part, place = self._parts.find(index)
        return list(self.sources.values())[part][place]

    def at(self, progress: float) -> "Mixture":
        changed = {name: source.at(progress) for name, source in self.sources.items()}
        same = all(changed[name] is source for name, source in self.sources.items())
        return self if same else replace(self, sources=changed)

    def names(self, index: int) -> tuple[str, str]:
        part, place = self._parts.find(index)
        return list(self.sources.values())[part].names(place)

    def captions(self, index: int) -> Mapping[str, tuple[str, ...]]:
        part, place = self._parts.find(index)
        return list(self.sources.values())[part].captions(place)

    def twin(self, index: int, caption: tuple[str, int], rng: np.random.Generator) -> Record | None:
        part, place = self._parts.find(index)
        return list(self.sources.values())[part].twin(place, caption, rng)

    @property
    def prefetches(self) -> bool:
        return any(source.prefetches for source in self.sources.values())

    def prefetch(self, indices: Sequence[int], *, images: bool = True) -> None:
        places = [self._parts.find(index) for index in indices]
        for part, source in enumerate(self.sources.values()):
            source.prefetch([place for owner, place in places if owner == part], images=images)
