"""What devices send each other in a step, read from the program as XLA's partitioner left it.

There collectives are plain, on every platform; later passes of TPU compilers hide them in fused loops. A loop's body
counts as often as it runs. An all-reduce of which only a slice is used counts as the reduce-scatter that compilers make
of it.
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

OPERATIONS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2,
          "f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8}  # fmt: skip
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
_CALLED = re.compile(r"(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
        operation: One of `OPERATIONS`.
        axes: The mesh axes that it goes along.
        bytes: Of its result (of what goes in, for reduce-scatter).
        times: How often it runs in a step.
        source: What in the model it belongs to, JAX's name stack.
        group: Devices that take part together.
    """

    operation: str
    axes: tuple[str, ...]
    bytes: int
    times: int
    source: str
    group: int

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a step, with the algorithms that go around a ring."""
        rest = (self.group - 1) / self.group
        share = {"all-reduce": 2 * rest, "collective-permute": 1.0}.get(self.operation, rest)
        return self.bytes * self.times * share


@dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    operation: str
    rest: str


def read_collectives(partitioned: str, mesh: dict[str, int]) -> list[Collective]:
    """All collectives of a program.

    Args:
        partitioned: HLO text.
        mesh: Sizes of the mesh axes, in order.
    """
    if not partitioned:
        return []
    computations, entry = _computations(partitioned)
    times = _times(computations, entry)
    found = []
    for name, instructions in computations.items():
        for instruction in instructions:
            if instruction.operation in OPERATIONS and times.get(name):
                found.append(_collective(instruction, instructions, mesh, times[name]))
    return [one for one in found if one.group > 1]


def sent_by_axis(collectives: Sequence[Collective]) -> dict[tuple[str, str], float]:
    """Bytes that each device sends in a step, by axes (`data+fsdp`) and operation."""
    total: dict[tuple[str, str], float] = defaultdict(float)
    for one in collectives:
        total["+".join(one.axes), one.operation] += one.sent
    return dict(total)


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    found: dict[str, list[_Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = found.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_Instruction(*match.groups()))
    return found, entry


def _times(computations: dict[str, list[_Instruction]], entry: str) -> dict[str, int]:
    """How often each computation runs in a step."""
    times: dict[str, int] = defaultdict(int)
    # The text defines computations before their callers, so callers come first in reverse.
    times[entry] = 1
    for name in reversed(list(computations)):
        for instruction in computations[name]:
            for called, count in _calls(instruction, computations):
                times[called] += times[name] * count
    return times


def _calls(instruction: _Instruction, computations: dict[str, list[_Instruction]]) -> Iterator[tuple[str, int]]:
    if instruction.operation == "while":
        body = re.search(r"body=%?([\w.\-]+)", instruction.rest)
        condition = re.search(r"condition=%?([\w.\-]+)", instruction.rest)
        if body and condition:
            yield body[1], _trips(computations.get(condition[1], []))
    elif instruction.operation in ("call", "conditional", "async-start"):
        for called in _CALLED.findall(instruction.rest):
            yield called, 1
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", instruction.rest):
            yield from ((called.strip().lstrip("%"), 1) for called in branches.split(","))


def _trips(condition: list[_Instruction]) -> int:
    """Iterations of a loop that counts from 0 to a constant, as scans do; 1 for any other loop."""
    constants = [re.match(r"(\d+)\)", one.rest) for one in condition if one.operation == "constant"]
    numbers = [int(found[1]) for found in constants if found]
    return max(numbers, default=1)


def _collective(one: _Instruction, around: list[_Instruction], mesh: dict[str, int], times: int) -> Collective:
    group = _group(one.rest, math.prod(mesh.values()))
    size = sum(_size(*array) for array in _ARRAY.findall(one.shape))
    operation = one.operation
    if operation == "reduce-scatter":
        size *= len(group)
    elif operation == "all-reduce" and _only_slices_are_used(one, around):
        operation = "reduce-scatter"
    source = re.search(r'op_name="([^"]*)"', one.rest)
    return Collective(operation, _axes(group, mesh), size, times, source[1] if source else "", len(group))


def _size(kind: str, shape: str) -> int:
    return _BYTES.get(kind, 4) * math.prod(int(n) for n in shape.split(",") if n)


def _only_slices_are_used(one: _Instruction, around: list[_Instruction]) -> bool:
    used = re.compile(rf"%{re.escape(one.name)}(?![\w.\-#])")
    users = [other.operation for other in around if other is not one and used.search(other.rest)]
    return bool(users) and all(user == "dynamic-slice" for user in users)


def _group(text: str, devices: int) -> list[int]:
    """The devices of the first group, by their position in the mesh."""
    if pairs := re.search(r"source_target_pairs=\{(.*?\})\}", text):
        return _ring([(int(a), int(b)) for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1] + "}")])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        wanted = re.findall(r"'(\w+)'", named[2])
        places = np.arange(math.prod(sizes.values())).reshape(tuple(sizes.values()))
        return places[tuple(slice(None) if name in wanted else 0 for name in sizes)].ravel().tolist()
    if iota := re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        places = np.arange(devices).reshape([int(n) for n in iota[3].split(",")])
        if iota[4]:
            places = places.transpose([int(n) for n in iota[4].split(",")])
        return places.reshape(int(iota[1]), int(iota[2]))[0].tolist()
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", text)
    return [int(n) for n in listed[1].split(",")] if listed else list(range(devices))


def _ring(pairs: list[tuple[int, int]]) -> list[int]:
    """The devices that texts visit from the first pair on."""
    following = dict(pairs)
    ring = [pairs[0][0]] if pairs else [0]
    while (after := following.get(ring[-1])) is not None and after not in ring:
        ring.append(after)
    return ring


def _axes(group: list[int], mesh: dict[str, int]) -> tuple[str, ...]:
    """The axes along which the places of the devices differ."""
    places = np.array([np.unravel_index(device, tuple(mesh.values())) for device in group])
    return tuple(itertools.compress(mesh, (places != places[:1]).any(axis=0)))
