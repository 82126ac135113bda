"""Which claims of one text are made by another: in the same words, in synonyms, or in words nearly alike."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching

from vlc.units.claim import Claim

Alike = Callable[[str, str], bool]


def agree(one: Claim, other: Claim, alike: Alike) -> bool:
    """Whether two claims say the same: of one kind, each word alike."""
    return one.kind == other.kind and all(alike(a, b) for a, b in zip(one.words, other.words, strict=True))


def matched(found: Sequence[Claim], meant: Sequence[Claim], alike: Alike) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of claims that say the same, each claim in one pair at most: those in the same words first, then as many
    as there can be in words that are alike.

    The order of the claims says nothing about how many pairs there are.

    Args:
        found: Of a caption.
        meant: Of the references.
        alike: Whether two words mean the same.

    Returns:
        For each claim of `found`, whether it has a partner; likewise for `meant`.
    """
    has, taken = np.zeros(len(found), bool), np.zeros(len(meant), bool)
    for same in (lambda a, b: a == b, alike):
        rows, columns = np.flatnonzero(~has), np.flatnonzero(~taken)
        if len(rows) and len(columns):
            fits = np.array([[agree(found[i], meant[j], same) for j in columns.tolist()] for i in rows.tolist()])
            partner = maximum_bipartite_matching(csr_matrix(fits), perm_type="column")
            has[rows[partner >= 0]] = True
            taken[columns[partner[partner >= 0]]] = True
    return has, taken


def nearest(
    found: Sequence[Claim], meant: Sequence[Claim], embed: Callable[[Sequence[str]], Float[np.ndarray, "N D"]]
) -> Float[np.ndarray, "F M"]:
    """Cosines, 0 at the least, of claims as texts.

    Args:
        found: At least one.
        meant: At least one.
        embed: Unit embeddings of texts.
    """
    texts = embed([claim.text for claim in (*found, *meant)])
    return np.maximum(texts[: len(found)] @ texts[len(found) :].T, 0)
