"""A claim: the smallest thing that a text says, which is so or not."""

from collections.abc import Iterable
from typing import NamedTuple

KINDS = ("object", "attribute", "relation", "event")


class Claim(NamedTuple):
    """One primitive unit of a text (Painting with Words, arXiv 2503.07906, section 3.1).

    Attributes:
        kind: `object`: there is a `subject`. `attribute`: the subject is `predicate`. `relation`: it stands so to
            `object`. `event`: it does what the verb `predicate` says, to the object or to nothing. A reader of one's
            own may have other kinds.
        subject: A word in its dictionary form.
        predicate: Likewise; empty of objects.
        object: Likewise; empty where nothing else is named.
        mention: The claims of one number are about one thing.
        anchor: The number of the thing that `object` names.
    """

    kind: str
    subject: str
    predicate: str = ""
    object: str = ""
    mention: int = -1
    anchor: int = -1

    @property
    def words(self) -> tuple[str, ...]:
        """What it says, without the number of the thing."""
        return self.subject, self.predicate, self.object

    @property
    def text(self) -> str:
        """In words: `star`, `red star`, `star left of ring`."""
        if self.kind == "attribute":
            return f"{self.predicate} {self.subject}"
        return " ".join(filter(None, self.words))


def distinct(claims: Iterable[Claim]) -> list[Claim]:
    """Each claim once, by its words: what several texts say of one picture."""
    found: dict[tuple[str, ...], Claim] = {}
    for claim in claims:
        found.setdefault((claim.kind, *claim.words), claim)
    return list(found.values())
