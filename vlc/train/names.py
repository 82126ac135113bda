"""Parameters by their names."""

from typing import Any

import jax


def names_of(path: Any) -> list[str]:
    """The parts of a parameter's path: `image_tower`, `stack`, `blocks`, `mlp`, `up`, `kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/").split("/")
