"""What attention by kernels saves, as the compilers count it: temporary memory, and bytes that are moved.

    PYTHONPATH=.venv/compilers python benchmarks/attention.py --out benchmarks/results/attention.json

Forward and backward of one attention of 16 heads of width 64 over 16 images, bfloat16, and the whole step of SigLIP's
B/16 at 384 pixels, for one chip of a v5e and one H100. Nothing is run, and nothing is timed. `cudnn` needs its library
where the loader finds it (`LD_LIBRARY_PATH`); without it those rows are left out.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlc.config.file import load_config
from vlc.models.fused_attention import attention
from vlc.parallel import make_mesh, topology_devices
from vlc.train.lowering import lower_train_step

CHIPS = {"v5e:2x2": "splash", "h100:1": "cudnn"}
LENGTHS = (196, 256, 576, 1024)
ROOT = Path(__file__).parent.parent


def layer(topology: str, length: int, kernel: str) -> Any:
    mesh = Mesh(np.array(topology_devices(topology)[:1]), ("x",))
    array = jax.ShapeDtypeStruct((16, length, 16, 64), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec()))

    def loss(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attention(q, k, v, None, causal=False, kernel=kernel).astype(jnp.float32).sum()

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.jit(jax.grad(loss, (0, 1, 2))).lower(array, array, array).compile()


def step(topology: str, kernel: str) -> Any:
    config = load_config(str(ROOT / "configs" / "siglip_b16.py"), [])
    config.data.image.size, config.batch_size, config.model.attention = 384, 32, kernel
    config.accumulate, config.mesh.data, config.mesh.fsdp = 1, 1, 1
    return lower_train_step(config, make_mesh(config.mesh, topology_devices(topology)[:1])).compile()


def row(what: str, topology: str, kernel: str, compiled: Any) -> dict[str, Any]:
    """The GPU's compiler does not count what is moved."""
    cost = compiled.cost_analysis()
    found = {
        "what": what, "chip": topology, "kernel": kernel,
        "temporary MiB": compiled.memory_analysis().temp_size_in_bytes >> 20,
        "moved MiB": int(cost["bytes accessed"]) >> 20 if cost else None,
    }  # fmt: skip
    print(json.dumps(found), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for topology, kernel in CHIPS.items():
        for name in ("xla", kernel):
            try:
                rows += [row(f"{n} tokens", topology, name, layer(topology, n, name)) for n in LENGTHS]
                rows.append(row("step of B/16 at 384", topology, name, step(topology, name)))
            except Exception as error:
                print(f"{topology} {name}: left out ({str(error).splitlines()[0]:.200})", flush=True)
    options.out.write_text(json.dumps({"jax": jax.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
