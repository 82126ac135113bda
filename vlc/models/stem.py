"""From pixels to patches by a few small convolutions, in place of one linear map of each patch.

Xiao et al., "Early Convolutions Help Transformers See Better" (NeurIPS 2021, arXiv 2106.14881). A linear map has to
learn each edge anew at every place within a patch; convolutions share what they learn between places.
"""

import itertools
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from vlc.models.linear import linear

_NARROWEST = 8  # channels


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
    """Convolutions of 3 x 3, each with a rectifier, that make one place of a patch; then a linear map.

    The paper's without its batch normalisation, which would mix the records of a batch. Of the norms that do not, one
    of each place over its channels learns shapes late, and one of each channel over the image leaves little in the mean
    of the places; without any, shapes are seen soon both ways (`benchmarks/stem_norms.py`). Channels double from one
    convolution to the next, up to the width of the tower.
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
        self.out = linear(channels[-1] if channels else 3, width, ("pixels", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B P D"]:
        x = pixels
        for convolution in self.convolutions:
            x = jax.nn.relu(convolution(x))
        x = self.out(x)
        return x.reshape(x.shape[0], -1, x.shape[-1])


def _convolution(before: int, after: int, stride: int, *, dtype: Any, rngs: nnx.Rngs) -> nnx.Conv:
    """A stride above 3 has a kernel as wide, so that no pixel is lost."""
    side = max(3, stride)
    return nnx.Conv(
        before, after, (side, side), strides=stride, padding="SAME", dtype=dtype, rngs=rngs,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_in", "uniform"),
        kernel_metadata={"out_sharding": ("pixels", "pixels", "pixels", "shared")},
        bias_metadata={"out_sharding": ("shared",)},
    )  # fmt: skip
