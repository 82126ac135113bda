"""From pixels to patches by a few small convolutions, in place of one linear map of each patch.

Xiao et al., "Early Convolutions Help Transformers See Better" (NeurIPS 2021, arXiv 2106.14881). A linear map has to
learn each edge anew at every place within a patch; convolutions share what they learn between places.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from vlc.models.linear import linear

_NARROWEST = 8  # channels
_EPS = 1e-3


def strides_of(patch: int) -> tuple[int, ...]:
    """The strides of the convolutions: the prime factors of the patch in rising order, and after each but the first and
    the last one more convolution that keeps the size. 16 is 2, 2, 1, 2, 1, 2."""
    factors, divisor = [], 2
    while patch > 1:
        if patch % divisor:
            divisor += 1
        else:
            factors.append(divisor)
            patch //= divisor
    inner = itertools.chain.from_iterable((factor, 1) for factor in factors[1:-1])
    return (*factors[:1], *inner, *factors[1:][-1:])


class ConvStem(nnx.Module):
    """Convolutions of 3 x 3, each with a norm and a rectifier, that make one place of a patch; then a linear map.

    The paper's, but with each channel normalised over the places of an image: its batch normalisation would mix the
    records of a batch, and with a norm of each place over its channels shapes are learned late, where the best place
    counts (`benchmarks/stem_norms.py`). The mean of the places says little after it: it is near the same for every
    image. Channels double from one convolution to the next, up to the width of the tower.
    """

    def __init__(self, patch: int, width: int, *, dtype: Any, rngs: nnx.Rngs):
        strides = strides_of(patch)
        channels = [max(_NARROWEST, width >> (len(strides) - 1 - stage)) for stage in range(len(strides))]
        self.convolutions = nnx.List(
            [
                _convolution(before, after, stride, dtype=dtype, rngs=rngs)
                for stride, (before, after) in zip(strides, itertools.pairwise([3, *channels]), strict=True)
            ]
        )
        self.norms = nnx.List([ImageNorm(count) for count in channels])
        self.out = linear(channels[-1] if channels else 3, width, ("pixels", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B P D"]:
        x = pixels
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = jax.nn.relu(norm(convolution(x)))
        x = self.out(x)
        return x.reshape(x.shape[0], -1, x.shape[-1])


class ImageNorm(nnx.Module):
    """Each channel to mean 0 and variance 1 over the places of an image (instance normalisation, Ulyanov et al., 2016,
    arXiv 1607.08022), then a scale and a shift. A flat channel becomes the shift."""

    def __init__(self, channels: int):
        self.scale = nnx.Param(jnp.ones(channels), out_sharding=("norm",))
        self.bias = nnx.Param(jnp.zeros(channels), out_sharding=("norm",))

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        wide = x.astype(jnp.float32)
        mean, variance = wide.mean((1, 2), keepdims=True), wide.var((1, 2), keepdims=True)
        normed = (wide - mean) * jax.lax.rsqrt(variance + _EPS)
        return (normed * self.scale[...] + self.bias[...]).astype(x.dtype)


def _convolution(before: int, after: int, stride: int, *, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    """Without a bias, which the norm after it has. A stride above 3 has a kernel as wide, so that no pixel is lost."""
    side = max(3, stride)
    return nnx.Conv(
        before, after, (side, side), strides=stride, padding="SAME", use_bias=False, dtype=dtype, rngs=rngs,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "uniform"),
        kernel_metadata={"out_sharding": ("pixels", "pixels", "pixels", "shared")},
    )  # fmt: skip
