"""Late interaction against its rivals, in one process: time, rate, share of the matrix units' rate, memory.

    python benchmarks/similarity.py                                        # shapes for the device that is there
    python benchmarks/similarity.py --shape 128 196 64 256 --rounds 5      # B = C, P, T, D

On a GPU with PyTorch, `pip install flash-maxsim late-interaction-kernels` adds those two, each called once for each of
FILIP's directions. Every row does both directions. Rates count the products that a direct computation needs, one for
the forward pass and three with the backward pass, whatever a row really makes; so one that leaves pads out may show
more than the matrix units can do. The share is of plain matrix products measured in the same run: on CPU the three that
this shape needs, elsewhere 8192^3 in bfloat16. All runs take turns, and the fastest of each counts. Memory is the
compiler's figure for temporaries, where it has one.
"""

import argparse
import functools
import importlib.util
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import vlc
from vlc.similarity.selection import select_tokens

PLATFORM = jax.default_backend()
DTYPE = jnp.float32 if PLATFORM == "cpu" else jnp.bfloat16
SHAPES = {
    "cpu": [(128, 49, 32, 256), (128, 196, 64, 256)],
    "gpu": [(n, *tokens, 256) for n in (1024, 4096) for tokens in ((49, 32), (196, 64))],
    "tpu": [(n, *tokens, 256) for n in (1024, 4096) for tokens in ((49, 32), (196, 64))],
}
TOO_MUCH = {"cpu": 6 << 30, "gpu": 30 << 30, "tpu": 8 << 30}  # bytes of products that a rival may hold
Call = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=4, action="append", metavar=("B", "P", "T", "D"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    device = jax.devices()[0].device_kind
    rows = []
    for shape in args.shape or SHAPES[PLATFORM]:
        rows += _measure(tuple(shape), args.rounds)
    out = args.out or Path(__file__).parent / "results" / f"similarity_{PLATFORM}.json"
    out.write_text(json.dumps({"device": device, "type": DTYPE.__name__, "rows": rows}, indent=1) + "\n")


def _measure(shape: tuple[int, int, int, int], rounds: int) -> list[dict]:
    count, patches, tokens, width = shape
    inputs = _inputs(*shape)
    products = 2.0 * count * count * patches * tokens * width
    plain = _plain_products(inputs)
    runs: dict[tuple[str, str], Call] = {("plain products", kind): call for kind, call in plain.items()}
    memory: dict[tuple[str, str], int] = {}
    for name, score in _ours_and_rivals(shape).items():
        both = functools.partial(_with_gradient, score)
        for kind, program, given in (("forward", score, inputs[:3]), ("both", both, inputs)):
            compiled = jax.jit(program).lower(*given).compile()
            runs[name, kind] = functools.partial(compiled, *given)
            memory[name, kind] = compiled.memory_analysis().temp_size_in_bytes
    runs |= _torch_rivals(inputs)
    seconds = _take_turns(runs, rounds)
    rate = (
        3 * products / sum(seconds["plain products", kind] for kind in ("S", "dI", "dT"))
        if PLATFORM == "cpu"
        else 2.0 * 8192**3 / seconds["plain products", "8192"]
    )
    print(f"\n{count} x {count}, {patches} x {tokens}, D = {width}, {DTYPE.__name__}: plain {rate / 1e12:.3g} TFLOP/s")
    rows = []
    for name in dict.fromkeys(name for name, _ in runs if name != "plain products"):
        row: dict = {"shape": shape, "what": name, "plain TFLOP/s": rate / 1e12}
        for kind, units in (("forward", 1), ("both", 3)):
            if (name, kind) in seconds:
                tflops = units * products / seconds[name, kind] / 1e12
                row |= {
                    f"{kind} s": seconds[name, kind], f"{kind} TFLOP/s": tflops, f"{kind} share": tflops * 1e12 / rate,
                    f"{kind} GiB": memory.get((name, kind), math.nan) / 2**30,
                }  # fmt: skip
        rows.append(row)
        _print(row)
    return rows


def _inputs(count: int, patches: int, tokens: int, width: int) -> tuple[jax.Array, ...]:
    """Unit rows, captions of 4 tokens to all, a third of all on average, and a gradient for each score."""
    rng = np.random.default_rng(0)

    def unit(*shape: int) -> jax.Array:
        x = rng.normal(size=shape).astype(np.float32)
        return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), DTYPE)

    lengths = np.clip(rng.lognormal(math.log(tokens / 3.5), 0.45, count), 4, tokens).astype(int)
    mask = jnp.asarray(np.arange(tokens) < lengths[:, None])
    gradients = [jnp.asarray(rng.normal(size=(count, count)), jnp.float32) for _ in range(2)]
    return unit(count, patches, width), unit(count, tokens, width), mask, *gradients


def _ours_and_rivals(shape: tuple[int, int, int, int]) -> dict[str, Callable]:
    count, patches, tokens, _ = shape
    widths = tuple(w for w in (16, 32, 48) if w < tokens)

    def quarter(images, texts, mask):
        return vlc.late_interaction(*select_tokens(images, texts, mask, keep=0.25))

    found = {
        "vlc": vlc.late_interaction,
        "vlc, positions found again": functools.partial(vlc.late_interaction, argmax_bytes=0),
        "vlc, XLA": functools.partial(vlc.late_interaction, implementation="xla"),
        "vlc, buckets": functools.partial(vlc.late_interaction, buckets=widths),
        "vlc, 25% of tokens, with choosing them": quarter,
        "scan of einsum, remat, autodiff": _scanned,
    }
    if PLATFORM == "cpu":
        del found["vlc, positions found again"], found["vlc, XLA"]  # the same program
    if 4 * count * count * patches * tokens <= TOO_MUCH[PLATFORM]:
        found["einsum, autodiff"] = _einsum
    return found


def _with_gradient(score: Callable, images, texts, mask, *gradients):
    scores, pull = jax.vjp(lambda images, texts: score(images, texts, mask), images, texts)
    return scores, pull(gradients)


def _einsum(images, texts, mask):
    """Late interaction as one would write it first."""
    products = jnp.einsum("ipd,jtd->ijpt", images, texts, preferred_element_type=jnp.float32)
    i2t = jnp.where(mask[:, None], products, -jnp.inf).max(axis=3).mean(axis=2)
    return i2t, (products.max(axis=2) * mask).sum(axis=2) / mask.sum(axis=1)


def _scanned(images, texts, mask):
    """The same, a block of images at a time, made again in the backward pass."""
    rows = next(n for n in range(max(1, (1 << 26) // (texts.shape[0] * texts.shape[1] * images.shape[1])), 0, -1)
                if len(images) % n == 0)  # fmt: skip
    block = jax.checkpoint(lambda part: _einsum(part, texts, mask))
    i2t, t2i = jax.lax.map(block, images.reshape(-1, rows, *images.shape[1:]))
    return i2t.reshape(len(images), -1), t2i.reshape(len(images), -1)


def _plain_products(inputs: tuple[jax.Array, ...]) -> dict[str, Call]:
    if PLATFORM != "cpu":
        square = jnp.ones((8192, 8192), jnp.bfloat16)
        return {"8192": functools.partial(jax.jit(jnp.matmul), square, square)}
    images, texts = (x.reshape(-1, x.shape[-1]) for x in inputs[:2])
    flow = jnp.ones((len(images), len(texts)), DTYPE)
    return {
        "S": functools.partial(jax.jit(lambda a, b: a @ b.T), images, texts),
        "dI": functools.partial(jax.jit(jnp.matmul), flow, texts),
        "dT": functools.partial(jax.jit(lambda f, a: f.T @ a), flow, images),
    }


def _torch_rivals(inputs: tuple[jax.Array, ...]) -> dict[tuple[str, str], Call]:
    """Fused kernels for PyTorch, where they are installed. They score one direction, so each is called for both."""
    if PLATFORM != "gpu" or importlib.util.find_spec("torch") is None:
        return {}
    import torch

    images, texts, mask, *gradients = (torch.from_dlpack(x.astype(jnp.int8) if x.dtype == bool else x) for x in inputs)
    kept = mask.bool()
    every = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
    runs: dict[tuple[str, str], Call] = {}

    def add(name: str, maxsim: Callable) -> None:
        """`maxsim(queries, query_mask, documents, document_mask)`: `[Q, N]`, summed over query tokens."""

        def score(images, texts):
            return maxsim(images, every, texts, kept), maxsim(texts, kept, images, every).T

        def forward():
            with torch.no_grad():
                score(images, texts)
            torch.cuda.synchronize()

        def both():
            leaves = [x.detach().requires_grad_() for x in (images, texts)]
            torch.autograd.backward(score(*leaves), gradients)
            torch.cuda.synchronize()

        runs[name, "forward"], runs[name, "both"] = forward, both

    if importlib.util.find_spec("flash_maxsim"):
        from flash_maxsim import flash_maxsim_batched_train

        add("flash-maxsim", lambda q, qm, d, dm: flash_maxsim_batched_train(
            q, d, doc_lengths=dm.sum(1).int(), query_lengths=qm.sum(1).int()))  # fmt: skip
    if importlib.util.find_spec("late_interaction_kernels"):
        from late_interaction_kernels import maxsim

        add("late-interaction-kernels", lambda q, qm, d, dm: maxsim(q, d, q_mask=qm, d_mask=dm))
    return runs


def _take_turns(runs: dict[tuple[str, str], Call], rounds: int) -> dict[tuple[str, str], float]:
    for call in runs.values():
        jax.block_until_ready(call())
    best = dict.fromkeys(runs, math.inf)
    for _ in range(rounds):
        for key, call in runs.items():
            begun = time.perf_counter()
            jax.block_until_ready(call())
            best[key] = min(best[key], time.perf_counter() - begun)
    return best


def _print(row: dict) -> None:
    parts = [f"{row['what']:40}"]
    for kind in ("forward", "both"):
        if f"{kind} s" in row:
            parts.append(
                f"{kind} {1e3 * row[f'{kind} s']:9.2f} ms {row[f'{kind} TFLOP/s']:8.3f} TFLOP/s "
                f"{100 * row[f'{kind} share']:5.0f}% {row[f'{kind} GiB']:7.3f} GiB"
            )
    print(" | ".join(parts), flush=True)


if __name__ == "__main__":
    main()
