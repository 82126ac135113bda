"""Reads the TPU compiler's own schedule of the late-interaction kernels. Needs libtpu, no TPU.

    PYTHONPATH=.venv/compilers python benchmarks/tpu_schedule.py            # v5e, v5p, v6e; 196 x 64 tokens, D = 256

TPU cores issue one bundle of instructions a cycle, in order, so the final schedule is a model of the time. For each
kernel this prints every loop and the whole grid step: bundles, the cycles that its useful products need at the matrix
units' full rate (`ideal`), their ratio, and how much of the matrix, vector and memory slots is used. The ratio is
ideal / max(bundles, padded ideal): where a schedule has fewer bundles than that, the matrix units are the limit.

It is not a timing: waiting for memory is not in it, and nothing here has run on a TPU. Code that runs once for a block
of images (flattening and transposing it, writing its gradient) is counted in every grid step, so the whole is a little
better than it says.
"""

import argparse
import glob
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOPOLOGIES = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x2", "v6e": "v6e:2x2"}
MACS_A_CYCLE = {"v5e": 65_536, "v5p": 65_536, "v6e": 262_144}  # bfloat16, one core
QUIET = {
    "JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled", "TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost",
}  # fmt: skip
KERNELS = {"forward": "late_interaction_forward", "backward": "late_interaction_backward"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(196, 64, 256), metavar=("P", "T", "D"))
    parser.add_argument("--compile", metavar="CHIP MODE", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compile:
        _compile(*args.compile, *args.shape)
        return
    rows = []
    for chip in TOPOLOGIES:
        for mode in ("found", "saved"):
            with tempfile.TemporaryDirectory() as folder:
                _dump(chip, mode, args.shape, folder)
                for kernel, name in KERNELS.items():
                    rows += _report(chip, f"{kernel}, argmax {mode}", name, mode, args.shape, folder)
    _print(rows)
    out = Path(__file__).parent / "results" / "tpu_schedule.json"
    out.write_text(json.dumps({"shape": dict(zip("PTD", args.shape, strict=True)), "rows": rows}, indent=1) + "\n")


def _compile(chip: str, mode: str, patches: int, tokens: int, width: int) -> None:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    import vlc
    from vlc.parallel import topology_devices

    mesh = Mesh(np.array(topology_devices(TOPOLOGIES[chip]))[:1], ("data",))

    def array(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))

    def run(images, texts, mask, *gradients):
        def score(images, texts):
            return vlc.late_interaction(images, texts, mask, argmax_bytes=1 << 40 if mode == "saved" else 0)

        scores, pull = jax.vjp(score, images, texts)
        return scores, pull(gradients)

    n = 1024
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        gradients = [array(n, n, dtype=jnp.float32)] * 2
        arrays = array(n, patches, width), array(n, tokens, width), array(n, tokens, dtype=jnp.bool_)
        jax.jit(run).lower(*arrays, *gradients).compile()
    tiling = vlc.similarity.tpu.Tiling
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        made = tiling.of(patches, tokens, width)
    steps = {"forward": made.forward_step, "backward": made.backward_step}
    print(json.dumps({"rows": made.rows, "lanes": made.lanes, "tokens": made.tokens, "steps": steps}))


def _dump(chip: str, mode: str, shape: tuple, folder: str) -> None:
    flags = f"--xla_jf_dump_to={folder} --xla_jf_dump_hlo_text=true --xla_jf_dump_llo_text=true"
    command = [sys.executable, __file__, "--compile", chip, mode, "--shape", *map(str, shape)]
    done = subprocess.run(
        command, env=os.environ | QUIET | {"LIBTPU_INIT_ARGS": flags}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{chip}: the program did not compile. Is libtpu on PYTHONPATH (see above)?\n{done.stderr[-2000:]}")
    Path(folder, "tiling.json").write_text(done.stdout.splitlines()[-1])


def _report(chip: str, label: str, name: str, mode: str, shape: tuple, folder: str) -> list[dict]:
    tiling = json.loads(Path(folder, "tiling.json").read_text())
    kernel = label.split(",")[0]
    table = next(iter(glob.glob(f"{folder}/*{name}*final_hlo-static-per-bundle-utilization.txt")))
    lines = Path(table).read_text().splitlines()
    slots = [slot.strip() for slot in lines[1].split(",")]
    capacity = [int(x) for x in lines[2].split()]
    used = [
        row for row in (line.split() for line in lines[4:]) if len(row) == len(slots) and all(map(str.isdigit, row))
    ]
    stamp = Path(table).name.split("-")[0]
    listing = next(
        path for path in glob.glob(f"{folder}/{stamp}-*{name}*final_bundles.txt") if "schedule-analysis" not in path
    )
    marks = re.compile(r"\s*(?:0x[0-9a-f]+|0)\s+(LB|LH|LE|PB|PF|CT|PH)?\s*:\s*(>*)\s*\{")
    depths = [(m[1], len(m[2])) for m in map(marks.match, Path(listing).read_text().splitlines()) if m]
    _, tokens, width = shape
    unit = tiling["rows"] * tiling["lanes"] * width / MACS_A_CYCLE[chip]  # cycles of one product of one token
    loops = _innermost(depths, [list(map(int, row)) for row in used])
    # Products in a trip of each loop: S in the first loop; the two of the gradient in the backward kernel's last one.
    products = [1] if kernel == "forward" else [2] if mode == "saved" else [1, 2]
    saving = kernel == "forward" and mode == "saved"
    step = tiling["steps"]["backward" if kernel == "backward" or saving else "forward"]
    trips = tiling["tokens"] // step
    rows = []
    for number, (loop, count) in enumerate(zip(loops, products, strict=True)):
        rows.append(_row(chip, label, f"loop {number + 1}", len(loop), count * step * unit, loop, slots, capacity))
    outside = len(depths) - sum(map(len, loops))
    total = outside + trips * sum(map(len, loops))
    whole = [row for loop in loops for row in loop * trips]
    useful = sum(products) * tokens * unit
    rows.append(_row(chip, label, "grid step", total, useful, whole, slots, capacity))
    return rows


def _innermost(depths: list[tuple[str | None, int]], used: list[list[int]]) -> list[list[list[int]]]:
    """The bundles of each innermost loop: from its mark to the last bundle at its depth (jumps lie between)."""
    deepest = max(depth for _, depth in depths)
    starts = [i for i, (mark, depth) in enumerate(depths) if mark == "LB" and depth == deepest]
    loops = []
    for start, stop in zip(starts, [*starts[1:], len(depths)], strict=True):
        last = max(i for i in range(start, stop) if depths[i][1] == deepest)
        loops.append(used[start : last + 1])
    return loops


def _row(chip, label, part, bundles, ideal, table, slots, capacity) -> dict:
    use = {slot: sum(row[k] for row in table) / capacity[k] / bundles for k, slot in enumerate(slots)}
    return {
        "chip": chip, "kernel": label, "part": part, "bundles": bundles, "ideal cycles": round(ideal),
        "useful": round(ideal / max(bundles, ideal), 3),
        "matmul": round(use["MATMUL"] if "MATMUL" in use else use["MXU"], 3),  # compilers name the slot differently
        **{slot.lower(): round(use[slot], 3) for slot in ("VALU", "VLOAD", "VSTORE")},
        "fills": round(use["VLOAD:FILL"], 3), "spills": round(use["VSTORE:SPILL"], 3),
    }  # fmt: skip


def _print(rows: list[dict]) -> None:
    keys = list(rows[0])
    widths = [max(len(str(row[key])) for row in [dict.fromkeys(keys, key), *rows]) for key in keys]
    widths = [max(width, len(key)) for width, key in zip(widths, keys, strict=True)]
    for row in [{key: key for key in keys}, *rows]:
        print("  ".join(str(row[key]).rjust(width) for key, width in zip(keys, widths, strict=True)))


if __name__ == "__main__":
    main()
