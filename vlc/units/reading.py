"""What reads the claims of a text: exactly for scenes, by grammar for English, or a function of one's own."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlc.curate.edits.words import find_reader
from vlc.errors import ConfigError, DataError
from vlc.units.claim import Claim
from vlc.units.grammar_claims import read_by_grammar
from vlc.units.scene_claims import read_scene_claims


@dataclass(frozen=True)
class ClaimReader:
    """What reads claims.

    Attributes:
        name: As it is told beside every figure.
        read: The claims of a text.
    """

    name: str
    read: Callable[[str], Sequence[Claim]] = field(repr=False)


def find_claim_reader(name: str = "rules") -> ClaimReader:
    """`scenes`, `rules` (spaCy's grammar where it is installed, else lists of words), or `package.module.function`.

    Raises:
        ConfigError: There is no such reader.
    """
    if name == "scenes":
        return ClaimReader("the words of scenes, exactly", read_scene_claims)
    if name == "rules":
        reader = find_reader()
        return ClaimReader(reader.name, lambda text: read_by_grammar(text, reader))
    return ClaimReader(name, _checked(name, own_function(name, "a reader of claims: scenes, rules")))


def own_function(name: str, what: str) -> Callable[..., Any]:
    """The function of that name, `package.module.function`.

    Args:
        name: Its name.
        what: What it should be and what there is, for the error.

    Raises:
        ConfigError: It cannot be imported.
    """
    module, _, function = name.rpartition(".")
    if not module:
        raise ConfigError(f'"{name}" is not {what}, or a function of your own as package.module.function.')
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{name} cannot be imported ({error}).") from error


def _checked(name: str, read: Callable[[str], Any]) -> Callable[[str], Sequence[Claim]]:
    def claims(text: str) -> Sequence[Claim]:
        try:
            return [Claim(*_fields(one)) for one in read(text)]
        except TypeError as error:
            raise DataError(f'{name} did not give claims of "{text:.80}" ({error}).') from error

    return claims


def _fields(one: Any) -> Sequence[Any]:
    if not isinstance(one, tuple | list):
        raise TypeError(f"kind, subject, predicate and object are meant, not {one!r}")
    return one
