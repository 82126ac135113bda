"""A whole CLIP train step in float32 on a CPU, beside open_clip on PyTorch, eager and through torch.compile.

    python benchmarks/train_step.py --out benchmarks/results/train_step_cpu.json
    python benchmarks/train_step.py --no-peers --small-pages --also before=CHECKOUT   # beside another checkout of ours

`make peers` makes open_clip's environment, in which `benchmarks/train_step_rivals.py` runs. Everyone trains the same
architectures on pixels and tokens of the same shape with AdamW: forward, loss, backward, clipping, update. Each is a
process of its own that compiles first and then waits to be asked for steps. They take turns, so that noise of the
machine falls on all: one step that is not counted, since memory that was given back comes again, then three that are.
The median of each counts. `compile` is the time until the first step can be taken, imports left out; `peak` is the most
memory that the process ever had.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SIZES = {"B/32": ("B/32", "B"), "S/32": ("S/32", "S")}
VOCABULARY, LENGTH = 49408, 77


def serve(size: str, batch_size: int) -> None:
    """Our side: compiles, says so, and takes a step for each line that it reads."""
    import resource

    import jax
    import numpy as np

    from vlc.config import default_config, resolve_auto
    from vlc.models import presets
    from vlc.parallel import flags
    from vlc.train.optimizer import make_optimizer
    from vlc.train.state import init_state, make_graph
    from vlc.train.step import make_train_step

    begun = time.perf_counter()
    image, text = SIZES[size]
    config = default_config()
    config.batch_size = batch_size
    config.model.image.update(presets.image_tower(image))
    config.model.text.update(presets.text_tower(text))
    run = resolve_auto(config, jax.default_backend())
    optimizer = make_optimizer(run.optimizer, 1000)
    options = getattr(flags, "compiler_options", lambda program: None)  # an older checkout has none
    make_state = jax.jit(lambda key: init_state(run, VOCABULARY, optimizer, key), compiler_options=options("once"))
    state = make_state(jax.random.key(0))
    rng = np.random.default_rng(0)
    ids = rng.integers(3, 8000, (batch_size, LENGTH)).astype(np.int32)
    batch = jax.device_put(
        {"image": rng.integers(0, 256, (batch_size, 224, 224, 3), np.uint8), "text": ids, "target": ids}
    )
    step = jax.jit(
        make_train_step(make_graph(run, VOCABULARY), optimizer, run), donate_argnums=0, compiler_options=options("step")
    )
    step = step.lower(state, batch).compile()
    print(json.dumps({"compile": time.perf_counter() - begun}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak}), flush=True)


class Rival:
    """A process that takes steps when it is asked."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        self.compile = self._read()["compile"]
        self.seconds: list[float] = []
        self.peak = 0.0

    def turn(self, steps: int = 3) -> None:
        """Some steps in a row, after one that is not counted."""
        self.seconds += [self._step() for _ in range(1 + steps)][1:]

    def _step(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._read()
        self.peak = max(self.peak, answer["peak"])
        return answer["seconds"]

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def commands(size: str, batch_size: int, options: argparse.Namespace) -> dict[str, tuple[list[str], dict[str, str]]]:
    """How each rival is started, and with which environment."""
    from vlc.commands import huge_pages

    plain = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "GLIBC_TUNABLES")}
    ours = [sys.executable, __file__, "--serve", size, str(batch_size)]
    peers = [str(ROOT / ".venv-peers" / "bin" / "python"), str(ROOT / "benchmarks" / "train_step_rivals.py")]
    huge = {"GLIBC_TUNABLES": huge_pages.TUNABLES}  # as `vlc train` starts itself
    here = plain | {"PYTHONPATH": str(ROOT)}
    found = {"vlc": (ours, here | huge)}
    if options.small_pages:
        found["vlc, small pages"] = (ours, here)
    for one in options.also:
        name, _, checkout = one.partition("=")
        found[name] = (ours, plain | {"PYTHONPATH": checkout})
    for name in () if options.no_peers else ("eager", "compiled"):
        found[f"open_clip, {name}"] = ([*peers, name, size, str(batch_size)], plain)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="B/32,S/32")
    parser.add_argument("--batch-sizes", default="16,32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=CHECKOUT")
    parser.add_argument("--small-pages", action="store_true", help="vlc without huge pages as well")
    parser.add_argument("--no-peers", action="store_true", help="without open_clip")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    rows = []
    for size in options.sizes.split(","):
        for batch_size in map(int, options.batch_sizes.split(",")):
            rows += compare(size, batch_size, options)
    if options.out:
        facts = {"device": f"{os.cpu_count()} CPU cores, {platform.machine()}", "rounds": options.rounds, "rows": rows}
        options.out.write_text(json.dumps(facts, indent=1) + "\n")


def compare(size: str, batch_size: int, options: argparse.Namespace) -> list[dict]:
    """One size and batch size: all rivals, in turn."""
    rivals = {name: Rival(*how) for name, how in commands(size, batch_size, options).items()}
    for _ in range(options.rounds):
        for rival in rivals.values():
            rival.turn()
    best = statistics.median(rivals["vlc"].seconds)
    print(f"\n{size}, batch {batch_size}: seconds a step, images/s, times of vlc's step, compile s, peak GiB")
    rows = []
    for name, rival in rivals.items():
        rival.close()
        median = statistics.median(rival.seconds)
        row = {
            "model": size, "batch": batch_size, "what": name, "step s": round(median, 3),
            "steps": [round(one, 3) for one in rival.seconds], "images/s": round(batch_size / median, 2),
            "times": round(median / best, 2), "compile s": round(rival.compile, 1), "peak GiB": round(rival.peak, 2),
        }  # fmt: skip
        figures = (
            f"{median:8.3f} {batch_size / median:8.2f} {median / best:6.2f} {rival.compile:8.1f} {rival.peak:6.2f}"
        )
        print(f"{name:22} {figures}", flush=True)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
