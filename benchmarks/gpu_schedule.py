"""Reads what the GPU compiler made of the late-interaction kernels. Needs the CUDA plugin and nvdisasm, no GPU.

    pip install --target .venv/compilers --no-deps nvidia-cuda-nvdisasm      # after `make test`
    PYTHONPATH=.venv/compilers python benchmarks/gpu_schedule.py             # 196 x 64 tokens, D = 256

For each kernel: registers that spill, shared memory, and the hot loop, which makes the products of one patch (forward)
or of one token (backward) for a warpgroup. `tensor` is the cycles that the tensor cores need for that of all warpgroups
of a block; `issue` is what the schedulers need for the loop's instructions of the same warpgroups, where an instruction
of the half-rate integer unit takes two cycles. While issue stays below tensor, warpgroups that take turns can keep the
tensor cores busy. It is a count, not a timing: waiting for memory is not in it, and nothing has run on a GPU.
"""

import argparse
import collections
import json
import os
import re
import tempfile
from pathlib import Path

os.environ |= {"JAX_PLATFORMS": "cpu", "MOSAIC_GPU_DUMP_PTXAS": "1", "MOSAIC_GPU_DUMP_SASS": "1"}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.mosaic.gpu import core  # noqa: F401  (sets a path of CUDA, which is set again below)
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import vlc
from vlc.parallel import topology_devices
from vlc.similarity.gpu.forward import ROWS, Tiling

MACS_A_CYCLE = 2048  # of the tensor cores of one multiprocessor, bfloat16
SCHEDULERS = 4
HALF_RATE = {"FMNMX", "LOP3", "PRMT", "SEL", "FSEL", "ISETP", "FSETP", "SHF", "IADD3", "LEA", "VIADD", "F2FP", "HMNMX2"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(196, 64, 256), metavar=("P", "T", "D"))
    args = parser.parse_args()
    patches, tokens, width = args.shape
    for folder in map(Path, os.environ.get("PYTHONPATH", "").split(":")):
        if (folder / "nvidia" / "cu13" / "bin" / "nvdisasm").exists():
            os.environ["MOSAIC_GPU_CUDA_ROOT"] = str((folder / "nvidia" / "cu13").resolve())
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MOSAIC_GPU_DUMP_TO"] = folder
        _compile(patches, tokens, width)
        rows = _report(Path(folder), tokens, width)
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    out = Path(__file__).parent / "results" / "gpu_schedule.json"
    out.write_text(json.dumps({"shape": dict(zip("PTD", args.shape, strict=True)), "rows": rows}, indent=1) + "\n")


def _compile(patches: int, tokens: int, width: int, count: int = 1024) -> None:
    mesh = Mesh(np.array(topology_devices("h100:1")), ("data",))

    def array(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    def run(images, texts, mask, *gradients):
        def score(images, texts):
            return vlc.late_interaction(images, texts, mask, argmax_bytes=0)

        scores, pull = jax.vjp(score, images, texts)
        return scores, pull(gradients)

    arrays = array(count, patches, width), array(count, tokens, width), array(count, tokens, dtype=jnp.bool_)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        jax.jit(run).lower(*arrays, *[array(count, count, dtype=jnp.float32)] * 2).compile()


def _report(folder: Path, tokens: int, width: int) -> list[dict]:
    tiling = Tiling.of(tokens, width)
    assert tiling is not None
    rows = []
    for listing in sorted(folder.glob("*.ptxas"), key=lambda path: int(re.findall(r"\d+", path.name)[-1])):
        sass = next(iter(folder.glob(listing.stem + ".sass*"))).read_text()
        resources = next(iter(folder.glob(listing.stem + ".resources*"))).read_text()
        loop, inner = _hot_loop(sass), _hot_loop(sass, whole=False)
        backward = "HFMA2" in loop
        if not backward:
            loop += collections.Counter({kind: n * (width // tiling.depth - 1) for kind, n in inner.items()})
        groups, products = (
            (2, ROWS * ROWS * min(width, 256)) if backward else (tiling.groups, ROWS * tiling.width * width)
        )
        cycles = sum(count * (2 if kind in HALF_RATE else 1) for kind, count in loop.items())
        rows.append({
            "kernel": "gradient" if backward else "scores and positions" if loop["LOP3"] > 64 else "scores",
            "spilled bytes": sum(map(int, re.findall(r"(\d+) bytes spill", listing.read_text()))),
            "shared bytes": int(re.findall(r"smem_scratch_bytes=(\d+)", resources)[0]),
            "instructions": sum(loop.values()), "tensor": groups * products // MACS_A_CYCLE,
            "issue": cycles * groups * 4 // SCHEDULERS, "most": dict(loop.most_common(6)),
        })  # fmt: skip
    return rows


def _hot_loop(sass: str, *, whole: bool = True) -> collections.Counter:
    """Instructions of the smallest loop that multiplies and compares, or (not whole) that multiplies."""
    labels: dict[str, int] = {}
    code: list[tuple[str, str]] = []
    for line in sass.splitlines():
        if label := re.match(r"\s*\.(L_x_\d+):", line):
            labels[label[1]] = len(code)
        elif found := re.search(r"/\*[0-9a-f]+\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9_.]+)(.*)", line):
            code.append((found[1].split(".")[0], found[2]))
    loops = []
    for end, (kind, rest) in enumerate(code):
        target = re.search(r"\.(L_x_\d+)", rest) if kind == "BRA" else None
        start = labels.get(target[1], end + 1) if target else end + 1
        body = collections.Counter(kind for kind, _ in code[start : end + 1])
        if body["HGMMA"] and (not whole or body["FMNMX"] or body["HFMA2"]):
            loops.append(body)
    return min(loops, key=lambda body: sum(body.values()))


if __name__ == "__main__":
    main()
