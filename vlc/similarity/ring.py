"""Contrastive losses over a mesh without ever holding all texts: they travel around a ring of devices.

Each device keeps its images. Texts move one device on at every step, while the block of scores with the texts that have
arrived is computed. Log-sum-exps over texts add up where the images are; those over images travel with their texts. The
backward pass goes around once more and makes each block again, so a device never holds more than three shares of texts
(its own, those present and those arriving) and one block of scores, however many devices there are. The texts' gradient
travels home with them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from vlc.errors import ConfigError, did_you_mean
from vlc.models.layers import batch_axes, batch_shares

EXCHANGES = ("gather", "ring")
# (images, texts, constants) -> similarities i2t, t2i, each [b, c]; i2t may have more columns, of texts that are wrong
Block = Callable[..., tuple[Array, Array]]


def ring_axes(exchange: str, count: int) -> tuple[str, ...]:
    """The axes of the ring for `count` rows: none for `gather`, and none where there is nothing to share.

    Raises:
        ConfigError: `exchange` is unknown.
    """
    if exchange not in EXCHANGES:
        raise ConfigError(f'exchange is "{exchange}", which is not known.{did_you_mean(exchange, EXCHANGES)}')
    return batch_axes() if exchange == "ring" and batch_shares(count) > 1 else ()


@dataclasses.dataclass(frozen=True)
class Ring:
    """A loss of all pairs, summed over blocks. Hashable: it is a static argument of the gradient rule.

    Attributes:
        similarity: Scores of one block of images with one of texts.
        axes: Mesh axes that form the ring.
        pairs: Number of images (and of texts) in the whole batch.
        label_smoothing: Of the softmax loss.
        further: Weight of texts that are wrong of all images, whose columns come after the others.
    """

    similarity: Block
    axes: tuple[str, ...]
    pairs: int
    label_smoothing: float = 0.0
    further: float = 1.0


def ring_softmax_loss(
    ring: Ring, images: Any, texts: Any, constants: Any, logit_scale: Float[Array, ""] | float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Mean cross-entropy of each image among the texts, and of each text among the images.

    Args:
        ring: Similarity, axes and sizes.
        images: A tree of arrays `[B, ...]`, spread over the axes.
        texts: A tree of arrays `[B, ...]`; row i belongs to image i.
        constants: A tree that travels with the texts and has no gradient, such as masks.
        logit_scale: The multiplier, 1/temperature.
    """
    return _softmax(ring, images, texts, constants, jnp.asarray(logit_scale, jnp.float32))


def ring_sigmoid_loss(
    ring: Ring,
    images: Any,
    texts: Any,
    constants: Any,
    logit_scale: Float[Array, ""] | float,
    logit_bias: Float[Array, ""] | float,
) -> Float[Array, ""]:
    """SigLIP's loss over all pairs, divided by their number of images. Arguments as of `ring_softmax_loss`."""
    numbers = jnp.asarray(logit_scale, jnp.float32), jnp.asarray(logit_bias, jnp.float32)
    return _sigmoid(ring, images, texts, constants, numbers)


def weigh_further(logits: Float[Array, "B M"], captions: int, weight: float) -> Float[Array, "B M"]:
    """Logits whose columns from `captions` on count `weight` times in a softmax."""
    if weight == 1 or logits.shape[1] == captions:
        return logits
    return logits.at[:, captions:].add(math.log(weight))


# Softmax.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _softmax(ring: Ring, images: Any, texts: Any, constants: Any, scale: Array) -> tuple[Array, Array]:
    return _softmax_forward(ring, images, texts, constants, scale)[0]


def _softmax_forward(ring: Ring, images: Any, texts: Any, constants: Any, scale: Array):
    rows, whole = PartitionSpec(ring.axes), PartitionSpec()

    @functools.partial(
        jax.shard_map, in_specs=(rows, rows, rows, whole), out_specs=(whole, rows, rows), check_vma=False
    )
    def run(images, texts, constants, scale):
        def visit(total, carried, texts, constants, own):
            by_row, lost = total
            i2t, t2i = _logits(ring, images, texts, constants, scale)
            by_row = jnp.logaddexp(by_row, jax.nn.logsumexp(i2t, axis=1))
            by_column = jnp.logaddexp(carried, jax.nn.logsumexp(t2i, axis=0))
            return (by_row, lost + jnp.stack([_wanted(ring, x, own) for x in (i2t, t2i)])), by_column

        count = jax.tree.leaves(images)[0].shape[0]
        empty = jnp.full(count, -jnp.inf)
        (by_row, wanted), by_column = _around(ring.axes, visit, (empty, jnp.zeros(2)), empty, texts, constants)
        sums = jnp.stack([by_row.sum(), by_column.sum()]) - wanted
        return jax.lax.psum(sums, ring.axes) / ring.pairs, by_row, by_column

    losses, by_row, by_column = run(images, texts, constants, scale)
    return (losses[0], losses[1]), (images, texts, constants, scale, by_row, by_column)


def _softmax_backward(ring: Ring, residuals: tuple, gradients: tuple[Array, Array]):
    *inputs, scale, by_row, by_column = residuals
    images, texts, constants = inputs

    def block(images, texts, scale, constants, by_row, by_column, own):
        """Its gradient is that of both losses: the derivative of a log-sum-exp is exp(logit - log-sum-exp)."""
        i2t, t2i = _logits(ring, images, texts, constants, scale)
        of_images = jnp.exp(i2t - by_row[:, None]).sum() - _wanted(ring, i2t, own)
        of_texts = jnp.exp(t2i - by_column).sum() - _wanted(ring, t2i, own)
        return (gradients[0] * of_images + gradients[1] * of_texts) / ring.pairs

    d_images, d_texts, d_scale = _gradient(ring, block, images, texts, scale, (constants, by_column), by_row)
    return d_images, d_texts, None, d_scale


_softmax.defvjp(_softmax_forward, _softmax_backward)


def _logits(ring: Ring, images: Any, texts: Any, constants: Any, scale: Array) -> tuple[Array, Array]:
    i2t, t2i = (scale * x for x in ring.similarity(images, texts, constants))
    return weigh_further(i2t, t2i.shape[1], ring.further), t2i


def _wanted(ring: Ring, logits: Array, own: bool) -> Array:
    """The target's share of a block's logits: those of true pairs, and with smoothing a little of all."""
    smoothing = ring.label_smoothing
    total = (1 - smoothing) * jnp.trace(logits) if own else jnp.float32(0)
    return total + smoothing / ring.pairs * logits.sum() if smoothing else total


# Sigmoid.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sigmoid(ring: Ring, images: Any, texts: Any, constants: Any, numbers: tuple[Array, Array]) -> Array:
    rows, whole = PartitionSpec(ring.axes), PartitionSpec()

    @functools.partial(jax.shard_map, in_specs=(rows, rows, rows, whole), out_specs=whole, check_vma=False)
    def run(images, texts, constants, numbers):
        def visit(total, carried, texts, constants, own):
            return total + _sigmoid_block(ring, images, texts, constants, numbers, own), carried

        total, _ = _around(ring.axes, visit, jnp.float32(0), (), texts, constants)
        return jax.lax.psum(total, ring.axes) / ring.pairs

    return run(images, texts, constants, numbers)


def _sigmoid_block(
    ring: Ring, images: Any, texts: Any, constants: Any, numbers: tuple[Array, Array], own: bool
) -> Array:
    i2t, t2i = ring.similarity(images, texts, constants)
    return sigmoid_losses(i2t, numbers, t2i.shape[1], ring.further, own=own).sum()


def sigmoid_losses(
    similarity: Float[Array, "B M"], numbers: tuple[Any, Any], captions: int, further: float, *, own: bool = True
) -> Float[Array, "B M"]:
    """The loss of each pair: true ones on the diagonal where `own`, all others false.

    Args:
        similarity: Of images with `captions` captions, then with wrong texts.
        numbers: Scale and bias.
        captions: How many of the columns are captions.
        further: Weight of the losses of the others.
        own: Whether the captions are those of the images.
    """
    scale, bias = numbers
    logits = scale * similarity + bias
    signs = 2 * jnp.eye(*logits.shape) - 1 if own else -1.0
    losses = -jax.nn.log_sigmoid(signs * logits)
    return losses if logits.shape[1] == captions else losses.at[:, captions:].multiply(further)


def _sigmoid_forward(ring: Ring, *inputs: Any):
    return _sigmoid(ring, *inputs), inputs


def _sigmoid_backward(ring: Ring, residuals: tuple, gradient: Array):
    def block(images, texts, numbers, constants, by_row, by_column, own):
        return gradient / ring.pairs * _sigmoid_block(ring, images, texts, constants, numbers, own)

    images, texts, constants, numbers = residuals
    d_images, d_texts, d_numbers = _gradient(ring, block, images, texts, numbers, (constants, ()), ())
    return d_images, d_texts, None, d_numbers


_sigmoid.defvjp(_sigmoid_forward, _sigmoid_backward)


# Going around.


def _onward(axes: tuple[str, ...], tree: Any) -> Any:
    count = jax.lax.axis_size(axes)
    steps = [(i, (i + 1) % count) for i in range(count)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, axes, steps), tree)


def _around(axes: tuple[str, ...], visit: Callable, total: Any, carried: Any, texts: Any, constants: Any):
    """Calls `total, carried = visit(total, carried, texts, constants, own)` at each stop.

    `total` stays with the device, `carried` goes home with the texts. The next texts are sent for before a block is
    computed, so that they travel meanwhile.
    """
    arriving = _onward(axes, (texts, constants))
    total, carried = visit(total, carried, texts, constants, True)

    def stop(_, state):
        total, carried, (texts, constants) = state
        carried = _onward(axes, carried)
        arriving = _onward(axes, (texts, constants))
        return *visit(total, carried, texts, constants, False), arriving

    total, carried, _ = jax.lax.fori_loop(1, jax.lax.axis_size(axes), stop, (total, carried, arriving))
    return total, _onward(axes, carried)


def _gradient(ring: Ring, block: Callable, images: Any, texts: Any, numbers: Any, with_texts: Any, with_images: Any):
    """Gradient of the sum of `block(images, texts, numbers, constants, by_row, by_column, own)` over all blocks."""
    rows, whole = PartitionSpec(ring.axes), PartitionSpec()

    @functools.partial(
        jax.shard_map,
        in_specs=(rows, rows, whole, rows, rows),
        out_specs=(rows, rows, whole),
        check_vma=False,
    )
    def run(images, texts, numbers, with_texts, with_images):
        def visit(total, carried, texts, with_texts, own):
            constants, by_column = with_texts

            def local(images, texts, numbers):
                return block(images, texts, numbers, constants, with_images, by_column, own)

            of_images, of_texts, of_numbers = jax.grad(local, (0, 1, 2))(images, texts, numbers)
            wide = functools.partial(jax.tree.map, lambda sum, x: sum + x.astype(jnp.float32))
            return wide(total, (of_images, of_numbers)), wide(carried, of_texts)

        def zeros(tree):
            return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)

        (d_images, d_numbers), d_texts = _around(
            ring.axes, visit, zeros((images, numbers)), zeros(texts), texts, with_texts
        )
        same = functools.partial(jax.tree.map, lambda gradient, x: gradient.astype(x.dtype))
        return same(d_images, images), same(d_texts, texts), jax.lax.psum(d_numbers, ring.axes)

    return run(images, texts, numbers, with_texts, with_images)
