"""`vlc plan`: what a config needs of a pod, without the pod."""

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlc.commands.shared import add_command
from vlc.errors import ConfigError
from vlc.storage import Place, made_for, place, write_whole

EXIT_DOES_NOT_FIT = 4
# Quiet compilers for devices that are not there, several of them at once on this machine.
_COMPILING = {
    "JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}  # fmt: skip


def add_plan(commands: Any) -> None:
    plan = add_command(commands, "plan", _plan, "compile a config's train step for a pod that is not there")
    plan.add_argument("--config", required=True, help="a config file, e.g. configs/filip_b32.py")
    plan.add_argument("--topology", default="", help="v4, v5e, v5p or v6e and a slice, as v5e:16x16; or h100:8")
    plan.add_argument("--slices", type=int, default=1, help="how many of that slice, over the data-centre network")
    plan.add_argument("--devices", type=int, default=0, help="in place of a topology: emulated CPU devices")
    plan.add_argument("--tries", type=int, default=8, help="changes to try where it does not fit")
    plan.add_argument("--sweep", action="store_true", help="rank mesh shapes and batch sizes")
    plan.add_argument("--meshes", default="", help="of the sweep: data x fsdp x tensor, as in 256x1x1,64x4x1")
    plan.add_argument("--batch-sizes", default="", help="of the sweep, as in 8192,16384 (the config's)")
    plan.add_argument("--out", default="", help="also write FILE.json, and FILE.png beside it")
    plan.epilog = "Any setting can be changed: --config.mesh.fsdp=4. The compilers come with `make compilers`."
    plan.set_defaults(takes_overrides=True)


def _plan(options: argparse.Namespace) -> int:
    if bool(options.topology) == bool(options.devices):
        raise ConfigError("Name --topology, such as v5e:16x16 or h100:8, or --devices for emulated ones.")
    batch_sizes = _numbers(options.batch_sizes)
    _prepare(options.devices)
    from rich.console import Console

    from vlc.config.file import load_config

    config = load_config(options.config, options.overrides)
    console = Console(width=None if sys.stdout.isatty() else 140)
    devices, topology = _devices(options)
    target = (topology, devices, Path(options.config.partition(":")[0]).stem)
    if options.sweep:
        tried = _sweep(config, target, console, options, batch_sizes)
    else:
        tried = _plan_one(config, target, console, options)
    if options.out:
        _write(tried, place(options.out).with_suffix(".json"))
    return EXIT_DOES_NOT_FIT if all(one.plan is None or one.plan.fits is False for one in tried) else 0


def _plan_one(config: Any, target: tuple, console: Any, options: argparse.Namespace) -> list[Any]:
    """The plan, and where it does not fit, what was tried instead."""
    from vlc.interop import describe_exports
    from vlc.plan import Advice, advise, make_plan
    from vlc.plan.show import show_plan, show_tried

    plan = make_plan(config, *target)
    show_plan(plan, console)
    console.print(describe_exports(config))
    if plan.fits is not False:
        return [Advice({}, plan)]
    console.print(f"Trying up to {options.tries} changes, each by compiling:")
    tried = _told(advise(config, plan, target[1], options.tries))
    show_tried(tried, console, "with")
    return [Advice({}, plan), *tried]


def _sweep(config: Any, target: tuple, console: Any, options: argparse.Namespace, batch_sizes: list[int]) -> list[Any]:
    from vlc.plan import sweep
    from vlc.plan.show import show_tried
    from vlc.plan.sweep import parse_shapes, ranked, shapes_of

    topology, devices, name = target
    shapes = parse_shapes(options.meshes) if options.meshes else shapes_of(len(devices) // options.slices)
    tried = ranked(_told(sweep(config, *target, shapes=shapes, batch_sizes=batch_sizes)))
    show_tried(tried, console, f"{name} on {topology}")
    return tried


def _told(some: Iterator[Any]) -> list[Any]:
    """Prints a line for each that is done, since compiling takes a while."""
    found, begun = [], time.perf_counter()
    for one in some:
        found.append(one)
        print(f"{time.perf_counter() - begun:5.0f} s  {one.flags}", file=sys.stderr, flush=True)
    return found


def _write(tried: list[Any], path: Place) -> None:
    from vlc.plan.show import draw_plans

    rows = [{"change": one.change} | (_as_json(one.plan) if one.plan else {"refused": one.reason}) for one in tried]
    with made_for(path.parent) as folder:
        write_whole(folder / path.name, (json.dumps(rows, indent=1) + "\n").encode())
        draw_plans(tried, folder / path.with_suffix(".png").name)
    print(f"Written: {path} and {path.with_suffix('.png')}")


def _as_json(plan: Any) -> dict[str, Any]:
    return dataclasses.asdict(plan) | {
        "limit": plan.limit, "step_seconds_at_best": plan.step_seconds[0] if plan.seconds else None,
        "images_per_second_at_best": plan.images_per_second if plan.seconds else None,
    }  # fmt: skip


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise ConfigError(f'--batch-sizes is "{text}"; write whole numbers, as in 8192,16384.') from None


def _prepare(emulated: int) -> None:
    """Sets what the compilers read, before JAX starts, and finds those that `make compilers` put aside."""
    os.environ |= _COMPILING
    if emulated:
        os.environ["JAX_NUM_CPU_DEVICES"] = str(emulated)
    beside = Path(sys.prefix) / "compilers"
    if beside.is_dir() and str(beside) not in sys.path:
        sys.path.append(str(beside))


def _devices(options: argparse.Namespace) -> tuple[list[Any], str]:
    import jax

    from vlc.parallel import set_flags, topology_devices

    set_flags(gpu=options.topology.startswith("h100"), tpu=options.topology.startswith("v"))  # as a run would
    if options.devices:
        return jax.devices()[: options.devices], f"cpu:{options.devices}"
    name = options.topology + (f" x {options.slices}" if options.slices > 1 else "")
    return topology_devices(options.topology, options.slices), name
