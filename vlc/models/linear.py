"""Linear maps whose axes have names."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float


class Linear(nnx.LinearGeneral):
    """A linear map, and after `adapt` a second one of low rank beside it.

    `y = x W + b + (alpha / rank) (x A) B` (LoRA, Hu et al., ICLR 2022, arXiv 2106.09685, section 4.1).

    Attributes:
        lora_in: A, `[*in_features, rank]`, `None` where there is none.
        lora_out: B, `[rank, *out_features]`.
        lora_scale: `alpha / rank`.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.lora_in = self.lora_out = nnx.data(None)
        self.lora_scale = 0.0

    def adapt(self, rank: int, alpha: float, rngs: nnx.Rngs) -> None:
        """Adds A, drawn from within 1 / sqrt(inputs), and B, which is 0, so that the map stays what it is. Stacked
        layers have their own."""
        stacked = self.kernel.ndim - len(self.in_features) - len(self.out_features)
        layers, names = self.kernel.shape[:stacked], self.kernel.get_metadata("out_sharding")
        inputs = stacked + len(self.in_features)
        limit = 1 / math.sqrt(math.prod(self.in_features))
        drawn = jax.random.uniform(rngs.params(), (*layers, *self.in_features, rank), jnp.float32, -limit, limit)
        zeros = jnp.zeros((*layers, rank, *self.out_features), jnp.float32)
        self.lora_in = nnx.Param(drawn, out_sharding=(*names[:inputs], "rank"))
        self.lora_out = nnx.Param(zeros, out_sharding=(*names[:stacked], "rank", *names[inputs:]))
        self.lora_scale = alpha / rank

    def __call__(self, inputs: Float[Array, "..."], out_sharding: Any = None) -> Float[Array, "..."]:
        out = super().__call__(inputs, out_sharding)
        if self.lora_in is None or self.lora_out is None:
            return out
        x, a, b = self.promote_dtype((inputs, self.lora_in[...], self.lora_out[...]), dtype=self.dtype)
        summed = len(self.in_features)
        low = lax.dot_general(x, a, ((tuple(range(x.ndim - summed, x.ndim)), tuple(range(summed))), ((), ())))
        return out + self.lora_scale * jnp.tensordot(low, b, axes=1)


def linear(
    fan_in: int | tuple[int, ...], fan_out: int | tuple[int, ...], axes: tuple[str, ...], *, dtype: Any, rngs: nnx.Rngs,
    use_bias: bool = True,
) -> Linear:  # fmt: skip
    """A linear map with named axes; `axes` names the input axes, then the output axes."""
    outputs = len(fan_out) if isinstance(fan_out, tuple) else 1
    contracted = tuple(range(-len(fan_in), 0)) if isinstance(fan_in, tuple) else -1
    return Linear(
        fan_in,
        fan_out,
        axis=contracted,
        use_bias=use_bias,
        dtype=dtype,
        rngs=rngs,
        kernel_init=nnx.initializers.variance_scaling(1.0, "fan_in", "uniform"),
        kernel_metadata={"out_sharding": axes},
        bias_metadata={"out_sharding": axes[-outputs:]},
    )
