"""Asking a store again: what passes by itself, what does not, and how both are said.

Buckets answer 429 and 503 when they are busy, connections are reset, and replies are cut short. All of it passes. What
is missing, forbidden or asked without credentials does not.
"""

import logging
import random
import time
from collections.abc import Callable

from vlc.storage.variables import number_of

_PATIENCE = 300.0  # seconds that a store may be away for, where $VLC_STORE_PATIENCE does not say
_FIRST, _LONGEST = 0.25, 20.0  # seconds between attempts
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_NETWORK = ("aiohttp", "botocore", "aiobotocore", "urllib3", "http", "requests", "fsspec")  # whose errors may pass
log = logging.getLogger("vlc")


class ShortRead(OSError):
    """Fewer bytes came than there are."""


class Unreachable(OSError):
    """A store did not answer as it should for all of `patience()`."""


def patience() -> float:
    """Seconds that a store may be away for."""
    return number_of("VLC_STORE_PATIENCE", _PATIENCE)


def patiently[T](ask: Callable[[], T], path: object) -> T:
    """What `ask` gives, asked again with growing pauses while what it raises may pass.

    Args:
        ask: Reads or writes something; doing it twice is the same as once.
        path: The object, for messages.

    Raises:
        FileNotFoundError, PermissionError: At once, whatever the store's library calls them.
        Unreachable: When patience has run out.
    """
    end = time.monotonic() + patience()
    pause, said = _FIRST, False
    while True:
        try:
            return ask()
        except Exception as error:
            known = as_os_error(error, path)
            if known is None:
                raise
            if not may_pass(error):
                raise known from error
            left = end - time.monotonic()
            if left <= 0:
                raise Unreachable(known.errno, known.strerror, str(path)) from error
            if not said and pause > 1:
                log.warning("%s: the store does not answer as it should (%s); trying on.", path, _said(error))
                said = True
            time.sleep(min(left, pause * random.uniform(0.5, 1.0)))
            pause = min(2 * pause, _LONGEST)


def may_pass(error: BaseException) -> bool:
    """Whether an error says nothing about what is asked for."""
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)):
        return False
    if _lacks_credentials(error) or _is_forbidden(error):
        return False
    code = _code(error)
    if code is not None:
        return code in _BUSY
    return isinstance(error, (OSError, TimeoutError)) or _of_network(error)


def as_os_error(error: BaseException, path: object) -> OSError | None:
    """An error of a store's library as one that Python knows; `None` where it is something else."""
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(2, "there is no such object, or no such bucket", str(path))
    if _lacks_credentials(error):
        return PermissionError(13, "there are no credentials for this store", str(path))
    code = _code(error)
    if isinstance(error, PermissionError) or code in (401, 403) or _is_forbidden(error):
        return PermissionError(13, f"the store forbids it ({_said(error)})", str(path))
    if isinstance(error, OSError):
        return error if error.strerror else OSError(5, _said(error), str(path))
    if code is not None or _of_network(error):
        return OSError(5, _said(error), str(path))
    return None


def _code(error: BaseException) -> int | None:
    """The HTTP status that a store's library tells of."""
    for name in ("code", "status"):
        value = getattr(error, name, None)
        if isinstance(value, (int, str)) and str(value).isdigit() and 100 <= int(value) < 600:
            return int(value)
    answer = getattr(error, "response", None)
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") if isinstance(answer, dict) else None
    return status if isinstance(status, int) else None


def _lacks_credentials(error: BaseException) -> bool:
    return any("Credentials" in kind.__name__ for kind in type(error).__mro__) or (
        isinstance(error, OSError) and "credentials" in str(error).lower()
    )


def _is_forbidden(error: BaseException) -> bool:
    """gcsfs has no status, but this word, for it."""
    return isinstance(error, OSError) and str(error).startswith("Forbidden")


def _of_network(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _NETWORK


def _said(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:200]
