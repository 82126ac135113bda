"""Words that mean the same: WordNet, as METEOR's program brings it with `pycocoevalcap`."""

import functools
import zipfile
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from vlc.curate.edits import kinds
from vlc.curate.edits.words import groups

_JAR, _FILE = "meteor/meteor-1.5.jar", "synonym/english.synsets"


@dataclass(frozen=True)
class Synonyms:
    """Which words mean the same.

    Attributes:
        name: As it is told beside every figure.
        senses: Of each word the numbers of what it may mean; words with one in common mean the same.
    """

    name: str
    senses: dict[str, frozenset[str]] = field(repr=False)

    def same(self, one: str, other: str) -> bool:
        """Whether they are one word, or have a meaning in common."""
        if one == other:
            return True
        key, key_of_other = one.replace(" ", "_"), other.replace(" ", "_")
        return bool(self.senses.get(key, frozenset()) & self.senses.get(key_of_other, frozenset()))


@functools.cache
def find_synonyms() -> Synonyms:
    """WordNet 3.0 where `pycocoevalcap` is installed, else the groups of words by which wrong texts are made."""
    found = find_spec("pycocoevalcap")
    for folder in (found.submodule_search_locations or ()) if found else ():
        if (Path(folder) / _JAR).is_file():
            return Synonyms("WordNet 3.0 (METEOR's)", _of_wordnet(Path(folder) / _JAR))
    return Synonyms(
        "a short list of synonyms (pip install 'vlc-jax[eval]' for WordNet)",
        {word: frozenset([f"{kind} {number}"]) for word, (kind, number) in kinds_of_words().items()},
    )


def _of_wordnet(jar: Path) -> dict[str, frozenset[str]]:
    """The file has a word a line, and in the next the numbers of its meanings."""
    with zipfile.ZipFile(jar) as archive:
        lines = archive.read(_FILE).decode("utf-8", "replace").splitlines()
    return {word: frozenset(senses.split()) for word, senses in zip(lines[::2], lines[1::2], strict=False)}


@functools.cache
def kinds_of_words() -> dict[str, tuple[str, int]]:
    """Of the words that wrong texts are made with the kind, and the number of their group, whose words mean the same:
    words of one kind and of different groups exclude each other."""
    return {
        word: (kind, number)
        for kind, row in (kinds.ATTRIBUTES | kinds.OBJECTS).items()
        for number, group in enumerate(groups(row))
        for word in group
    }
