"""Late interaction written as its equations. Holds all `B x C x P x T` products: for tests and tiny inputs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def late_interaction(
    images: Float[Array, "B P D"], texts: Float[Array, "C T D"], weights: Float[Array, "C T"], *, smoothing: float = 0.0
) -> tuple[Float[Array, "B C"], Float[Array, "B C"]]:
    """FILIP, equations 3 to 5, or Norton's soft maxima; see `vlc.late_interaction`."""
    products = jnp.einsum("ipd,jtd->ijpt", images, texts, preferred_element_type=jnp.float32, precision="highest")
    kept = (weights > 0)[:, None, :]
    products = jnp.where(kept | ~kept.any(axis=2, keepdims=True), products, -jnp.inf)
    if smoothing:
        best_token = smoothing * jax.nn.logsumexp(products / smoothing, axis=3)
        best_patch = smoothing * jax.nn.logsumexp(products / smoothing, axis=2)
    else:
        best_token, best_patch = products.max(axis=3), products.max(axis=2)
    best_token = jnp.where(kept.any(axis=2), best_token, 0)
    return best_token.mean(axis=2), jnp.where(weights > 0, best_patch * weights, 0).sum(axis=2)
