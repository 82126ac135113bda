"""The image tower: a Vision Transformer (Dosovitskiy et al., ICLR 2021, arXiv 2010.11929)."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from vlc.models.layers import (
    NORMS,
    Attention,
    Block,
    Mlp,
    Stack,
    hidden_width,
    layer_norm,
    norm_of,
    shard_batch,
    table,
)
from vlc.models.linear import linear
from vlc.models.places import (
    Places,
    angles_at,
    only,
    only_mask,
    places_of_shapes,
    places_of_square,
    sines_at,
    table_at,
)
from vlc.models.stem import ConvStem


class AttentionPool(nnx.Module):
    """Learned queries attend to a sequence (MAP head of SigLIP)."""

    def __init__(
        self, width: int, heads: int, hidden: int, queries: int, *, eps: float = 1e-6, activation: str = "gelu_tanh",
        dtype: Any, rngs: nnx.Rngs,
    ):  # fmt: skip
        self.queries = table(queries, width, ("position", "embed"), rngs=rngs)
        self.attention = Attention(width, heads, dtype=dtype, rngs=rngs)
        self.norm = layer_norm(width, eps=eps, dtype=dtype, rngs=rngs)
        self.mlp = Mlp(width, hidden, activation=activation, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N P W"], mask: Bool[Array, "N 1 1 P"] | None = None) -> Float[Array, "N Q W"]:
        queries = jnp.broadcast_to(self.queries[...].astype(x.dtype), (x.shape[0], *self.queries.shape))
        return self._rest(self.attention.attend(queries, *self.attention.project(x), mask))

    def alone(self, x: Float[Array, "N P W"]) -> Float[Array, "N P W"]:
        """What is pooled when all of the attention goes to one patch, for each patch."""
        _, values = self.attention.project(x)
        return self._rest(self.attention.out(values))

    def _rest(self, pooled: Float[Array, "N Q W"]) -> Float[Array, "N Q W"]:
        return pooled + self.mlp(self.norm(pooled))


class QueryPool(nnx.Module):
    """Learned queries attend to a sequence of another width, without an MLP: CoCa's attentional pooler in open_clip."""

    def __init__(
        self, width: int, *, memory_width: int, heads: int, queries: int, eps: float, dtype: Any, rngs: nnx.Rngs
    ):
        self.queries = table(queries, width, ("position", "embed"), rngs=rngs)
        self.query_norm = layer_norm(width, eps=eps, dtype=dtype, rngs=rngs)
        self.memory_norm = layer_norm(memory_width, eps=eps, dtype=dtype, rngs=rngs)
        self.attention = Attention(width, heads, memory_width=memory_width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "N P V"], mask: Bool[Array, "N 1 1 P"] | None = None) -> Float[Array, "N Q W"]:
        queries = self.query_norm(self.queries[...])
        queries = jnp.broadcast_to(queries, (x.shape[0], *queries.shape))
        return self.attention.attend(queries, *self.attention.project(self.memory_norm(x)), mask)


class MaskPrompts(nnx.Module):
    """What stands for patches outside of a mask: before each of the first blocks, `T M + P (1 - M)`.

    T are the tokens of the patches, M is 1 inside, and P learned, for each block and place (OVSeg, Liang et al., CVPR
    2023, arXiv 2210.04150, section 3.3). P is 0 at the start.
    """

    def __init__(self, depth: int, places: int, width: int):
        zeros = jnp.zeros((depth, places, width), jnp.float32)
        self.values = nnx.Param(zeros, out_sharding=("layers", "position", "embed"))

    def run(
        self, stack: Stack, x: Float[Array, "B T W"], inside: Bool[Array, "B P"], first: int, **seen: Any
    ) -> Float[Array, "B T W"]:
        """The blocks of a tower, whose patches begin at `first`."""
        depth, places, _ = self.values.shape
        assert inside.shape[1] == places, "mask prompts are for pictures of one size"
        more = ((0, stack.layers - depth), (0, 0), (0, 0))
        prompts, prompted = jnp.pad(self.values[...], more), jnp.arange(stack.layers) < depth
        last = first + places

        def block(x: Array, item: tuple[Any, Array, Array]) -> tuple[Array, None]:
            apply, prompt, here = item
            outside = (here & ~inside)[..., None]
            patches = jnp.where(outside, prompt.astype(x.dtype), x[:, first:last])
            x = jnp.concatenate([x[:, :first], patches, x[:, last:]], axis=1)
            return apply(x, **seen), None

        return stack.run(block, x, prompts, prompted)[0]


class ImageTower(nnx.Module):
    """Pixels to patch features and one pooled feature.

    Attributes:
        grid: Patches on a side of the square that its positions are of.
        width: Of the features.
    """

    def __init__(
        self, config: Any, *, size: int, mean: Any, std: Any, embed_dim: int, dtype: Any, scan: bool, remat: str,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        width, eps = config.width, config.eps
        self.patch, self.dtype = config.patch, dtype
        self.mean, self.std = tuple(mean), tuple(std)
        self.embed = (
            ConvStem(config.patch, width, dtype=dtype, rngs=rngs)
            if config.stem == "conv"
            else linear(
                3 * config.patch**2, width, ("pixels", "embed"), dtype=dtype, rngs=rngs, use_bias=config.patch_bias
            )
        )
        self.grid = config.grid or size // config.patch
        has_cls = config.pool in ("cls", "queries")
        self.cls = table(1, width, ("position", "embed"), rngs=rngs) if has_cls else None
        self.positions = (
            table(self.grid**2 + has_cls, width, ("position", "embed"), rngs=rngs)
            if config.positions == "learned"
            else None
        )
        self.registers = table(config.registers, width, ("position", "embed"), rngs=rngs) if config.registers else None
        self.mask = table(1, width, ("position", "embed"), rngs=rngs) if config.prototypes else None
        self.prompts = MaskPrompts(config.mask_prompt, self.grid**2, width) if config.mask_prompt else None
        self.rotary, self.head = config.rotary, width // config.heads
        self.pre_norm = norm_of(config, dtype=dtype, rngs=rngs) if config.pre_norm else None
        self.stack = Stack(
            lambda rngs: Block(config, dtype=dtype, rngs=rngs), config.layers, scan=scan, remat=remat, rngs=rngs
        )
        self.stack_width = width
        self.width = embed_dim if config.pool == "queries" else width
        self.norm = NORMS[config.norm](self.width, eps=eps, dtype=dtype, rngs=rngs)
        self.map = (
            AttentionPool(
                width, config.heads, hidden_width(config), 1, eps=eps, activation=config.activation, dtype=dtype,
                rngs=rngs,
            )
            if config.pool == "map"
            else None
        )  # fmt: skip
        self.query_pool = (
            QueryPool(
                embed_dim, memory_width=width, heads=config.pool_heads, queries=config.queries, eps=eps, dtype=dtype,
                rngs=rngs,
            )
            if config.pool == "queries"
            else None
        )  # fmt: skip

    def __call__(
        self, images: UInt8[Array, "B H S 3"], kept: Int[Array, "B K"] | None = None,
        hidden: Int[Array, "B M"] | None = None, inside: Bool[Array, "B P"] | None = None,
    ) -> tuple[Float[Array, "B P W"], Float[Array, "B W"], Bool[Array, "B P"] | None]:  # fmt: skip
        """Features of the patches, or of those that are `kept`; the pooled feature; and which patches there are.

        Images are squares of any size, `[B, S, S, 3]`, all of whose patches there are (`None`), or packed patches of
        pictures of any shape, `[B, S + 1, S, 3]` (`vlc.data.naflex`). Features of pads are zeros. Of patches that are
        `hidden` a learned vector is seen; of those that are not `inside` of what the picture is about, `MaskPrompts`.
        """
        pixels, places = self._see(images)
        x = self.embed(pixels)
        if hidden is not None:
            assert self.mask is not None, "config.model.image.prototypes is 0"
            x = x.at[jnp.arange(len(x))[:, None], hidden].set(self.mask[...].astype(x.dtype))
        positions = self._positions(places)
        x = only(x, kept) + only(positions, kept).astype(x.dtype)
        if self.cls is not None:
            cls = self.cls[...].astype(x.dtype) + self._cls_position().astype(x.dtype)
            x = jnp.concatenate([jnp.broadcast_to(cls, (x.shape[0], 1, x.shape[2])), x], axis=1)
        real = x.shape[1]
        if self.registers is not None:
            more = self.registers[...].astype(x.dtype)
            x = jnp.concatenate([x, jnp.broadcast_to(more, (x.shape[0], *more.shape))], axis=1)
        there = only_mask(places.mask, kept)
        x = shard_batch(self.pre_norm(x) if self.pre_norm is not None else x)
        seen = {"mask": self._attended(there), "angles": self._angles(places, kept)}
        if inside is None or self.prompts is None:
            x = self.stack(x, **seen)
        else:
            x = self.prompts.run(self.stack, x, inside, int(self.cls is not None), **seen)
        x = x[:, :real]
        if self.query_pool is not None:
            x = self.query_pool(x, self._attended(there, registers=False))
        x = self.norm(x)
        if self.query_pool is not None:
            return x[:, 1:], x[:, 0], None
        x, cls = (x[:, 1:], x[:, 0]) if self.cls is not None else (x, None)
        pooled = self._pooled(x, there) if cls is None else cls
        return without_pads(x, there), pooled, there

    def _pooled(self, x: Float[Array, "B P W"], there: Bool[Array, "B P"] | None) -> Float[Array, "B W"]:
        if self.map is not None:
            return self.map(x, mask_of(there))[:, 0]
        if there is None:
            return x.mean(axis=1)
        return without_pads(x, there).sum(axis=1) / there.sum(axis=1, keepdims=True).astype(x.dtype)

    def _see(self, images: UInt8[Array, "B H S 3"]) -> tuple[Array, Places]:
        """What the embedding takes, and where it stands."""
        if images.shape[1] != images.shape[2]:
            patches, shapes = unpacked(images, self.patch)
            assert not isinstance(self.embed, ConvStem), "a convolutional stem sees whole images"
            return self._normalised(patches), places_of_shapes(self.grid, shapes, patches.shape[1])
        side = images.shape[1] // self.patch  # what is left of a side is not seen (SigLIP's 384 and 14)
        pixels = self._normalised(images[:, : side * self.patch, : side * self.patch])
        whole = isinstance(self.embed, ConvStem)
        return pixels if whole else cut_patches(pixels, self.patch), places_of_square(self.grid, side)

    def _normalised(self, bytes: UInt8[Array, "..."]) -> Float[Array, "..."]:
        """Pixels whose channels have the mean and deviation that the model wants; the channel comes last."""
        repeats = bytes.shape[-1] // 3
        mean, std = (jnp.tile(jnp.asarray(values), repeats) for values in (self.mean, self.std))
        return ((bytes.astype(jnp.float32) / 255 - mean) / std).astype(self.dtype)

    def _attended(self, there: Bool[Array, "B P"] | None, *, registers: bool = True) -> Bool[Array, "B 1 1 M"] | None:
        """What attention may see: the patches that there are, the class token and the registers."""
        if there is None:
            return None
        more = self.registers.shape[0] if self.registers is not None and registers else 0
        return mask_of(jnp.pad(there, ((0, 0), (int(self.cls is not None), more)), constant_values=True))

    def in_pooled_space(self, features: Float[Array, "B P W"]) -> Float[Array, "B P W"]:
        """Patch features where the pooled feature lives, so that its projection can be used for them too."""
        return self.map.alone(features) if self.map is not None else features

    def _angles(self, places: Places, kept: Int[Array, "B K"] | None) -> Float[Array, "*B P _"] | None:
        """Of rotary positions; neither the class token nor registers are turned."""
        if not self.rotary:
            return None
        angles = only(jnp.asarray(angles_at(places, self.head)), kept)
        registers = self.registers.shape[0] if self.registers is not None else 0
        return jnp.pad(angles, [(0, 0)] * (angles.ndim - 2) + [(int(self.cls is not None), registers), (0, 0)])

    def _positions(self, places: Places) -> Float[Array, "*B P W"]:
        if self.positions is None:
            return jnp.asarray(sines_at(places, self.stack_width))
        return table_at(self.positions[...][int(self.cls is not None) :], places)

    def square_positions(self) -> Float[Array, "G G W"]:
        """The positions of the patches of a square picture, row by row."""
        return self._positions(places_of_square(self.grid, self.grid)).reshape(self.grid, self.grid, -1)

    def _cls_position(self) -> Float[Array, "1 W"]:
        """Sines have none for the class token."""
        return self.positions[...][:1] if self.positions is not None else jnp.zeros((1, self.stack_width))


def mask_of(there: Bool[Array, "B M"] | None) -> Bool[Array, "B 1 1 M"] | None:
    """What attention to a memory takes."""
    return None if there is None else there[:, None, None]


def without_pads(x: Float[Array, "B P W"], there: Bool[Array, "B P"] | None) -> Float[Array, "B P W"]:
    """The same with zeros where there is no patch."""
    return x if there is None else jnp.where(there[..., None], x, 0)


def unpacked(images: UInt8[Array, "B _ S 3"], patch: int) -> tuple[UInt8[Array, "B P _"], Int[Array, "B 2"]]:
    """Packed patches `[B, S + 1, S, 3]` (`vlc.data.naflex`) one by one, and the rows and columns of each image."""
    side = images.shape[2]
    patches = cut_patches(images[:, :side], patch)
    shapes = images[:, side, :2, :2].astype(jnp.int32)
    return patches, shapes[..., 0] * 256 + shapes[..., 1]


def cut_patches(pixels: Float[Array, "B S S 3"], patch: int) -> Float[Array, "B P _"]:
    """The pixels of each patch, row by row."""
    batch, grid = pixels.shape[0], pixels.shape[1] // patch
    pixels = pixels.reshape(batch, grid, patch, grid, patch, 3).swapaxes(2, 3)
    return pixels.reshape(batch, grid * grid, patch * patch * 3)
