"""How a kind of source is recognised and opened: one declaration a kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vlc.data.record import Source
from vlc.data.sources.columns import Columns
from vlc.storage import exists, find_in, is_folder, is_glob, join


@dataclass(frozen=True)
class Location:
    """What a user named.

    Attributes:
        path: A folder, a file, a glob, or a name with a prefix such as `tfds:`.
        split: What stands after a `#`; empty where nothing does.
    """

    path: str
    split: str = ""

    @cached_property
    def is_folder(self) -> bool:
        """Whether it is a folder that exists."""
        return is_folder(self.path)

    @cached_property
    def is_file(self) -> bool:
        """Whether it is a file that exists."""
        return not is_glob(self.path) and not self.is_folder and exists(self.path)

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of what lies directly in the folder; empty where it is none."""
        if not self.is_folder:
            return frozenset()
        return frozenset(found.rstrip("/").rsplit("/", 1)[-1] for found in find_in(self.path, "*"))

    def below(self, name: str) -> "Location":
        """A folder inside of this one."""
        return Location(join(self.path, name))


@dataclass(frozen=True)
class SourceKind:
    """A kind of source. One in `KINDS` can be named wherever data are.

    Attributes:
        name: For messages and docs/data.md.
        matches: Whether a location is of this kind; the first kind that matches is taken.
        open: Opens it, from the location, how columns are read, and the settings of generated scenes.
    """

    name: str
    matches: Callable[[Location], bool]
    open: Callable[[Location, Columns, dict[str, Any]], Source]
