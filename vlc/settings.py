"""Declarations of settings: the default, the range and the explanation of each stand in one place.

A section is a class whose attributes are settings or other sections:

    class Optimizer(Section):
        "Optimizer and learning rate."
        lr = number(1e-3, "the peak learning rate", low=0)

The config with its defaults, the checks, and docs/config.md are all made from these declarations.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ml_collections import ConfigDict

from vlc.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        default: Its value where nothing else is set.
        help: What it is, for the reference page.
        range: Which values are allowed, in words.
        allows: Whether a value is allowed.
        choices: The values, where there are only a few.
    """

    default: Any
    help: str
    range: str
    allows: Callable[[Any], bool]
    choices: tuple[Any, ...] = ()

    def check(self, key: str, value: Any) -> None:
        """Raises `ConfigError` where the value is not allowed."""
        if self.allows(value):
            return
        if self.choices:
            hint = did_you_mean(str(value), map(str, self.choices))
            raise ConfigError(f'config.{key} is "{value}", which is not known.{hint}')
        raise ConfigError(f"config.{key} is {value!r}; it must be {self.range}.")


class Section:
    """Base of the sections; a subclass with `free = True` holds names that the user chooses."""

    free = False


def number(
    default: float, help: str, *, low: float | None = None, above: float | None = None, high: float | None = None,
    below: float | None = None,
) -> Any:  # fmt: skip
    """A finite number: `low` and `high` are allowed themselves, `above` and `below` are not."""

    def allows(value: Any) -> bool:
        return is_number(value) and _within(value, low, above, high, below)

    return Setting(default, help, f"a number{_range(low, above, high, below)}", allows)


def integer(default: int, help: str, *, low: int | None = None, high: int | None = None) -> Any:
    """A whole number."""

    def allows(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and _within(value, low, None, high, None)

    return Setting(default, help, f"a whole number{_range(low, None, high, None)}", allows)


def choice(default: Any, choices: Sequence[Any], help: str) -> Any:
    """One of a few values."""
    allowed = tuple(choices)
    return Setting(default, help, f"one of {', '.join(map(str, allowed))}", lambda value: value in allowed, allowed)


def flag(default: bool, help: str) -> Any:
    """Yes or no."""
    return Setting(default, help, "True or False", lambda value: isinstance(value, bool))


def text(default: str, help: str) -> Any:
    """Any text; what it means is checked where it is read."""
    return Setting(default, help, "text", lambda value: isinstance(value, str))


def names(default: tuple[str, ...], help: str) -> Any:
    """Several texts."""

    def allows(value: Any) -> bool:
        return isinstance(value, (tuple, list)) and all(isinstance(item, str) for item in value)

    return Setting(default, help, "a tuple of texts", allows)


def numbers(
    default: tuple[float, ...], help: str, *, length: int | None = None, low: float | None = None,
    above: float | None = None, high: float | None = None, rising: bool = False,
) -> Any:  # fmt: skip
    """Several numbers, `length` of them where that is given; `rising`: none is below the one before."""

    def allows(value: Any) -> bool:
        if not isinstance(value, (tuple, list)) or (length is not None and len(value) != length):
            return False
        if not all(is_number(item) and _within(item, low, above, high, None) for item in value):
            return False
        return not rising or list(value) == sorted(value)

    count = f"{length} numbers" if length is not None else "numbers"
    order = ", in rising order" if rising else ""
    return Setting(default, help, f"a tuple of {count}{_range(low, above, high, None)}{order}", allows)


def make_config(section: type[Section]) -> ConfigDict:
    """The defaults of a section as a `ConfigDict`."""
    values = {
        name: make_config(item) if isinstance(item, type) else item.default for name, item in _items(section).items()
    }
    return ConfigDict(values)


def walk(section: type[Section], prefix: str = "") -> Iterator[tuple[str, Setting]]:
    """Every setting with its dotted key, in the order of declaration."""
    for name, item in _items(section).items():
        if isinstance(item, type):
            yield from walk(item, f"{prefix}{name}.")
        else:
            yield prefix + name, item


def sections(section: type[Section], prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every section with its dotted key, the outer before the inner; the outermost has the empty key."""
    yield prefix.rstrip("."), section
    for name, item in _items(section).items():
        if isinstance(item, type):
            yield from sections(item, f"{prefix}{name}.")


def settings_of(section: type[Section]) -> dict[str, Setting]:
    """The settings of a section itself by name, without those of the sections in it."""
    return {name: item for name, item in _items(section).items() if isinstance(item, Setting)}


def _items(section: type[Section]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(section.__mro__):
        found |= {name: item for name, item in vars(base).items() if isinstance(item, Setting) or _is_section(item)}
    return found


def _is_section(item: Any) -> bool:
    return isinstance(item, type) and issubclass(item, Section)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, of Python or NumPy."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python or NumPy."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _within(value: float, low: float | None, above: float | None, high: float | None, below: float | None) -> bool:
    return (
        (low is None or value >= low)
        and (above is None or value > above)
        and (high is None or value <= high)
        and (below is None or value < below)
    )


def _range(low: float | None, above: float | None, high: float | None, below: float | None) -> str:
    least = f"{low:g} or more" if low is not None else f"above {above:g}" if above is not None else ""
    most = f"at most {high:g}" if high is not None else f"below {below:g}" if below is not None else ""
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    both = " and ".join(part for part in (least, most) if part)
    return f", {both}" if both else ""
