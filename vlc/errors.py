"""Errors that a user can act on: each message says what was wrong, where, and how to mend it."""

import difflib
from collections.abc import Iterable


class VlcError(Exception):
    """Base of every error that the command line prints as one message, without a traceback."""


class ConfigError(VlcError):
    """A config names something that does not exist or cannot work."""


class DataError(VlcError):
    """Input files are missing, empty, damaged or of the wrong type.

    Attributes:
        reason: One of `vlc.data.record.REASONS`, for counting skipped records.
    """

    def __init__(self, message: str, reason: str = "file"):
        super().__init__(message)
        self.reason = reason


class CheckpointError(VlcError):
    """A checkpoint is missing, damaged, or does not match the model."""


class TrainingDiverged(VlcError):
    """A loss term, or the gradient, became NaN or infinite.

    Attributes:
        again: It was the first time at this step: a fault of the hardware would not come twice, so another start is
            worth it.
    """

    def __init__(self, message: str, *, again: bool = False):
        super().__init__(message)
        self.again = again


class StoreAway(VlcError):
    """A bucket's store did not answer for longer than it is waited for; another start may find it there again."""


class StartError(VlcError):
    """The processes of a run could not start together."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns `' Did you mean "x"?'` for the nearest known name, or the list of names when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f' Did you mean "{near[0]}"?' if near else f" Known: {', '.join(known)}."
