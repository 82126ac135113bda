"""`late_interaction`, the one public function of the similarity core."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError, did_you_mean
from vlc.models.layers import batch_axes
from vlc.similarity import reference, xla

IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "reference": reference.late_interaction,
    "xla": xla.late_interaction,
}


def late_interaction(
    image_tokens: Float[Array, "B P D"],
    text_tokens: Float[Array, "C T D"],
    text_mask: Bool[Array, "C T"],
    *,
    implementation: str = "auto",
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """Token-wise similarity of every image with every text, in both directions (FILIP, arXiv 2111.07783, eq. 3-5).

    ```
    i2t[i, j] = mean over patches p of        max over unpadded tokens t of <image_tokens[i, p], text_tokens[j, t]>
    t2i[i, j] = mean over unpadded tokens t of       max over patches p of  <image_tokens[i, p], text_tokens[j, t]>
    ```

    The two are different matrices, and neither is the other's transpose. A text of pads only scores 0. Under a mesh
    with batch axes (`jax.set_mesh`) each device scores its images against all texts.

    Args:
        image_tokens: `[B, P, D]`, normally of unit length; float32 or bfloat16.
        text_tokens: `[C, T, D]`.
        text_mask: `[C, T]`, true for real tokens.
        implementation: `auto`, `xla` (tiled, own gradient) or `reference` (as written above).

    Returns:
        `i2t` and `t2i`, each `[B, C]` float32.

    Raises:
        ConfigError: The implementation is unknown.
    """
    name = "xla" if implementation == "auto" else implementation
    if name not in IMPLEMENTATIONS:
        hint = did_you_mean(implementation, ["auto", *IMPLEMENTATIONS])
        raise ConfigError(f'late_interaction has no implementation "{implementation}".{hint}')
    score = IMPLEMENTATIONS[name]
    mesh = jax.sharding.get_abstract_mesh()
    axes = batch_axes()
    devices = 1
    for axis in axes:
        devices *= mesh.shape[axis]
    with jax.named_scope("late_interaction"):
        if devices == 1 or image_tokens.shape[0] % devices:
            return score(image_tokens, text_tokens, text_mask)
        rows, whole = PartitionSpec(axes), PartitionSpec()
        # No axis is checked for replication: the texts are whole on every device, and their gradient is summed.
        spread = jax.shard_map(score, mesh=mesh, in_specs=(rows, whole, whole), out_specs=(rows, rows), check_vma=False)
        return spread(image_tokens, text_tokens, text_mask)
