"""The model: an image tower and a text tower with token and pooled projections, and an optional caption decoder."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from vlc.models.captioner import CaptionDecoder
from vlc.models.layers import l2_normalise, linear
from vlc.models.text import TextTower
from vlc.models.vit import ImageTower

AnyArray = Any  # JAX arrays while computing, NumPy arrays once fetched


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageEncoding:
    """Images in the shared space. Tokens and embeddings have unit length, float32."""

    tokens: Float[AnyArray, "B P D"]
    embed: Float[AnyArray, "B D"]
    features: Float[AnyArray, "B P W"]  # of the tower, for the decoder


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextEncoding:
    """Texts in the shared space. Tokens and embeddings have unit length, float32; tokens of pads mean nothing."""

    tokens: Float[AnyArray, "N T D"]
    embed: Float[AnyArray, "N D"]
    mask: Bool[AnyArray, "N T"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scales:
    """Multipliers of similarities (1/temperature) and the sigmoid's bias: the learned numbers of the losses."""

    logit_scale: Float[Array, ""]
    token_logit_scale: Float[Array, ""]
    logit_bias: Float[Array, ""]


class DualEncoder(nnx.Module):
    """Image and text towers, a learned temperature for each kind of similarity, and, where configured, a captioner."""

    def __init__(self, config: Any, *, image: Any, vocab_size: int, rngs: nnx.Rngs):
        """Builds the model.

        Args:
            config: `config.model`.
            image: `config.data.image`: size, mean and std of the pixels.
            vocab_size: Of the tokenizer; the pad id is the first id outside it.
            rngs: Seeds of the parameters.
        """
        common: dict[str, Any] = {
            "dtype": jnp.dtype(config.dtype), "scan": config.scan, "remat": config.remat, "rngs": rngs
        }  # fmt: skip
        dim = config.embed_dim
        self.max_logit_scale = config.max_logit_scale
        self.image_tower = ImageTower(config.image, size=image.size, mean=image.mean, std=image.std, **common)
        self.text_tower = TextTower(config.text, vocab_size=vocab_size, **common)

        def project(width: int) -> nnx.LinearGeneral:
            return linear(width, dim, ("embed", "shared"), dtype=common["dtype"], rngs=rngs, use_bias=False)

        self.image_embed, self.image_token = project(config.image.width), project(config.image.width)
        self.text_embed, self.text_token = project(config.text.width), project(config.text.width)
        self.log_scale = nnx.Param(jnp.float32(math.log(config.init_logit_scale)), out_sharding=())
        self.token_log_scale = nnx.Param(jnp.float32(math.log(config.init_logit_scale)), out_sharding=())
        self.logit_bias = nnx.Param(jnp.float32(config.init_logit_bias), out_sharding=())
        self.decoder = (
            CaptionDecoder(
                config.decoder, image_width=config.image.width, image_heads=config.image.heads, embed_dim=dim,
                vocab_size=vocab_size, length=config.decoder.length or config.text.length, **common,
            )
            if config.decoder.layers
            else None
        )  # fmt: skip

    def encode_image(self, images: UInt8[Array, "B S S 3"]) -> ImageEncoding:
        """Pixels as the preprocessing gives them; they are normalised here."""
        with jax.named_scope("image_tower"):
            features, pooled = self.image_tower(images)
            tokens, embed = self.image_token(features), self.image_embed(pooled)
        return ImageEncoding(l2_normalise(tokens), l2_normalise(embed), features)

    def encode_text(self, ids: Int[Array, "N T"]) -> TextEncoding:
        """Ids as the tokenizer gives them."""
        with jax.named_scope("text_tower"):
            features, pooled, mask = self.text_tower(ids)
            tokens, embed = self.text_token(features), self.text_embed(pooled)
        return TextEncoding(l2_normalise(tokens), l2_normalise(embed), mask)

    def caption_logits(
        self, image: ImageEncoding, ids: Int[Array, "B T"], null: Bool[Array, " B"] | None = None
    ) -> Float[Array, "B T V"]:
        """Logits of the token after each position; images with `null` are hidden from the decoder."""
        assert self.decoder is not None, "this model was built without a caption decoder"
        with jax.named_scope("decoder"):
            return self.decoder(ids, self.decoder.memory(image.features, image.embed, null))

    def scales(self) -> Scales:
        """The multipliers, held at or below `max_logit_scale` (CLIP, section 2.5)."""

        def bounded(log: Array) -> Array:
            return jnp.exp(jnp.minimum(log, math.log(self.max_logit_scale)))

        return Scales(bounded(self.log_scale[...]), bounded(self.token_log_scale[...]), self.logit_bias[...])
