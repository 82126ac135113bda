"""Numbers that the environment sets."""

import os

from vlc.errors import ConfigError


def number_of(name: str, default: float) -> float:
    """The value of a variable, or the default where it is not set.

    Raises:
        ConfigError: It is no number of 0 or more.
    """
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise ConfigError(f'${name} is "{text}"; it must be a number, 0 or more.')
    return value
