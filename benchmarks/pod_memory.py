"""Compiles the train steps of FILIP's configs for pods that are not there, and prints what one chip would hold.

    PYTHONPATH=.venv/compilers python benchmarks/pod_memory.py

The figures are the compiler's own analysis. `arguments` is the state (parameters and optimizer), which the step writes
over, and the chip's share of the batch; `temporary` is all else: activations, gradients, the similarity core. Nothing
was run on a TPU.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path

# Before JAX starts.
os.environ |= {
    "JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip

from vlc.config.file import load_config
from vlc.parallel import make_mesh, topology_devices
from vlc.train.lowering import lower_train_step

ROOT = Path(__file__).parent.parent
HBM_GIB = {"v5e": 16, "v6e": 32}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configs", nargs="+", default=["filip_b32", "filip_l14"])
    parser.add_argument("--topologies", nargs="+", default=["v5e:16x16", "v6e:16x16"])
    parser.add_argument("--fsdp", nargs="+", type=int, default=[1])
    parser.add_argument("--exchange", nargs="+", default=["gather", "ring"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "pod_memory.json")
    args = parser.parse_args()
    rows = []
    for case in itertools.product(args.configs, args.topologies, args.fsdp, args.exchange):
        rows.append(_measure(*case))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    args.out.write_text(json.dumps(rows, indent=1) + "\n")


def _measure(name: str, topology: str, fsdp: int, exchange: str) -> dict:
    config = load_config(str(ROOT / "configs" / f"{name}.py"))
    config.mesh.fsdp = fsdp
    config.objectives.filip.exchange = config.objectives.clip.exchange = exchange
    devices = topology_devices(topology)
    row = {
        "config": name, "topology": topology, "chips": len(devices), "batch": config.batch_size,
        "fsdp": fsdp, "exchange": exchange,
    }  # fmt: skip
    begun = time.perf_counter()
    try:
        memory = lower_train_step(config, make_mesh(config.mesh, devices)).compile().memory_analysis()
    except Exception as error:  # the compiler's refusal, whatever its type
        return row | {"refused": str(error).splitlines()[0][:300]}
    taken = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return row | {
        "arguments GiB": round(memory.argument_size_in_bytes / 2**30, 2),
        "temporary GiB": round(memory.temp_size_in_bytes / 2**30, 2),
        "HBM GiB": HBM_GIB.get(topology.split(":")[0]),
        "share of HBM": round(taken / 2**30 / HBM_GIB[topology.split(":")[0]], 2),
        "compile s": round(time.perf_counter() - begun),
    }


if __name__ == "__main__":
    main()
