"""Which of their arrays is which of ours, as a list of rules that is read both ways: to import and to export.

A rule names paths of our parameters and names in their file, and how the ones become the others. Where a name holds
`{}`, their layers are arrays of their own and ours are stacked.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlc.errors import CheckpointError
from vlc.interop.weights import Entry, Weights

Arrays = tuple[Any, ...]
LISTED = 20  # differences of a kind that a message names


@dataclass(frozen=True)
class Change:
    """How their arrays become ours (`read`) and ours become theirs (`write`)."""

    read: Callable[..., Arrays]
    write: Callable[..., Arrays]


@dataclass(frozen=True)
class Rule:
    """Arrays that belong together.

    Attributes:
        ours: Paths of our parameters, e.g. `image_tower/stack/blocks/norm1/scale`.
        theirs: Names in their file.
        change: How the ones become the others, a layer at a time.
        stacked: Whether their layers are stacked as ours are (big_vision's scan).
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    change: Change
    stacked: bool = False

    @property
    def layered(self) -> bool:
        """Whether it speaks of a stack of layers."""
        return self.stacked or "{}" in self.theirs[0]


def _numpy_or_jax(array: Any) -> Any:
    return np if isinstance(array, np.ndarray) else jnp


def _one(read: Callable[[Any], Any], write: Callable[[Any], Any]) -> Change:
    return Change(lambda x: (read(x),), lambda x: (write(x),))


SAME = _one(lambda x: x, lambda x: x)
TRANSPOSED = _one(lambda x: x.T, lambda x: x.T)
ROW = _one(lambda x: x.reshape(1, -1), lambda x: x.reshape(-1))  # a vector that we keep as a table of one row
SCALAR = _one(lambda x: x.reshape(()), lambda x: x.reshape(1))
UNSQUEEZED = _one(lambda x: x[0], lambda x: x[None])  # theirs has an axis of one before ours


def split_heads(heads: int) -> Change:
    """`[H * K, W]` of PyTorch to `[W, H, K]`."""
    return _one(
        lambda x: x.T.reshape(x.shape[1], heads, -1),
        lambda x: x.reshape(x.shape[0], -1).T,
    )


def split_bias(heads: int) -> Change:
    """`[H * K]` to `[H, K]`."""
    return _one(lambda x: x.reshape(heads, -1), lambda x: x.reshape(-1))


def joined_heads(heads: int) -> Change:
    """`[W, H * K]` of PyTorch to `[H, K, W]`."""
    return _one(
        lambda x: x.T.reshape(heads, -1, x.shape[0]),
        lambda x: x.reshape(-1, x.shape[-1]).T,
    )


def pair(one: Change) -> Change:
    """Keys and values, which we keep in one array with an axis of two before the heads."""

    def read(key: Any, value: Any) -> Arrays:
        (key,), (value,) = one.read(key), one.read(value)
        return (_numpy_or_jax(key).stack([key, value], axis=key.ndim - 2),)

    def write(both: Any) -> Arrays:
        return tuple(one.write(both[..., place, :, :])[0] for place in range(2))

    return Change(read, write)


def fused(one: Change, parts: int = 3) -> Change:
    """Queries, keys and values one under the other, as in PyTorch's `in_proj_weight`; or keys and values alone (2)."""
    key_value = pair(one)

    def read(x: Any) -> Arrays:
        third = x.shape[0] // parts
        pieces = [x[i * third : (i + 1) * third] for i in range(parts)]
        return (*(one.read(piece)[0] for piece in pieces[:-2]), *key_value.read(*pieces[-2:]))

    def write(*ours: Any) -> Arrays:
        pieces = [*(one.write(x)[0] for x in ours[:-1]), *key_value.write(ours[-1])]
        return (_numpy_or_jax(pieces[0]).concatenate(pieces),)

    return Change(read, write)


def patches(patch: int) -> Change:
    """A convolution's kernel `[W, 3, p, p]` to our linear map of a patch's pixels `[p * p * 3, W]`."""
    return _one(
        lambda x: x.transpose(2, 3, 1, 0).reshape(patch * patch * 3, -1),
        lambda x: x.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1),
    )


def flax_patches(patch: int) -> Change:
    """The same from flax's `[p, p, 3, W]`."""
    return _one(lambda x: x.reshape(patch * patch * 3, -1), lambda x: x.reshape(patch, patch, 3, -1))


def rule(ours: str | tuple[str, ...], theirs: str | tuple[str, ...], change: Change = SAME) -> Rule:
    """A rule, whose single names need no tuple."""
    as_tuple = [(names,) if isinstance(names, str) else names for names in (ours, theirs)]
    return Rule(as_tuple[0], as_tuple[1], change)


def norm(ours: str, theirs: str) -> list[Rule]:
    """PyTorch's LayerNorm."""
    return [rule(f"{ours}/scale", f"{theirs}.weight"), rule(f"{ours}/bias", f"{theirs}.bias")]


def dense(ours: str, theirs: str, *, bias: bool = True) -> list[Rule]:
    """PyTorch's Linear."""
    rules = [rule(f"{ours}/kernel", f"{theirs}.weight", TRANSPOSED)]
    return [*rules, rule(f"{ours}/bias", f"{theirs}.bias")] if bias else rules


def attention_out(ours: str, theirs: str, heads: int) -> list[Rule]:
    """The map behind the heads."""
    return [
        rule(f"{ours}/out/kernel", f"{theirs}.weight", joined_heads(heads)),
        rule(f"{ours}/out/bias", f"{theirs}.bias"),
    ]


def attention(ours: str, theirs: Sequence[str], heads: int) -> list[Rule]:
    """Attention with maps of its own for query, key, value and what comes out."""
    query, key, value, out = theirs
    weight, bias = split_heads(heads), split_bias(heads)
    return [
        rule(f"{ours}/query/kernel", f"{query}.weight", weight),
        rule(f"{ours}/query/bias", f"{query}.bias", bias),
        rule(f"{ours}/key_value/kernel", (f"{key}.weight", f"{value}.weight"), pair(weight)),
        rule(f"{ours}/key_value/bias", (f"{key}.bias", f"{value}.bias"), pair(bias)),
        *attention_out(ours, out, heads),
    ]


def fused_attention(ours: str, weight: str, bias: str, out: str, heads: int) -> list[Rule]:
    """Attention with queries, keys and values in one array."""
    return [
        rule((f"{ours}/query/kernel", f"{ours}/key_value/kernel"), weight, fused(split_heads(heads))),
        rule((f"{ours}/query/bias", f"{ours}/key_value/bias"), bias, fused(split_bias(heads))),
        *attention_out(ours, out, heads),
    ]


# -- applying them


def _expected(rules: Iterable[Rule], ours: Mapping[str, Any]) -> Iterator[tuple[Rule, list[tuple[str, ...]], Any]]:
    """Each rule with the names of each layer, and the shapes that their arrays must have."""
    for one in rules:
        shapes = [jax.ShapeDtypeStruct(ours[path].shape, np.float32) for path in one.ours]
        layers = shapes[0].shape[0] if one.layered else 0
        if one.layered:
            shapes = [jax.ShapeDtypeStruct(shape.shape[1:], np.float32) for shape in shapes]
        expected = [part.shape for part in jax.eval_shape(one.change.write, *shapes)]
        if one.stacked:
            expected = [(layers, *shape) for shape in expected]
        count = layers if one.layered and not one.stacked else 1
        yield one, [tuple(name.format(layer) for name in one.theirs) for layer in range(count)], expected


def read_arrays(
    rules: Iterable[Rule], weights: Weights, ours: Mapping[str, Any], *, ignored: Callable[[str, Entry], bool]
) -> dict[str, np.ndarray]:
    """Our parameters from their file.

    Args:
        rules: Must cover every path of `ours`.
        weights: Their file.
        ours: Shapes of our parameters, by path.
        ignored: Whether an array of theirs is known not to be a weight.

    Raises:
        CheckpointError: Arrays are missing, unexpected, mis-shaped or of another type; every one is listed.
    """
    plan = list(_expected(rules, ours))
    _check(plan, weights, ignored)
    made = {}
    for one, layers, _ in plan:
        read = [one.change.read(*arrays) for arrays in _arrays(one, layers, weights)]
        for place, path in enumerate(one.ours):
            parts = [arrays[place] for arrays in read]
            made[path] = np.stack(parts) if one.layered else np.asarray(parts[0], order="C")
    return made


def _arrays(one: Rule, layers: list[tuple[str, ...]], weights: Weights) -> Iterator[list[np.ndarray]]:
    """Their arrays, a layer at a time."""
    if one.stacked:
        stacks = [weights.read(name) for name in layers[0]]
        yield from ([stack[layer] for stack in stacks] for layer in range(len(stacks[0])))
        return
    for names in layers:
        yield [weights.read(name) for name in names]


def _check(plan: list, weights: Weights, ignored: Callable[[str, Entry], bool]) -> None:
    expected = {
        name: shape for _, layers, shapes in plan for names in layers for name, shape in zip(names, shapes, strict=True)
    }
    have = weights.entries
    problems = {
        "missing": [f"{name} {list(shape)}" for name, shape in expected.items() if name not in have],
        "unexpected": [f"{n} {entry}" for n, entry in have.items() if n not in expected and not ignored(n, entry)],
        "of another shape": [
            f"{name}: {list(shape)} is needed, the file has {list(have[name].shape)}"
            for name, shape in expected.items()
            if name in have and tuple(have[name].shape) != tuple(shape)
        ],
        "of a type that float32 does not hold": [
            f"{name} {have[name].dtype}" for name in expected if name in have and not have[name].is_float
        ],
    }
    lines = []
    for kind, listed in problems.items():
        if listed:
            more = [f"... and {len(listed) - LISTED} more"] if len(listed) > LISTED else []
            lines += [f"{len(listed)} {kind}:", *(f"  {line}" for line in [*sorted(listed)[:LISTED], *more])]
    if lines:
        raise CheckpointError(
            f"{weights.where} does not hold the model that its config describes.\n" + "\n".join(lines)
        )


def write_arrays(rules: Iterable[Rule], ours: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their arrays from our parameters; rules for stacked layers are for reading only."""
    made = {}
    for one, layers, _ in _expected(rules, ours):
        assert not one.stacked, f"{one.theirs} cannot be written"
        arrays = [np.asarray(ours[path]) for path in one.ours]
        for layer, names in enumerate(layers):
            parts = one.change.write(*(array[layer] for array in arrays)) if one.layered else one.change.write(*arrays)
            made |= {name: np.asarray(part, order="C") for name, part in zip(names, parts, strict=True)}
    return made
