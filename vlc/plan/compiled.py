"""The train step compiled for a mesh: what the compiler says of memory, and the program after partitioning."""

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import jax
from jax.sharding import Mesh

from vlc.config import Config
from vlc.errors import ConfigError
from vlc.train.ahead import lower_train_step

_PARTITIONED = re.compile(r"\.after_(tpu-)?spmd-partitioning\b")
_TOO_MUCH = re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
        arguments: Bytes of one device for the state, which the step writes over, and its share of the batch.
        temporary: Bytes of one device for all else, at the peak.
        seconds: That compilation took.
        partitioned: The program of one device as XLA's partitioner left it, HLO text; empty for one device.
    """

    arguments: int
    temporary: int
    seconds: float
    partitioned: str


class DoesNotFit(Exception):
    """The compiler refuses a program that needs more than the device's memory.

    Attributes:
        needed: Bytes that it would need.
        seconds: That the compiler took to find out.
        partitioned: As of `Compiled`.
    """

    def __init__(self, needed: int, seconds: float, partitioned: str):
        super().__init__(f"needs {needed / 2**30:.1f} GiB of a device")
        self.needed, self.seconds, self.partitioned = needed, seconds, partitioned


def compile_step(config: Config, mesh: Mesh) -> Compiled:
    """Compiles the step that `vlc train` runs.

    Raises:
        ConfigError: The config or the mesh does not fit the model, or the compiler refuses the program.
        DoesNotFit: It needs more memory than a device has (TPU compilers refuse; others only tell).
    """
    begun = time.perf_counter()
    lowered = lower_train_step(config, mesh)
    with tempfile.TemporaryDirectory(prefix="vlc-plan-") as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": ".*spmd-partitioning", "xla_dump_hlo_as_text": True}
        try:
            memory = lowered.compile(compiler_options=dump).memory_analysis()
        except jax.errors.JaxRuntimeError as error:
            found = _TOO_MUCH.search(str(error))
            if found:
                needed, seconds = float(found[1]) * _UNITS[found[2]], time.perf_counter() - begun
                raise DoesNotFit(int(needed), seconds, _read_partitioned(Path(folder))) from None
            raise ConfigError(f"The compiler refuses the program: {str(error).splitlines()[0][:500]}") from error
        partitioned = _read_partitioned(Path(folder))
    return Compiled(
        memory.argument_size_in_bytes, memory.temp_size_in_bytes, time.perf_counter() - begun, partitioned
    )  # fmt: skip


def _read_partitioned(folder: Path) -> str:
    found = [path for path in folder.iterdir() if _PARTITIONED.search(path.name) and "train_step" in path.name]
    return found[0].read_text() if found else ""
