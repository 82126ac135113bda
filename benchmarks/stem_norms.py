"""How soon convolutions see shapes, by how they are normalised and pooled: the choice behind `model.image.stem=conv`.

    python benchmarks/stem_norms.py --out benchmarks/results/stem_norms.json

Pictures of one object, five convolutions, a linear head, cross-entropy of shape (12) and colour (10), Adam. No
transformer and no text: what is measured is how many pictures it takes, not seconds.
"""

import argparse
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vlc.data.sources import Scenes
from vlc.data.sources.scenes import world

SIDE, BATCH, TRAIN, TEST = 72, 64, 15_000, 1_000
SHAPES = len(world.SHAPES)
LAYERS = ((5, 16, 2), (3, 32, 2), (3, 64, 1), (3, 64, 2), (3, 128, 1))  # side of the kernel, channels, stride
NORMS = {  # the axes of what is normalised together, of [record, y, x, channel]
    "each place over its channels": (3,),
    "each channel over an image": (1, 2),
    "each channel over the batch": (0, 1, 2),
    "none": None,
}
POOLS = {"mean": jnp.mean, "max": jnp.max}


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Pictures, and shape and colour of their object."""
    scenes = Scenes(side=SIDE, objects=(1, 1))
    records = [scenes[index] for index in range(TRAIN + TEST)]
    objects = [record.extra["scene"].objects[0] for record in records]
    classes = [(world.SHAPES.index(one.shape), world.COLOURS.index(one.colour)) for one in objects]
    return np.stack([record.image for record in records]), np.array(classes)


def new_params(key: jax.Array) -> dict:
    keys, before, convolutions = jax.random.split(key, len(LAYERS) + 1), 3, []
    for layer, (side, channels, _) in enumerate(LAYERS):
        deviation = np.sqrt(2 / (side * side * before))
        kernel = jax.random.normal(keys[layer], (side, side, before, channels)) * deviation
        convolutions.append({"kernel": kernel, "scale": jnp.ones(channels), "bias": jnp.zeros(channels)})
        before = channels
    return {"convolutions": convolutions, "head": 0.01 * jax.random.normal(keys[-1], (before, SHAPES + 10))}


def logits(params: dict, images: jax.Array, norm: str, pool: str) -> jax.Array:
    x = images.astype(jnp.float32) / 127.5 - 1
    for layer, (_, _, stride) in zip(params["convolutions"], LAYERS, strict=True):
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        if (axes := NORMS[norm]) is not None:
            x = (x - x.mean(axes, keepdims=True)) * jax.lax.rsqrt(x.var(axes, keepdims=True) + 1e-3)
        x = jax.nn.relu(x * layer["scale"] + layer["bias"])
    return POOLS[pool](x, axis=(1, 2)) @ params["head"]


def learn(data: tuple[np.ndarray, np.ndarray], norm: str, pool: str, rate: float, steps: int) -> dict[str, float]:
    """Accuracy of shape by how many steps were made."""
    images, classes = data
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, 50, steps)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.scale_by_adam(0.9, 0.98), optax.scale_by_learning_rate(schedule)
    )

    def loss(params, images, classes):
        found = logits(params, images, norm, pool)
        parts = (found[:, :SHAPES], classes[:, 0]), (found[:, SHAPES:], classes[:, 1])
        return sum(optax.softmax_cross_entropy_with_integer_labels(x, y).mean() for x, y in parts)

    @jax.jit
    def step(params, state, images, classes):
        updates, state = optimizer.update(jax.grad(loss)(params, images, classes), state, params)
        return optax.apply_updates(params, updates), state

    predict = jax.jit(lambda params, images: logits(params, images, norm, pool)[:, :SHAPES].argmax(1))
    params, rng, found = new_params(jax.random.key(0)), np.random.default_rng(0), {}
    state = optimizer.init(params)
    for number in range(1, steps + 1):
        rows = rng.integers(0, TRAIN, BATCH)
        params, state = step(params, state, images[rows], classes[rows])
        if number % (steps // 3) == 0:
            right = predict(params, images[TRAIN:]) == classes[TRAIN:, 0]
            found[str(number)] = round(float(np.mean(right)), 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=240)
    options = parser.parse_args()
    data, rows = examples(), []
    for norm, pool, rate in itertools.product(NORMS, POOLS, (3e-3, 1e-2)):
        found = learn(data, norm, pool, rate, options.steps)
        rows.append({"norm": norm, "pool": pool, "rate": rate, "shape, by step": found})
        print(f"{norm}, {pool}, {rate}: {found}", flush=True)
        if options.out:
            options.out.write_text(json.dumps({"batch": BATCH, "chance": 1 / SHAPES, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
