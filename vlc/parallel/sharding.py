"""Where every array lives: one table from the names of parameter axes to mesh axes."""

from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlc.errors import ConfigError
from vlc.models.layers import BATCH_AXES

# Matrices are split twice: by `tensor` along heads and hidden units, by `fsdp` along the model's width.
RULES: tuple[tuple[str, str | None], ...] = (
    ("embed", "fsdp"),
    ("mlp", "tensor"),
    ("heads", "tensor"),
    ("kv", None),
    ("pair", None),
    ("layers", None),
    ("norm", None),
    ("position", None),
    ("pixels", None),
    ("image", None),
    ("shared", None),
    ("vocab", None),
    ("rank", None),
    ("corner", None),
)


def state_sharding(state: Any, mesh: Mesh) -> Any:
    """Shardings of a train state, or of any tree of named parameters (shapes are enough).

    Raises:
        ConfigError: Some axis cannot be divided; every such parameter is listed.
    """
    with nnx.logical_axis_rules(RULES):
        named = dict(jax.tree_util.tree_leaves_with_path(nnx.get_named_sharding(state, mesh)))
    # Flax names also what an optimizer has no state for, such as frozen parameters.
    sharding = jax.tree_util.tree_map_with_path(
        lambda path, leaf: named[path] if _is_param(path) or _fits(leaf, named[path]) else replicated(mesh), state
    )
    problems = []
    shapes = dict(jax.tree_util.tree_leaves_with_path(state))
    for path, spec in jax.tree_util.tree_leaves_with_path(sharding):
        leaf = shapes[path]
        if not _is_param(path):
            continue
        for size, axis in zip(leaf.shape, spec.spec, strict=False):
            if axis is not None and size % mesh.shape[axis]:
                name = jax.tree_util.keystr(path, simple=True, separator=".")
                problems.append(f"  {name} {leaf.shape}: {size} is not divisible by {axis}={mesh.shape[axis]}")
    if problems:
        raise ConfigError("config.mesh does not divide the model:\n" + "\n".join(sorted(set(problems))))
    return sharding


def _is_param(path: Any) -> bool:
    return "params" in jax.tree_util.keystr(path)


def _fits(leaf: Any, sharding: NamedSharding) -> bool:
    """Whether an array can lie as its name says. What an optimizer keeps of the rows of a parameter cannot."""
    axes = sharding.spec
    return len(axes) <= len(leaf.shape) and all(
        axis is None or size % sharding.mesh.shape[axis] == 0 for size, axis in zip(leaf.shape, axes, strict=False)
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Batches are spread over data and fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())
