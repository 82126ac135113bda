"""Reading a config by dotted keys."""

from typing import Any

# A ConfigDict. A type checker cannot know what it holds, and takes every value for all types at once.
Config = Any


def get_key(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config
