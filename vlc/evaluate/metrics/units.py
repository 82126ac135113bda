"""Figures over claims: of a caption, of its references, and verdicts on them. NaN where there is nothing to judge."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from vlc.units import KINDS, Alike, Claim, matched

CAPTURE_WEIGHTS = {("object",): 5.0, ("attribute",): 5.0, ("relation", "event"): 2.0}


@dataclass(frozen=True)
class Claimed:
    """What is claimed of an image.

    Attributes:
        caption: Claims of the caption.
        meant: Those of its references, or of the truth.
        verdicts: 1, 0 or NaN for each of the caption.
        entailed: Of `meant`, by the caption: 1, 0 or NaN; nothing where nobody was asked.
    """

    caption: Sequence[Claim]
    meant: Sequence[Claim]
    verdicts: Float[np.ndarray, " N"]
    entailed: Float[np.ndarray, " M"]


def share(part: float, whole: float) -> float:
    """NaN of nothing."""
    return float(part / whole) if whole else float("nan")


def harmonic(one: float, other: float) -> float:
    """F1 of precision and recall; 0 where both are."""
    return 2 * one * other / (one + other) if one + other else (0.0 if one + other == 0 else float("nan"))


def dcscore(claimed: Claimed, alike: Alike) -> dict[str, float]:
    """Precision, recall and F1 of primitive units (DCScore: Painting with Words, arXiv 2503.07906, section 3).

    `P` the units of the caption, `P_t` the true ones, `O` those of the reference, `Q` the true ones that the reference
    has too: `precision = |P_t| / |P|`, `recall = (|Q| + |P_t - Q|) / (|O| + |P_t - Q|)`. The published figure is the
    mean of two F1, the second over descriptive units alone; claims of the four `KINDS` all are, so that `dcscore`
    differs from `units_f1` for readers alone that have further kinds. What a judge cannot decide counts as not true.

    Args:
        claimed: Of an image.
        alike: Whether two words mean the same.
    """
    precision, recall, f1 = _units(claimed, np.ones(len(claimed.caption), bool), alike)
    descriptive = np.array([claim.kind in KINDS for claim in claimed.caption], bool)
    return {
        "units_precision": precision, "units_recall": recall, "units_f1": f1,
        "dcscore": (f1 + _units(claimed, descriptive, alike)[2]) / 2, "units": float(len(claimed.caption)),
    }  # fmt: skip


def _units(claimed: Claimed, counted: Bool[np.ndarray, " N"], alike: Alike) -> tuple[float, float, float]:
    said = [claim for claim, one in zip(claimed.caption, counted, strict=True) if one]
    true = [claim for claim, yes in zip(said, claimed.verdicts[counted] == 1, strict=True) if yes]
    in_both = int(matched(true, claimed.meant, alike)[0].sum())
    further = len(true) - in_both
    precision, recall = share(len(true), len(said)), share(len(true), len(claimed.meant) + further)
    return precision, recall, harmonic(0.0 if np.isnan(precision) else precision, recall)


def capture(
    caption: Sequence[Claim], meant: Sequence[Claim], alike: Alike, near: Float[np.ndarray, "N M"] | None = None
) -> dict[str, float]:
    """CAPTURE's F1 of objects, attributes and relations, weighed 5:5:2 (Dong et al., 2024, arXiv 2405.19092).

    Pairs in the same words, then in synonyms, one to one; what is left adds its best cosine with what is left on the
    other side. Unlike the published program an attribute belongs to its object, so that exchanged colours are wrong;
    a kind of which neither text has any does not count against it; and matches do not depend on the order.

    Args:
        caption: Claims of the caption.
        meant: Of the references.
        alike: Whether two words mean the same.
        near: Cosines of all with all; `None`: what does not match is worth nothing.
    """
    total = weights = 0.0
    found: dict[str, float] = {}
    for kinds, weight in CAPTURE_WEIGHTS.items():
        rows = [i for i, claim in enumerate(caption) if claim.kind in kinds]
        columns = [j for j, claim in enumerate(meant) if claim.kind in kinds]
        if not rows and not columns:
            continue
        f1 = _soft_f1([caption[i] for i in rows], [meant[j] for j in columns], alike,
                      None if near is None else near[np.ix_(rows, columns)])  # fmt: skip
        found[f"capture_{kinds[0]}s"] = f1
        total, weights = total + weight * f1, weights + weight
    return {"capture": share(total, weights), **found}


def _soft_f1(some: Sequence[Claim], meant: Sequence[Claim], alike: Alike, near: np.ndarray | None) -> float:
    if not some or not meant:
        return 0.0
    has, taken = matched(some, meant, alike)
    right, covered = float(has.sum()), float(taken.sum())
    left = near[np.ix_(~has, ~taken)] if near is not None else np.zeros((0, 0))
    if left.size:
        right, covered = right + left.max(axis=1).sum(), covered + left.max(axis=0).sum()
    return harmonic(right / len(some), covered / len(meant))


def dnli(claimed: Claimed) -> dict[str, float]:
    """Propositions judged by entailment (KnowAda, arXiv 2411.09018, section 4).

    `dnli_precision` = entailed / own, `dnli_contradiction` = contradicted / own, where what the reference neither says
    nor denies counts as contradicted, as there; `dnli_recall` = share of the reference's propositions that the caption
    entails; `dnli_recall_ratio`, the published one, = entailed / number of the reference's, which may exceed 1.

    Args:
        claimed: With verdicts of a judge, both ways.
    """
    entailed, own = float((claimed.verdicts == 1).sum()), len(claimed.caption)
    return {
        "dnli_precision": share(entailed, own),
        "dnli_contradiction": share(own - entailed, own),
        "dnli_recall": share(float((claimed.entailed == 1).sum()), len(claimed.meant)),
        "dnli_recall_ratio": share(entailed, len(claimed.meant)),
    }


def autodq(claimed: Claimed) -> dict[str, float]:
    """Precision and recall of events (AutoDQ: Tarsier, arXiv 2407.00634, section 5); NaN where a side has none.

    The published program puts the reference in the place of a caption without events, which then scores 1.

    Args:
        claimed: With verdicts of a judge, both ways.
    """

    def part(claims: Sequence[Claim], verdicts: np.ndarray) -> float:
        events = np.array([claim.kind == "event" for claim in claims], bool)
        return share(float((verdicts[events] == 1).sum()), float(events.sum()))

    return {
        "event_precision": part(claimed.caption, claimed.verdicts),
        "event_recall": part(claimed.meant, claimed.entailed),
    }


def entity_figures(
    caption: Sequence[Claim], meant: Sequence[Claim], near: Float[np.ndarray, "N M"] | None, alike: Alike
) -> dict[str, float]:
    """Recall of the things that the references name, and how near the caption's are to them (EntityScore: FAVD,
    arXiv 2303.15616, section 4).

    `entity_recall`: share of the things of the references that are named; `entity_nearness`: the mean over the
    caption's things of the best cosine with one of the references, 1 for the same; `entity`: their harmonic mean.
    NaN where a side names nothing. `near`: cosines of all claims with all; `None`: other words are worth nothing.
    """
    rows = [i for i, claim in enumerate(caption) if claim.kind == "object"]
    columns = [j for j, claim in enumerate(meant) if claim.kind == "object"]
    if not rows or not columns:
        return dict.fromkeys(("entity", "entity_recall", "entity_nearness"), float("nan"))
    same = np.array([[alike(caption[i].subject, meant[j].subject) for j in columns] for i in rows], float)
    best = np.maximum(same, near[np.ix_(rows, columns)]) if near is not None else same
    recall, nearness = float(same.any(axis=0).mean()), float(best.max(axis=1).mean())
    return {"entity": harmonic(recall, nearness), "entity_recall": recall, "entity_nearness": nearness}


def hallucinated(named: Sequence[str], there: Sequence[str]) -> dict[str, float]:
    """CHAIR of a caption (Rohrbach et al., EMNLP 2018, arXiv 1809.02156, section 3).

    `chair_i`: share of the objects named that are not there, NaN where none is named; `chair_s`: whether any is.

    Args:
        named: Objects that the caption names, by their first names.
        there: Objects of the image, likewise.
    """
    known = set(there)
    wrong = sum(name not in known for name in named)
    return {"chair_i": share(wrong, len(named)), "chair_s": float(wrong > 0)}
