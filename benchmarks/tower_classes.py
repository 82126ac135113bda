"""How fast an image tower learns to see: the classes of the left of two objects, told to it, by seconds of training.

    python benchmarks/tower_classes.py                            # the quickstart's tower
    python benchmarks/tower_classes.py --set stem=conv --lr 3e-3

No text and no contrast: the tower's pooled feature and a linear head, cross-entropy of shape (12) and colour (10), with
Muon. The evaluation is not counted in the seconds, the machine's other work is.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from vlc.config import default_config
from vlc.data.sources import Scenes
from vlc.data.sources.scenes import world
from vlc.data.sources.scenes.render import draw
from vlc.models.linear import linear
from vlc.models.vit import ImageTower
from vlc.train.muon import scale_by_muon_or

SIDE, BATCH, TRAIN, TEST = 72, 64, 15_000, 1_000
SHAPES = len(world.SHAPES)


class Classifier(nnx.Module):
    """An image tower and a linear map to the classes of shape, then of colour."""

    def __init__(self, config, rngs):
        half = (0.5,) * 3
        self.image_tower = ImageTower(
            config, size=SIDE, mean=half, std=half, embed_dim=64, dtype=jnp.float32, scan=False, remat="none", rngs=rngs
        )
        self.head = linear(config.width, SHAPES + len(world.COLOURS), ("embed", "shared"), dtype=jnp.float32, rngs=rngs)

    def __call__(self, images):
        logits = self.head(self.image_tower(images)[1])
        return logits[:, :SHAPES], logits[:, SHAPES:]


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Pictures, and shape and colour of the object that stands further left."""
    scenes, images, classes = Scenes(side=SIDE, objects=(2, 2)), [], []
    for index in range(TRAIN + TEST):
        scene, _ = scenes.scene(index)
        left = min(scene.objects, key=lambda one: one.x)
        images.append(draw(scene, SIDE)[0])
        classes.append((world.SHAPES.index(left.shape), world.COLOURS.index(left.colour)))
    return np.stack(images), np.array(classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], help="of config.model.image, NAME=TEXT")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seconds", type=float, default=40)
    options = parser.parse_args()
    config = default_config().model.image
    config.update({"patch": 12, "width": 128, "layers": 4, "heads": 4, "pool": "mean", "positions": "sines"})
    for pair in options.set:
        name, value = pair.split("=")
        config[name] = type(config[name])(value)
    images, classes = examples()
    graph, params = nnx.split(Classifier(config, nnx.Rngs(0)), nnx.Param)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        scale_by_muon_or(optax.scale_by_adam(0.9, 0.98), "float32"),
        optax.scale_by_learning_rate(lambda step: options.lr * jnp.minimum(1, step / 30)),
    )

    def loss(params, images, classes):
        found = nnx.merge(graph, params)(images)
        pairs = zip(found, classes.T, strict=True)
        return sum(optax.softmax_cross_entropy_with_integer_labels(x, y).mean() for x, y in pairs)

    @jax.jit
    def step(params, state, images, classes):
        updates, state = optimizer.update(jax.grad(loss)(params, images, classes), state, params)
        return optax.apply_updates(params, updates), state

    predict = jax.jit(lambda params, images: [x.argmax(1) for x in nnx.merge(graph, params)(images)])
    state, rng, spent, shown = optimizer.init(params), np.random.default_rng(0), 0.0, 0
    step(params, state, images[:BATCH], classes[:BATCH])  # compiled
    steps = 0
    while spent < options.seconds:
        rows = rng.integers(0, TRAIN, BATCH)
        begun = time.perf_counter()
        params, state = jax.block_until_ready(step(params, state, images[rows], classes[rows]))
        spent, steps = spent + time.perf_counter() - begun, steps + 1
        if spent * 4 > options.seconds * (shown + 1):
            shown += 1
            right = [np.mean(x == y) for x, y in zip(predict(params, images[TRAIN:]), classes[TRAIN:].T, strict=True)]
            print(f"{spent:.0f} s, {steps} steps: shape {right[0]:.1%}, colour {right[1]:.1%}", flush=True)


if __name__ == "__main__":
    main()
