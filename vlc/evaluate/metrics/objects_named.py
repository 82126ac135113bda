"""Objects that a text names, by a list of names for each: CHAIR's file of synonyms."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vlc.errors import DataError
from vlc.storage import local_copy


class ObjectNames:
    """Names of objects and their first name.

    A name is found as whole words, the longest first: `hot dog` names no dog.
    """

    def __init__(self, first: Mapping[str, str]):
        """
        Args:
            first: The first name of each name, in lower case.
        """
        self.first = dict(first)
        longest = sorted(self.first, key=lambda name: (-len(name), name))
        self._pattern = re.compile(rf"\b({'|'.join(map(re.escape, longest))})(?:es|s)?\b")

    def named(self, text: str) -> list[str]:
        """First names of the objects that a text names, each once for each time."""
        return [self.first[match.group(1)] for match in self._pattern.finditer(text.lower())]

    def known(self, labels: Sequence[str]) -> list[str]:
        """First names of labels; those that the list does not have are left out."""
        return [self.first[label.lower()] for label in labels if label.lower() in self.first]


def read_object_names(path: str | Path) -> ObjectNames:
    """A file with a line for each object: its name and those that mean the same, with commas (CHAIR's layout).

    Raises:
        DataError: It cannot be read, is empty, or gives one name to two objects.
    """
    try:
        lines = local_copy(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    first: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        names = [name.strip().lower() for name in line.split(",") if name.strip()]
        for name in names:
            if first.setdefault(name, names[0]) != names[0]:
                raise DataError(f'{path}, line {number}: "{name}" is a name of {first[name]} already.')
    if not first:
        raise DataError(f"{path}: has no names; a line for each object is meant: person, man, woman, ...")
    return ObjectNames(first)
