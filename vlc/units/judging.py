"""What says whether claims are so: references, or a function of one's own that may ask anybody."""

import concurrent.futures
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from vlc.errors import DataError
from vlc.units.claim import Claim
from vlc.units.matching import Alike, agree
from vlc.units.reading import own_function
from vlc.units.synonyms import kinds_of_words

# Claims of a text, and the references of its image: 1 for what they say, 0 for what they deny, NaN for neither.
Verdicts = Callable[[Sequence[Claim], Sequence[Claim]], Sequence[float] | Float[np.ndarray, " N"]]


@dataclass(frozen=True)
class Judge:
    """What judges claims.

    Attributes:
        name: As it is told beside every figure.
        verdicts: See `Verdicts`.
        seconds: How long it may think about one text.
    """

    name: str
    verdicts: Verdicts = field(repr=False)
    seconds: float = 60.0


def find_judge(name: str, alike: Alike, seconds: float = 60.0) -> Judge:
    """`references`, or `package.module.function`, which is called with the claims of a text and of its references.

    Args:
        name: Of the judge.
        alike: Whether two words mean the same, for `references`.
        seconds: How long it may take for a text.

    Raises:
        ConfigError: There is no such judge.
    """
    if name == "references":
        return Judge("the references", lambda claims, meant: by_references(claims, meant, alike), seconds)
    return Judge(name, own_function(name, "a judge of claims: references"), seconds)


def by_references(claims: Sequence[Claim], meant: Sequence[Claim], alike: Alike) -> Float[np.ndarray, " N"]:
    """1 for what some reference says, 0 for a quality that excludes one which they give the same thing, else NaN."""
    return np.array([_verdict(claim, meant, alike) for claim in claims], np.float64)


def _verdict(claim: Claim, meant: Sequence[Claim], alike: Alike) -> float:
    if any(agree(claim, other, alike) for other in meant):
        return 1.0
    of_same = [other.predicate for other in meant if other.kind == "attribute" and alike(other.subject, claim.subject)]
    return 0.0 if claim.kind == "attribute" and any(_exclude(claim.predicate, word) for word in of_same) else np.nan


def _exclude(one: str, other: str) -> bool:
    known = kinds_of_words()
    kind, group = known.get(one, ("", 0))
    kind_of_other, group_of_other = known.get(other, ("", 0))
    return bool(kind) and kind == kind_of_other and group != group_of_other


def judged(judge: Judge, claims: Sequence[Claim], meant: Sequence[Claim], where: str) -> Float[np.ndarray, " N"]:
    """The verdicts of a judge, checked.

    Args:
        judge: Who.
        claims: Of a caption; of none nothing is asked.
        meant: Of its references.
        where: Of what caption, for errors.

    Raises:
        DataError: It fails, takes too long, or gives another number of verdicts or others than 0, 1 and NaN.
    """
    if not claims:
        return np.zeros(0)
    answer = _in_time(judge, claims, meant, where)
    try:
        found = np.asarray(answer, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: the judge {judge.name} did not give numbers ({error}).") from error
    if found.shape != (len(claims),) or not np.isin(found[~np.isnan(found)], (0, 1)).all():
        raise DataError(
            f"{where}: the judge {judge.name} is to give 0, 1 or NaN for each of {len(claims)} claims, and gave "
            f"{list(found.shape)} values: {found.ravel()[:5].tolist()}."
        )
    return found


def _in_time(judge: Judge, claims: Sequence[Claim], meant: Sequence[Claim], where: str):
    """Its answer, for which nobody waits longer than it may think: the thread is left alone then."""
    done: concurrent.futures.Future = concurrent.futures.Future()

    def ask() -> None:
        try:
            done.set_result(judge.verdicts(claims, meant))
        except BaseException as error:  # handed on
            done.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return done.result(timeout=judge.seconds)
    except TimeoutError as error:
        raise DataError(
            f"{where}: the judge {judge.name} gave no answer in {judge.seconds:g} seconds (--judge-seconds)."
        ) from error
    except Exception as error:
        raise DataError(f"{where}: the judge {judge.name} failed ({type(error).__name__}: {error}).") from error
