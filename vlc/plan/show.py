"""Plans as text and as pictures."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlc.parallel import describe_mesh
from vlc.plan.advice import Advice
from vlc.plan.estimate import Plan

_GIB, _MIB = 2**30, 2**20


def show_plan(plan: Plan, console: Console) -> None:
    """Prints the tables of a plan."""
    console.print(
        f"{plan.config} on {plan.topology}: {plan.devices} devices ({describe_mesh(plan.mesh)}), batch "
        f"{plan.batch_size:,} ({plan.batch_size / plan.devices:g} a device), {plan.parameters / 1e6:.1f} million "
        f"parameters; compiled in {plan.compile_seconds:.0f} s"
    )
    console.print(_memory_table(plan))
    if plan.sent:
        console.print(_network_table(plan))
    console.print(
        f"FLOPs a step: {plan.model_flops:.3g} of the model; {plan.device_flops:.3g} on each device, with what is "
        "computed again."
    )
    if plan.seconds:
        console.print(_time_table(plan))
    console.print(verdict(plan))


def verdict(plan: Plan) -> str:
    """In one line: whether it fits, how fast it could be, and what limits it."""
    if plan.fits is None:
        return f"Needs {_size(plan.needed)} a device; this device's memory and speed are not known."
    share = f"{plan.needed / plan.capacity:.0%} of {plan.capacity / _GIB:.0f} GiB"
    if not plan.fits:
        return f"DOES NOT FIT: {share}."
    low, high = plan.step_seconds
    return (
        f"Fits: {share}. Estimate at peak rates: {_ms(low)} to {_ms(high)} ms a step, at best "
        f"{plan.images_per_second:,.0f} images/s on a device; limited by {plan.limit}."
    )


def _memory_table(plan: Plan) -> Table:
    table = Table("memory of one device", "", "share", box=None, header_style="bold")
    whole = plan.capacity or plan.needed
    for kind, count in plan.memory.items():
        table.add_row(kind, _size(count), f"{count / whole:.0%}")
    table.add_row("all, by the compiler", _size(plan.needed), f"{plan.needed / whole:.0%}", style="bold")
    return table


def _network_table(plan: Plan) -> Table:
    table = Table("sent by one device in a step", "along", "MiB", box=None, header_style="bold")
    for axes, operations in plan.sent.items():
        for operation, count in operations.items():
            table.add_row(operation, axes, f"{count / _MIB:,.1f}")
    return table


def _time_table(plan: Plan) -> Table:
    table = Table("estimate at the chip's peak rates", "ms a step", box=None, header_style="bold")
    for part, seconds in plan.seconds.items():
        table.add_row(part, _ms(seconds))
    return table


def show_tried(tried: Sequence[Advice], console: Console, title: str) -> None:
    """A row for each change: whether it fits, and how fast it could be."""
    table = Table(title, "memory", "fits", "ms a step, at best", "images/s a device", "limited by", box=None)
    for one in tried:
        if one.plan is None:
            table.add_row(_short(one), "-", "no", "-", "-", one.reason.splitlines()[0])
            continue
        plan = one.plan
        fits = {True: "yes", False: "no", None: "?"}[plan.fits]
        step, rate = _ms(plan.step_seconds[0]), f"{plan.images_per_second:,.0f}"
        table.add_row(_short(one), _size(plan.needed), fits, *([step, rate, plan.limit] if plan.seconds else "---"))
    console.print(table)


def _size(count: float) -> str:
    return f"{count / _GIB:.2f} GiB" if count >= _GIB / 4 else f"{count / _MIB:.2f} MiB"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:,.0f}" if seconds >= 0.1 else f"{seconds * 1e3:.3g}"


def _short(one: Advice) -> str:
    """A change in few words: `remat=full accumulate=2`."""
    return " ".join(f"{key.removeprefix('model.').removeprefix('mesh.')}={value}" for key, value in one.change.items())


def draw_plans(tried: Sequence[Advice], path: Path) -> None:
    """Memory by kind beside the device's, and the estimated time by what takes it; a bar for each plan."""
    plans = [one.plan for one in tried if one.plan]
    labels = [_short(one) or "as it is" for one in tried if one.plan]
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 1.9 + 0.42 * len(plans)), layout="constrained", sharey=True)
    rows = range(len(plans))
    done = [0.0] * len(plans)
    for kind in dict.fromkeys(kind for plan in plans for kind in plan.memory):
        sizes = [plan.memory.get(kind, 0) / _GIB for plan in plans]
        left.barh(rows, sizes, left=done, label=kind)
        done = [start + size for start, size in zip(done, sizes, strict=True)]
    for row, plan in enumerate(plans):
        if plan.capacity:
            left.plot([plan.capacity / _GIB] * 2, [row - 0.45, row + 0.45], color="black")
    left.set(xlabel="GiB of one device (line: what it has)", yticks=rows, yticklabels=labels)
    left.invert_yaxis()
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3, "fontsize": 8, "frameon": False}
    left.legend(**above)
    parts = dict.fromkeys(part for plan in plans for part in plan.seconds)
    for number, part in enumerate(parts):
        places = [row + (number - 1) * 0.27 for row in rows]
        right.barh(places, [1e3 * plan.seconds.get(part, 0) for plan in plans], height=0.25, label=part)
    right.set(xlabel="ms a step at peak rates (an estimate)")
    if parts:
        right.legend(**above)
    figure.savefig(path, dpi=130)
    plt.close(figure)
