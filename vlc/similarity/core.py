"""`late_interaction`, the one public function of the similarity core."""

import functools
import logging
from collections.abc import Callable

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float

from vlc.errors import ConfigError, did_you_mean
from vlc.models.layers import batch_axes, batch_shares
from vlc.models.platform import platform_in_use
from vlc.similarity import reference, xla
from vlc.similarity.buckets import score_by_length
from vlc.similarity.padding import fill_pads, token_weights
from vlc.similarity.ragged import mark_images, mark_texts, of_marked

IMPLEMENTATIONS = ("auto", "xla", "pallas_tpu", "pallas_gpu", "reference")
ARGMAX_BYTES = 9 << 29  # 4.5 GiB: what the forward pass may keep for the backward pass
_BUCKET_TEXTS = {"cpu": 16, "gpu": 256, "tpu": 256}

Scores = tuple[Float[Array, "B C"], Float[Array, "B C"]]


def late_interaction(
    image_tokens: Float[Array, "B P D"],
    text_tokens: Float[Array, "C T D"],
    text_mask: Bool[Array, "C T"],
    *,
    implementation: str = "auto",
    smoothing: float = 0.0,
    argmax_bytes: int = ARGMAX_BYTES,
    buckets: tuple[int, ...] = (),
    image_mask: Bool[Array, "B P"] | None = None,
) -> Scores:
    """Token-wise similarity of every image with every text, in both directions (FILIP, arXiv 2111.07783, eq. 3-5).

    ```
    i2t[i, j] = mean over patches p of        max over unpadded tokens t of <image_tokens[i, p], text_tokens[j, t]>
    t2i[i, j] = mean over unpadded tokens t of       max over patches p of  <image_tokens[i, p], text_tokens[j, t]>
    ```

    The two are different matrices, and neither is the other's transpose. A text of pads only scores 0, and what pads
    hold never matters. Under a mesh with batch axes (`jax.set_mesh`) each device scores its images against all texts.
    Of equal maxima any may get the gradient.

    Args:
        image_tokens: `[B, P, D]`, normally of unit length; float32 or bfloat16. Products are summed in float32.
        text_tokens: `[C, T, D]`, of the same type.
        text_mask: `[C, T]`, true for real tokens, in any places.
        implementation: `auto` (by platform), `xla` (tiled, own gradient), `pallas_tpu` (kernels for TPU), `pallas_gpu`
            (kernels for Hopper, bfloat16) or `reference` (as written above, all products in memory). On a GPU `auto` is
            `xla` where no kernel fits, and says so once.
        smoothing: Temperature a of soft maxima `a log sum exp(x / a)` (Norton, arXiv 2401.16702); 0 is the maximum.
            Above 0 `auto` is `xla`.
        argmax_bytes: Each maximum's position is kept for the backward pass if on each device this many bytes hold them
            (B*C*(P+T) bytes, twice that for over 256 patches or tokens), and else found again, at one more product.
        buckets: Widths that blocks of texts of similar length are cut to (`vlc.similarity.buckets`): the same scores,
            without the products of pads. With them, positions of maxima are found again.
        image_mask: `[B, P]`, true for patches that there are, where images have grids of their own; `None`: all.

    Returns:
        `i2t` and `t2i`, each `[B, C]` float32.

    Raises:
        ConfigError: The implementation is unknown, has no smoothing or cannot take these tokens, or shapes or types do
            not belong together.
    """
    _check(image_tokens, text_tokens, text_mask, implementation, smoothing)
    if image_mask is not None:
        options = {"implementation": implementation, "argmax_bytes": argmax_bytes, "buckets": buckets}
        score = of_marked(functools.partial(late_interaction, smoothing=smoothing, **options), smoothing=smoothing)
        return score(mark_images(image_tokens, image_mask, smoothing=smoothing), mark_texts(text_tokens), text_mask)
    score = functools.partial(_score, _backend(implementation, smoothing, 0 if buckets else argmax_bytes))
    if buckets:
        block = _BUCKET_TEXTS[platform_in_use()]
        score = functools.partial(score_by_length, score, tuple(buckets), block)
    with jax.named_scope("late_interaction"):
        if batch_shares(image_tokens.shape[0]) == 1:
            return score(image_tokens, text_tokens, text_mask)
        rows, whole = PartitionSpec(batch_axes()), PartitionSpec()
        # No axis is checked for replication: the texts are whole on every device, and their gradient is summed.
        spread = jax.shard_map(score, in_specs=(rows, whole, whole), out_specs=(rows, rows), check_vma=False)
        return spread(image_tokens, text_tokens, text_mask)


def _score(backend: Callable[..., Scores], images: Array, texts: Array, mask: Array) -> Scores:
    """Takes the mask off, so that backends need none: a text of pads only is zeros and scores 0 by itself."""
    return backend(images, fill_pads(texts, mask), token_weights(mask))


def _backend(implementation: str, smoothing: float, argmax_bytes: int) -> Callable[..., Scores]:
    platform = platform_in_use()
    tiled = functools.partial(_in_tiles, smoothing, argmax_bytes)
    kernels = {
        "pallas_tpu": functools.partial(_on_tpu, argmax_bytes),
        "pallas_gpu": functools.partial(_on_gpu, argmax_bytes, None),
    }
    if implementation == "auto" and not smoothing:
        by_platform = {"tpu": kernels["pallas_tpu"], "gpu": functools.partial(_on_gpu, argmax_bytes, tiled)}
        return by_platform.get(platform, tiled)
    if implementation == "reference":
        return functools.partial(reference.late_interaction, smoothing=smoothing)
    return kernels.get(implementation, tiled)


def _can_save(argmax_bytes: int, images: Array, texts: Array) -> bool:
    """Whether the positions of all maxima are within the budget."""
    patches, tokens = images.shape[1], texts.shape[1]
    positions = images.shape[0] * texts.shape[0] * (patches + tokens)
    return positions * xla.position_type(patches, tokens).itemsize <= argmax_bytes


def _in_tiles(smoothing: float, argmax_bytes: int, images: Array, texts: Array, weights: Array) -> Scores:
    save, platform = _can_save(argmax_bytes, images, texts), platform_in_use()
    return xla.late_interaction(images, texts, weights, smoothing=smoothing, save_argmax=save, platform=platform)


def _on_tpu(argmax_bytes: int, images: Array, texts: Array, weights: Array) -> Scores:
    from vlc.similarity import tpu  # the kernels' own imports take a while, and a CPU needs none of them

    return tpu.late_interaction(images, texts, weights, save_argmax=_can_save(argmax_bytes, images, texts))


def _on_gpu(argmax_bytes: int, tiled: Callable[..., Scores] | None, *inputs: Array) -> Scores:
    from vlc.similarity import gpu

    if reason := gpu.why_not(*inputs[:2]):
        if tiled is None:
            raise ConfigError(f'late_interaction: "pallas_gpu" does not fit: {reason}. Use implementation="auto".')
        _say_once(f"late_interaction takes XLA instead of its GPU kernels: {reason}.")
        return tiled(*inputs)
    return gpu.late_interaction(*inputs, save_argmax=_can_save(argmax_bytes, *inputs[:2]))


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger("vlc").warning(message)


def _check(images: Array, texts: Array, mask: Array, implementation: str, smoothing: float) -> None:
    if implementation not in IMPLEMENTATIONS:
        hint = did_you_mean(implementation, IMPLEMENTATIONS)
        raise ConfigError(f'late_interaction has no implementation "{implementation}".{hint}')
    if smoothing < 0:
        raise ConfigError(f"late_interaction: smoothing is {smoothing}; it is a temperature, 0 or more.")
    if smoothing and implementation.startswith("pallas"):
        raise ConfigError(f'late_interaction: "{implementation}" has no smoothing. Use implementation="xla".')
    shapes = f"image_tokens {images.shape} {images.dtype}, text_tokens {texts.shape} {texts.dtype}, mask {mask.shape}"
    if images.ndim != 3 or texts.ndim != 3 or images.shape[2] != texts.shape[2] or mask.shape != texts.shape[:2]:
        raise ConfigError(f"late_interaction needs [B, P, D], [C, T, D] and a mask [C, T]; these are {shapes}.")
    if images.dtype != texts.dtype:
        raise ConfigError(f"late_interaction needs images and texts of one type; these are {shapes}.")
