"""The model: an image tower and a text tower with token and pooled projections, and an optional caption decoder."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from vlc.models.captioner import CaptionDecoder
from vlc.models.coca import TextReadingDecoder
from vlc.models.grammar import GrammarHead
from vlc.models.layers import l2_normalise, set_kernel, table
from vlc.models.linear import linear
from vlc.models.lora import add_lora
from vlc.models.places import only
from vlc.models.prototypes import PrototypeHead
from vlc.models.regions import Found, RegionQueries, region_pool
from vlc.models.text import TextTower
from vlc.models.vit import ImageTower, without_pads

Decoder = CaptionDecoder | TextReadingDecoder
AnyArray = Any  # JAX arrays while computing, NumPy arrays once fetched


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ImageEncoding:
    """Images in the shared space. Tokens and embeddings have unit length, float32; tokens of pads are zeros."""

    tokens: Float[AnyArray, "B P D"]
    embed: Float[AnyArray, "B D"]
    features: Float[AnyArray, "B P W"]  # of the tower, for the decoder
    mask: Bool[AnyArray, "B P"] | None = None  # which patches there are, where images have grids of their own


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextEncoding:
    """Texts in the shared space. Tokens and embeddings have unit length, float32; tokens of pads mean nothing."""

    tokens: Float[AnyArray, "N T D"]
    embed: Float[AnyArray, "N D"]
    mask: Bool[AnyArray, "N T"]
    grammar: Float[AnyArray, " N"] | None = None  # log-odds that a text is well formed, of a model with a head for it


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
        image_width = dim if config.image.pool == "queries" else config.image.width
        self.own_tokens = config.token_head == "own"
        self.image_tower = (
            ImageTower(config.image, size=image.size, mean=image.mean, std=image.std, embed_dim=dim, **common)
            if config.image.layers
            else None
        )
        self.text_tower = TextTower(config.text, vocab_size=vocab_size, **common) if config.text.layers else None

        def project(tower: nnx.Module | None, width: int, kind: str) -> nnx.LinearGeneral | None:
            if tower is None or kind == "none":
                return None
            axes = ("embed", "shared")
            return linear(width, dim, axes, dtype=common["dtype"], rngs=rngs, use_bias=kind == "bias")

        token_kind = "linear" if self.own_tokens else "none"
        self.image_embed = project(self.image_tower, image_width, config.image.projection)
        self.image_token = project(self.image_tower, image_width, token_kind)
        self.text_embed = project(self.text_tower, config.text.width, config.text.projection)
        self.text_token = project(self.text_tower, config.text.width, token_kind)
        self.grammar = GrammarHead(config.text.width, dtype=common["dtype"], rngs=rngs) if config.text.grammar else None
        self.log_scale = nnx.Param(jnp.float32(math.log(config.init_logit_scale)), out_sharding=())
        self.token_log_scale = nnx.Param(jnp.float32(math.log(config.init_logit_scale)), out_sharding=())
        self.logit_bias = nnx.Param(jnp.float32(config.init_logit_bias), out_sharding=())
        self.decoder = self._make_decoder(config, image_width, vocab_size, common)
        self.prototypes = (
            PrototypeHead(image_width, config.image.prototypes, dtype=common["dtype"], rngs=rngs)
            if config.image.prototypes
            else None
        )
        self.queries = (
            RegionQueries(config.regions, image_width=image_width, embed_dim=dim, **common)
            if config.regions.queries
            else None
        )
        self.attributes = (
            table(config.regions.attributes, dim, ("position", "shared"), rngs=rngs, scale=1.0)
            if config.regions.attributes
            else None
        )
        set_kernel(self, config.attention)
        if config.lora.rank:
            add_lora(self, config.lora, rngs)

    @staticmethod
    def _make_decoder(config: Any, image_width: int, vocab_size: int, common: dict[str, Any]) -> Decoder | None:
        length = config.decoder.length or config.text.length
        if not config.decoder.layers:
            return None
        if config.decoder.reads == "text":
            return TextReadingDecoder(config.decoder, vocab_size=vocab_size, length=length, **common)
        return CaptionDecoder(
            config.decoder, image_width=image_width, image_heads=config.image.heads, embed_dim=config.embed_dim,
            vocab_size=vocab_size, length=length, **common,
        )  # fmt: skip

    def _image(self) -> ImageTower:
        assert self.image_tower is not None, "this model has no image tower"
        return self.image_tower

    def _text(self) -> TextTower:
        assert self.text_tower is not None, "this model has no text tower"
        return self.text_tower

    def encode_image(
        self, images: UInt8[Array, "B H S 3"], kept: Int[Array, "B K"] | None = None,
        inside: Bool[Array, "B P"] | None = None,
    ) -> ImageEncoding:  # fmt: skip
        """Pixels as the preprocessing gives them; they are normalised here.

        Args:
            images: Square, or packed patches of pictures of any shape (`vlc.data.naflex`).
            kept: The patches of each image that are seen at all, where not all are (FLIP, in training).
            inside: Patches of what a masked image is about; the others are prompts (`model.image.mask_prompt`).
        """
        with jax.named_scope("image_tower"):
            features, pooled, mask = self._image()(images, kept, inside=inside)
            if self.own_tokens:
                tokens = _projected(features, self.image_token)
            else:
                tokens = _projected(self._image().in_pooled_space(features), self.image_embed)
            embed = _projected(pooled, self.image_embed)
        return ImageEncoding(without_pads(l2_normalise(tokens), mask), l2_normalise(embed), features, mask)

    def encode_regions(self, image: ImageEncoding, cover: Float[Array, "B R P"]) -> Float[Array, "B R D"]:
        """Regions of images in the space of the embeddings, of unit length.

        The features of the patches of a region are pooled, and projected as the pooled feature of the image is.

        Args:
            image: The images.
            cover: The share of each patch that each region covers.
        """
        with jax.named_scope("regions"):
            features = self._image().in_pooled_space(image.features)
            return l2_normalise(_projected(region_pool(features, cover), self.image_embed))

    def attribute_scores(self, image: ImageEncoding, cover: Float[Array, "B R P"]) -> Float[Array, "B R A"]:
        """Cosines of regions with the vectors of attributes (ViLLA, stage 1)."""
        assert self.attributes is not None, "this model was built without attributes"
        vectors = l2_normalise(self.attributes[...])
        return jnp.einsum("brd,ad->bra", self.encode_regions(image, cover), vectors, precision="highest")

    def find_regions(self, image: ImageEncoding) -> Found:
        """Boxes and vectors of what the queries find in each image."""
        assert self.queries is not None, "this model was built without queries of regions"
        with jax.named_scope("region_queries"):
            return self.queries(image.features, image.mask)

    def absent_region(self) -> Float[Array, " D"]:
        """The vector of a query that found nothing."""
        assert self.queries is not None, "this model was built without queries of regions"
        return self.queries.absent()

    def encode_view(
        self, images: UInt8[Array, "B S S 3"], hidden: Int[Array, "B M"] | None = None,
        at: Int[Array, "B M"] | None = None,
    ) -> tuple[Float[Array, "B K"], Float[Array, "B P K"]]:  # fmt: skip
        """Cosines of images, and of their patches, with the prototypes of self-distillation.

        Args:
            images: Square, of any size.
            hidden: Patches that the tower is told nothing of but their place.
            at: Patches whose cosines are wanted; `None`: all.
        """
        assert self.prototypes is not None, "this model was built without prototypes"
        with jax.named_scope("view"):
            features, pooled, _ = self._image()(images, hidden=hidden)
            return self.prototypes(pooled), self.prototypes(only(features, at))

    def encode_text(self, ids: Int[Array, "N T"]) -> TextEncoding:
        """Ids as the tokenizer gives them."""
        with jax.named_scope("text_tower"):
            features, pooled, mask = self._text()(ids)
            tokens = _projected(features, self.text_token if self.own_tokens else self.text_embed)
            embed = _projected(pooled, self.text_embed)
            grammar = self.grammar(pooled) if self.grammar is not None else None
        return TextEncoding(l2_normalise(tokens), l2_normalise(embed), mask, grammar)

    def caption_logits(
        self, image: ImageEncoding, ids: Int[Array, "B T"], null: Bool[Array, " B"] | None = None,
        control: Int[Array, "B S"] | None = None, parallel: Bool[Array, " B"] | None = None,
    ) -> Float[Array, "B T V"]:  # fmt: skip
        """Logits of the token after each position; images with `null` are hidden from the decoder.

        `control` and `parallel`: see `CaptionDecoder`.
        """
        decoder = self.captioner()
        with jax.named_scope("decoder"):
            memory = decoder.memory(image.features, image.embed, null, image.mask)
            if isinstance(decoder, TextReadingDecoder):
                return decoder(self._text()(ids)[0], memory)
            return decoder(ids, memory, control, parallel, places=self.place_vectors())

    def reconstructed_logits(
        self, image: ImageEncoding, ids: Int[Array, "B T"], written: Int[Array, "B T"]
    ) -> Float[Array, "B T V"]:
        """See `CaptionDecoder.reconstructed`."""
        decoder = self.captioner()
        assert isinstance(decoder, CaptionDecoder), "a decoder that reads the text tower has no localiser"
        with jax.named_scope("cycle"):
            memory = decoder.memory(image.features, image.embed, mask=image.mask)
            return decoder.reconstructed(ids, written, memory, self.place_vectors())

    def attention_maps(self, image: ImageEncoding, ids: Int[Array, "B T"]) -> Float[Array, "B T P"]:
        """Where the captioner looks when it writes the token after each of a caption; see `CaptionDecoder`."""
        decoder = self.captioner()
        assert isinstance(decoder, CaptionDecoder), "a decoder that reads the text tower shows no attention"
        memory = decoder.memory(image.features, image.embed, mask=image.mask)
        return decoder.attention_maps(ids, memory, self.place_vectors())

    def sampled_logits(self, image: ImageEncoding, ids: Int[Array, "B K T"]) -> Float[Array, "B K T V"]:
        """As `caption_logits`, of several captions of each image, of which nothing is asked."""
        decoder = self.captioner()
        assert isinstance(decoder, CaptionDecoder), "a decoder that reads the text tower"
        with jax.named_scope("sampled_decoder"):
            memory = decoder.memory(image.features, image.embed, mask=image.mask)
            logits = decoder(ids.reshape(-1, ids.shape[2]), memory, places=self.place_vectors())
            return logits.reshape(*ids.shape, -1)

    def region_logits(
        self, image: ImageEncoding, ids: Int[Array, "B R T"], boxes: Float[Array, "B R 4"],
        cover: Float[Array, "B R P"], null: Bool[Array, " B"] | None = None,
        control: Int[Array, "B R S"] | None = None,
    ) -> Float[Array, "B R T V"]:  # fmt: skip
        """As `caption_logits`, of a caption for each of some regions of each image."""
        decoder = self.captioner()
        assert isinstance(decoder, CaptionDecoder), "a decoder that reads the text tower captions no regions"
        with jax.named_scope("region_decoder"):
            memory = decoder.memory(image.features, image.embed, null, image.mask, cover)
            rows = [x if x is None else x.reshape(-1, x.shape[-1]) for x in (ids, control, boxes)]
            places = self.place_vectors()
            logits = decoder(rows[0], memory, rows[1], boxes=rows[2], places=places)  # pyright: ignore[reportArgumentType]
            return logits.reshape(*ids.shape, -1)

    def place_vectors(self) -> Float[Array, "2N W"] | None:
        """What the captioner's words for places share with the image tower; `None` where they share nothing."""
        decoder = self.decoder
        if not isinstance(decoder, CaptionDecoder) or decoder.place_words is None:
            return None
        return decoder.place_words.vectors(self._image().square_positions())

    def captioner(self) -> Decoder:
        """The caption decoder."""
        assert self.decoder is not None, "this model was built without a caption decoder"
        return self.decoder

    def scales(self) -> Scales:
        """The multipliers, held at or below `max_logit_scale` (CLIP, section 2.5) where it is not 0."""

        def bounded(log: Array) -> Array:
            return jnp.exp(jnp.minimum(log, math.log(self.max_logit_scale)) if self.max_logit_scale else log)

        return Scales(bounded(self.log_scale[...]), bounded(self.token_log_scale[...]), self.logit_bias[...])


def _projected(x: Array, projection: nnx.LinearGeneral | None) -> Array:
    return x if projection is None else projection(x)
