"""Model FLOPs from the jaxpr, and the peak rates of known chips: for model FLOPs utilisation."""

import math
from typing import Any

import jax

# Dense bf16 peak, FLOP/s, by the vendors' data sheets.
PEAK = {
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
}


def peak_flops(device_kind: str) -> float | None:
    """The chip's peak by its longest matching name; `None` for a CPU or an unknown chip."""
    names = [name for name in PEAK if device_kind.startswith(name)]
    return PEAK[max(names, key=len)] if names else None


def count_flops(function: Any, *args: Any) -> float:
    """FLOPs of all matrix products of a call, from its jaxpr; the body of a loop counts as often as it runs.

    The compiler's own count takes a scan's body once, and so is of no use here.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: Any) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contract, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[i] for i in contract)
            continue
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (list, tuple)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += times * _count(inner)
    return total
