"""Which attributes a text names: words of a fixed list."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Int

from vlc.errors import ConfigError


@dataclass(frozen=True)
class Attributes:
    """Attributes that texts may name, as whole words and whatever their case.

    Attributes:
        names: Of one word or several.
    """

    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Attributes":
        """Reads `"red,blue,light green"`.

        Raises:
            ConfigError: A name stands twice.
        """
        names = [" ".join(name.split()).lower() for name in text.split(",") if name.strip()]
        again = next((name for name in names if names.count(name) > 1), None)
        if again is not None:
            raise ConfigError(f'config.data.regions.attributes names "{again}" twice.')
        return cls(tuple(names))

    def __len__(self) -> int:
        return len(self.names)

    def named(self, texts: Iterable[str]) -> Int[np.ndarray, " A"]:
        """1 for those that any of the texts names, int8."""
        found = {match.lower() for text in texts for match in self._pattern.findall(text)}
        return np.array([name in found for name in self.names], np.int8)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self.names, key=len, reverse=True)
        return re.compile(rf"\b({'|'.join(map(re.escape, longest_first))})\b", re.IGNORECASE)
