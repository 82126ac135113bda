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
from vlc.train.lowering import lower_train_step

_PARTITIONED = re.compile(r"\.after_(tpu-)?spmd-partitioning\b")
# What TPU compilers say where a program is too large: what it needs in all, or beside its arguments.
_IN_ALL = re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm")
_TEMPORARY = re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT])\) exceeds available HBM")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True)
class Compiled:
    """A compiled step.

    Attributes:
        needed: Bytes of one device: the state, which the step writes over, its share of the batch, and all else at the
            peak.
        refused: The compiler knows the device's memory, and that this is more (TPU compilers do; others only tell).
        seconds: That compilation took.
        partitioned: The program of one device as XLA's partitioner left it, HLO text; empty for one device.
    """

    needed: int
    refused: bool
    seconds: float
    partitioned: str


def compile_step(config: Config, mesh: Mesh, arguments: int) -> Compiled:
    """Compiles the step that `vlc train` runs.

    Args:
        config: The config.
        mesh: Of devices, or of a topology.
        arguments: Bytes of one device for the state and its share of the batch, which some refusals leave out.

    Raises:
        ConfigError: The config or the mesh does not fit the model, or the compiler refuses the program for another
            reason than memory.
    """
    begun = time.perf_counter()
    lowered = lower_train_step(config, mesh)
    with tempfile.TemporaryDirectory(prefix="vlc-plan-") as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": ".*spmd-partitioning", "xla_dump_hlo_as_text": True}
        try:
            memory = lowered.compile(compiler_options=dump).memory_analysis()
            needed, refused = memory.argument_size_in_bytes + memory.temp_size_in_bytes, False
        except jax.errors.JaxRuntimeError as error:
            needed, refused = _needed(str(error), arguments), True
            if not needed:
                raise ConfigError(f"The compiler refuses the program: {str(error).splitlines()[0][:500]}") from error
        return Compiled(needed, refused, time.perf_counter() - begun, _read_partitioned(Path(folder)))


def _needed(refusal: str, arguments: int) -> int:
    """The bytes that a refused program would need; 0 where it was refused for another reason."""
    for pattern, more in ((_IN_ALL, 0), (_TEMPORARY, arguments)):
        if found := pattern.search(refusal):
            return int(float(found[1]) * _UNITS[found[2]]) + more
    return 0


def _read_partitioned(folder: Path) -> str:
    found = [path for path in folder.iterdir() if _PARTITIONED.search(path.name) and "train_step" in path.name]
    return found[0].read_text() if found else ""
