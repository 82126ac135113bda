"""Late interaction written as its equations. Holds all `B x C x P x T` products: for tests and tiny inputs."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def late_interaction(
    image_tokens: Float[Array, "B P D"], text_tokens: Float[Array, "C T D"], text_mask: Bool[Array, "C T"]
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """FILIP, equations 3 to 5; see `vlc.late_interaction`."""
    products = jnp.einsum(
        "ipd,jtd->ijpt", image_tokens, text_tokens, preferred_element_type=jnp.float32, precision="highest"
    )
    kept = text_mask[None, :, None, :]
    best_text = jnp.where(kept, products, -jnp.inf).max(axis=3)
    has_text = text_mask.any(axis=1)
    i2t = jnp.where(has_text, best_text.mean(axis=2), 0)
    best_patch = jnp.where(text_mask, products.max(axis=2), 0)
    t2i = best_patch.sum(axis=2) / jnp.maximum(text_mask.sum(axis=1), 1)
    return i2t, t2i
