"""Where the patches of an image stand, and the positions that they get for it.

A tower has positions for one square grid. Patches of any other grid stand at places between its own: the table is
resampled, and fixed sines and rotary angles are taken there. So one tower sees small images and large ones, and images
of many shapes in one batch (NaFlex: SigLIP 2, arXiv 2502.14786, section 2.4.2, after NaViT, arXiv 2307.06304).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vlc.models.rotary import place_angles


class Places(NamedTuple):
    """Where the patches `[P]` of all images, or those `[B, P]` of each, stand.

    Attributes:
        grid: Patches on a side of the tower's own grid.
        rows: Number of rows of patches; an array `[B]` where each image has its own.
        columns: Likewise.
        row: Of each patch, from 0.
        column: Likewise.
        mask: `[B, P]`, true for patches that there are; `None`: all.
    """

    grid: int
    rows: Any
    columns: Any
    row: Any
    column: Any
    mask: Array | None = None

    @property
    def is_own(self) -> bool:
        """Whether they are those of the tower's own grid."""
        return self.mask is None and self.rows == self.columns == self.grid

    def between(self) -> tuple[Any, Any]:
        """`y` and `x` of each patch among those of the tower's own grid, by the centres of the patches."""
        if self.is_own:
            return self.row, self.column
        return tuple(
            (place + 0.5) * (self.grid / _over_patches(count)) - 0.5
            for place, count in ((self.row, self.rows), (self.column, self.columns))
        )  # pyright: ignore[reportReturnType]


def places_of_square(grid: int, side: int) -> Places:
    """Of images that are squares of `side` times `side` patches."""
    row, column = (axis.reshape(-1) for axis in np.mgrid[:side, :side])
    return Places(grid, side, side, row, column)


def places_of_shapes(grid: int, shapes: Int[Array, "B 2"], patches: int) -> Places:
    """Of images that have rows and columns of their own, and behind their patches pads up to `patches`."""
    rows, columns = shapes[:, 0], shapes[:, 1]
    number = jnp.arange(patches)
    mask = number < (rows * columns)[:, None]
    across = jnp.maximum(columns, 1)[:, None]
    return Places(grid, rows, columns, jnp.where(mask, number // across, 0), jnp.where(mask, number % across, 0), mask)


def table_at(table: Float[Array, "G*G W"], places: Places) -> Float[Array, "*B P W"]:
    """A table of positions for the tower's own grid, resampled bilinearly, without aliasing where it becomes smaller.

    As `torch.nn.functional.interpolate` does with `antialias=True`, which the public NaFlex models use.
    """
    if places.is_own:
        return table
    grid = table.reshape(places.grid, places.grid, -1)
    down = _triangles(places.row, places.rows, places.grid).astype(table.dtype)
    across = _triangles(places.column, places.columns, places.grid).astype(table.dtype)
    both = (down[..., :, None] * across[..., None, :]).reshape(*down.shape[:-1], -1)
    return jnp.matmul(both, grid.reshape(len(table), -1), precision="highest")


def _triangles(place: Any, count: Any, grid: int) -> Float[Any, "*B P G"]:
    """How much each row of the grid counts at a place of another one: weights that fall linearly with the distance."""
    scale = grid / _over_patches(count)
    reach = jnp.maximum(scale, 1.0)
    away = jnp.abs(jnp.arange(grid) + 0.5 - ((place + 0.5) * scale)[..., None])
    weights = jnp.maximum(0.0, 1.0 - away / (reach[..., None] if jnp.ndim(reach) else reach))
    return weights / weights.sum(axis=-1, keepdims=True)


def _over_patches(count: Any) -> Any:
    """A number of each image as one that goes with numbers of its patches."""
    return jnp.maximum(count, 1)[:, None] if isinstance(count, jax.Array) else count


def sines_at(places: Places, width: int) -> Float[Any, "*B P W"]:
    """Fixed positions: sines and cosines of x, then of y, of wavelengths from 2 pi to 20,000 pi patches.

    Chen et al. (MoCo v3, arXiv 2104.02057); Beyer et al. ("Better plain ViT baselines", arXiv 2205.01580).
    """
    rate = 1 / 10_000 ** (np.arange(width // 4) / (width // 4 - 1))
    y, x = (place[..., None] * rate for place in places.between())
    xp = jnp if isinstance(y, jax.Array) else np
    return xp.concatenate([xp.sin(x), xp.cos(x), xp.sin(y), xp.cos(y)], axis=-1).astype(np.float32)


def angles_at(places: Places, head: int) -> Float[Any, "*B P _"]:
    """Rotary angles."""
    return place_angles(*places.between(), head)


def only(x: Float[Any, "*B P W"], kept: Int[Array, "B K"] | None) -> Float[Any, "*B K W"]:
    """Of patches that are kept alone, where not all are."""
    if kept is None:
        return x
    return jnp.take_along_axis(x, kept[..., None], axis=1) if x.ndim == 3 else jnp.asarray(x)[kept]


def only_mask(mask: Bool[Array, "B P"] | None, kept: Int[Array, "B K"] | None) -> Bool[Array, "B K"] | None:
    """Likewise of what tells whether they are there."""
    return mask if mask is None or kept is None else jnp.take_along_axis(mask, kept, axis=1)
