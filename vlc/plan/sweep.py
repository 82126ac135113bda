"""Plans of many meshes and batch sizes, the fastest that fits first."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vlc.config import Config
from vlc.errors import ConfigError
from vlc.plan.advice import Advice, with_change
from vlc.plan.estimate import make_plan

Shape = tuple[int, int, int]  # data, fsdp, tensor


def shapes_of(devices: int) -> list[Shape]:
    """Meshes worth a try: fsdp in steps of four, alone and with a tensor axis of two and four."""
    found = []
    for tensor in (1, 2, 4):
        rest = devices // tensor
        sizes = sorted({4**power for power in range(10) if 4**power <= rest and rest % 4**power == 0} | {rest})
        found += [(rest // fsdp, fsdp, tensor) for fsdp in sizes if devices % tensor == 0]
    return found


def parse_shapes(text: str) -> list[Shape]:
    """`"256x1x1,64x4x1"`: data, fsdp and tensor of each mesh.

    Raises:
        ConfigError: It is written otherwise.
    """
    found = re.findall(r"(\d+)x(\d+)x(\d+)(?:,|$)", text)
    if not found or ",".join("x".join(shape) for shape in found) != text:
        raise ConfigError(f'--meshes is "{text}"; write data x fsdp x tensor of each, as in 256x1x1,64x4x1.')
    return [(int(data), int(fsdp), int(tensor)) for data, fsdp, tensor in found]


def sweep(
    config: Config, topology: str, devices: list[Any], name: str, *, shapes: Sequence[Shape], batch_sizes: Sequence[int]
) -> Iterator[Advice]:
    """Plans each of the meshes with each of the batch sizes, one after another."""
    for batch_size in batch_sizes or [config.batch_size]:
        for data, fsdp, tensor in shapes:
            change = {"batch_size": batch_size, "mesh.data": data, "mesh.fsdp": fsdp, "mesh.tensor": tensor}
            try:
                yield Advice(change, make_plan(with_change(config, change), topology, devices, name))
            except ConfigError as error:
                yield Advice(change, None, str(error).splitlines()[0])


def ranked(tried: Sequence[Advice]) -> list[Advice]:
    """Plans that fit, the fastest by the estimate first; then those that do not fit; then those that are impossible."""

    def key(one: Advice) -> tuple[int, float]:
        if one.plan is None:
            return 2, 0.0
        return int(one.plan.fits is False), -one.plan.images_per_second if one.plan.seconds else math.inf

    return sorted(tried, key=key)
