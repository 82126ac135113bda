"""What late interaction costs a whole train step: CLIP, and FILIP in several forms, on the same towers and batch.

    python benchmarks/step_share.py                          # ViT-Ti/32 on CPU, B/32 elsewhere; batch 1,024, 77 tokens
    python benchmarks/step_share.py --image B/16 --text B

Each row is a full step (towers, loss, gradient, optimizer) of a single objective; the share of the core is what its
step takes longer than CLIP's, which has no core to speak of. Captions have 8 to 77 tokens, 17 on average, as on the
web. The batch is encoded in parts where memory needs it, the same for all rows. Steps take turns; the fastest counts.
"""

import argparse
import json
import math
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vlc.config import default_config, resolve_auto
from vlc.models import presets
from vlc.train.optimizer import make_optimizer
from vlc.train.state import init_state, make_graph
from vlc.train.step import make_train_step

BUCKETS = (16, 24, 32, 48)
ROWS = {
    "CLIP": {"clip.weight": 1.0},
    "FILIP": {"filip.weight": 1.0},
    "FILIP, buckets": {"filip.weight": 1.0, "filip.buckets": BUCKETS},
    "FILIP, 25% of tokens": {"filip.weight": 1.0, "filip.keep_tokens": 0.25},
}


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", default="Ti/32" if on_cpu else "B/32")
    parser.add_argument("--text", default="Ti" if on_cpu else "B")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--accumulate", type=int, default=8 if on_cpu else 1)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    batch = _batch(args.batch)
    steps = {name: _step(settings, args, batch) for name, settings in ROWS.items()}
    seconds = dict.fromkeys(steps, math.inf)
    for _ in range(args.rounds):
        for name, step in steps.items():
            begun = time.perf_counter()
            jax.block_until_ready(step())
            seconds[name] = min(seconds[name], time.perf_counter() - begun)
    rows = [
        {"what": name, "step s": taken, "images/s": args.batch / taken, "core's share": 1 - seconds["CLIP"] / taken}
        for name, taken in seconds.items()
    ]
    for row in rows:
        print(f"{row['what']:22} {row['step s']:8.3f} s  {row['images/s']:8.1f} images/s  {row["core's share"]:6.1%}")
    out = Path(__file__).parent / "results" / f"step_share_{jax.default_backend()}.json"
    facts = vars(args) | {"device": jax.devices()[0].device_kind, "tokens": int((batch["text"] < 8192).sum(1).mean())}
    out.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


def _batch(count: int) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(math.log(17), 0.45, count), 8, 77).astype(int)
    ids = np.where(np.arange(77) < lengths[:, None], rng.integers(3, 8192, (count, 77)), 8192)
    image = rng.integers(0, 256, (count, 224, 224, 3), np.uint8)
    return {"image": jnp.asarray(image), "text": jnp.asarray(ids, jnp.int32), "target": jnp.asarray(ids, jnp.int32)}


def _step(settings: dict, args: argparse.Namespace, batch: dict[str, jax.Array]):
    config = default_config()
    config.batch_size, config.accumulate = args.batch, args.accumulate
    config.model.embed_dim = 256
    config.model.image.update(presets.image_tower(args.image))
    config.model.text.update(presets.text_tower(args.text, length=77))
    config.objectives.clip.weight = 0.0
    for key, value in settings.items():
        objective, name = key.split(".")
        config.objectives[objective][name] = value
    run = resolve_auto(config, jax.default_backend())
    optimizer = make_optimizer(run.optimizer, run.steps)
    state = jax.jit(lambda key: init_state(run, 8192, optimizer, key))(jax.random.key(0))
    step = jax.jit(make_train_step(make_graph(run, 8192), optimizer, run)).lower(state, batch).compile()
    return lambda: step(state, batch)


if __name__ == "__main__":
    main()
