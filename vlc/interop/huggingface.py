"""Hugging Face's CLIP, SigLIP and BERT: their config and names in our words."""

import math
from collections.abc import Mapping
from typing import Any

from vlc.config import Config
from vlc.errors import CheckpointError
from vlc.interop import keys, settings
from vlc.interop.rules import (
    ROW,
    SCALAR,
    TRANSPOSED,
    UNSQUEEZED,
    Change,
    Rule,
    attention,
    dense,
    fused_attention,
    norm,
    patches,
    rule,
)  # fmt: skip

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")

# What a config.json leaves out has these values (the classes' defaults in transformers).
_CLIP_TEXT = {
    "hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8,
    "max_position_embeddings": 77, "vocab_size": 49408, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_CLIP_END, _OLD_CLIP_END = 49407, 2
_CLIP_VISION = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32, "num_channels": 3, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_SIGLIP_TEXT = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "max_position_embeddings": 64, "vocab_size": 32000, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip
_SIGLIP_VISION = _SIGLIP_TEXT | {"image_size": 224, "patch_size": 16, "num_channels": 3, "vision_use_head": True}
_NAFLEX_VISION = _SIGLIP_TEXT | {"patch_size": 16, "num_patches": 256, "num_channels": 3, "vision_use_head": True}
_BERT = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "max_position_embeddings": 512, "vocab_size": 30522, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}  # fmt: skip


def _tower(target: Any, given: Mapping[str, Any], where: str) -> None:
    """What image and text towers have in common."""
    width = settings.whole(given, "hidden_size", where)
    heads = settings.whole(given, "num_attention_heads", where)
    if width % heads:
        raise CheckpointError(f"{where}: {heads} heads do not divide a width of {width}.")
    target.update(
        {
            "width": width,
            "layers": settings.whole(given, "num_hidden_layers", where),
            "heads": heads,
            "mlp_ratio": settings.whole(given, "intermediate_size", where) / width,
            "activation": settings.activation(given.get("hidden_act"), where),
            "eps": float(given["layer_norm_eps"]),
        }
    )


def _image_size(config: Config, given: Mapping[str, Any], where: str) -> None:
    if given.get("num_channels", 3) != 3:
        raise CheckpointError(f"{where}: num_channels is {given['num_channels']}; images have 3.")
    config.data.image.size = settings.whole(given, "image_size", where)
    config.model.image.patch = settings.whole(given, "patch_size", where)


def _naflex_size(config: Config, given: Mapping[str, Any], where: str) -> None:
    """A table of positions for a square of patches; how many an image has, its preprocessing says."""
    side = math.isqrt(settings.whole(given, "num_patches", where))
    if side**2 != given["num_patches"]:
        raise CheckpointError(f"{where}: num_patches is {given['num_patches']}; that of a square is meant.")
    patch = settings.whole(given, "patch_size", where)
    _image_size(config, dict(given) | {"image_size": side * patch}, where)
    config.model.image.grid = side


def _parts(
    config: Mapping[str, Any], text: dict, vision: dict, where: str, known: tuple[keys.Keys, keys.Keys]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both towers' settings over the defaults; old files repeat a part under `*_config_dict`, which then counts."""
    given = [config.get(f"{name}_config") or {} for name in ("text", "vision")]
    older = [config.get(f"{name}_config_dict") or {} for name in ("text", "vision")]
    if not all(isinstance(one, dict) for one in (*given, *older)):
        raise CheckpointError(f"{where}: text_config and vision_config are meant to be objects.")
    for name, one, two, part in zip(("text", "vision"), given, older, known, strict=True):
        part.check(one | two, f"{where}: {name}_config")
    return text | given[0] | older[0], vision | given[1] | older[1]


# -- CLIP


def clip_config(given: Mapping[str, Any], where: str) -> Config:
    """From a `config.json` of `CLIPModel`."""
    keys.CLIP.check(given, where)
    text, vision = _parts(given, _CLIP_TEXT, _CLIP_VISION, where, (keys.CLIP_TEXT, keys.CLIP_VISION))
    config = settings.imported_config()
    config.model.embed_dim = settings.whole(given, "projection_dim", where, 512)
    _tower(config.model.image, vision, f"{where}: vision_config")
    _tower(config.model.text, text, f"{where}: text_config")
    _image_size(config, vision, where)
    config.model.image.update({"pool": "cls", "pre_norm": True, "patch_bias": False, "projection": "linear"})
    config.model.text.update(
        {
            "length": settings.whole(text, "max_position_embeddings", where),
            "causal": True,
            "pool": "last",
            "projection": "linear",
            "end": _clip_end(text, f"{where}: text_config"),
        }
    )
    return config


def _clip_end(text: Mapping[str, Any], where: str) -> int:
    """Which token is read: the first end mark. With id 2, which old files name wrongly, the highest id of a text."""
    end = text.get("eos_token_id", _CLIP_END)
    if not isinstance(end, int) or isinstance(end, bool) or end < 0:
        raise CheckpointError(f"{where}: eos_token_id is {end!r}; the id of the end mark is meant.")
    return -2 if end == _OLD_CLIP_END else end


def clip_rules(config: Config) -> list[Rule]:
    """Names of `CLIPModel`."""
    image, text = config.model.image, config.model.text
    return [
        rule("log_scale", "logit_scale"),
        rule("image_tower/embed/kernel", "vision_model.embeddings.patch_embedding.weight", patches(image.patch)),
        rule("image_tower/cls", "vision_model.embeddings.class_embedding", ROW),
        rule("image_tower/positions", "vision_model.embeddings.position_embedding.weight"),
        *norm("image_tower/pre_norm", "vision_model.pre_layrnorm"),
        *_layers("image_tower", "vision_model", image.heads),
        *norm("image_tower/norm", "vision_model.post_layernorm"),
        *dense("image_embed", "visual_projection", bias=False),
        *_words("text_model.embeddings"),
        *_layers("text_tower", "text_model", text.heads),
        *norm("text_tower/norm", "text_model.final_layer_norm"),
        *dense("text_embed", "text_projection", bias=False),
    ]


def _words(theirs: str) -> list[Rule]:
    return [
        rule("text_tower/embed/tokens", f"{theirs}.token_embedding.weight"),
        rule("text_tower/embed/positions", f"{theirs}.position_embedding.weight"),
    ]


def _layers(ours: str, theirs: str, heads: int) -> list[Rule]:
    blocks, layer = f"{ours}/stack/blocks", theirs + ".encoder.layers.{}"
    maps = [f"{layer}.self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
    return [
        *norm(f"{blocks}/norm1", f"{layer}.layer_norm1"),
        *attention(f"{blocks}/attention", maps, heads),
        *norm(f"{blocks}/norm2", f"{layer}.layer_norm2"),
        *dense(f"{blocks}/mlp/up", f"{layer}.mlp.fc1"),
        *dense(f"{blocks}/mlp/down", f"{layer}.mlp.fc2"),
    ]


# -- SigLIP, SigLIP 2 of fixed resolution, and of variable resolution (NaFlex: `Siglip2Model`)


def siglip_config(given: Mapping[str, Any], where: str, *, naflex: bool = False) -> Config:
    """From a `config.json` of `SiglipModel`, or of `Siglip2Model`, whose images have grids of their own."""
    keys.SIGLIP.check(given, where)
    defaults, known = (_NAFLEX_VISION, keys.NAFLEX_VISION) if naflex else (_SIGLIP_VISION, keys.SIGLIP_VISION)
    text, vision = _parts(given, _SIGLIP_TEXT, defaults, where, (keys.SIGLIP_TEXT, known))
    if not vision["vision_use_head"]:
        raise CheckpointError(f"{where}: vision_use_head is false, so the model has no image embedding.")
    config = settings.imported_config()
    settings.as_siglip(config)
    _tower(config.model.image, vision, f"{where}: vision_config")
    _tower(config.model.text, text, f"{where}: text_config")
    _naflex_size(config, vision, where) if naflex else _image_size(config, vision, where)
    config.model.embed_dim = config.model.image.width
    shared = text.get("projection_size") or text["hidden_size"]
    if shared != config.model.embed_dim:
        raise CheckpointError(
            f"{where}: text of width {shared} cannot be compared with images of {vision['hidden_size']}."
        )
    config.model.image.update({"pool": "map", "projection": "none"})
    config.model.text.update(siglip_text(settings.whole(text, "max_position_embeddings", where)))
    return config


def siglip_text(length: int) -> dict[str, Any]:
    """SigLIP's text tower is bidirectional, attends to pads, and pools the last position."""
    return {"length": length, "causal": False, "attend_pads": True, "pool": "end", "projection": "bias"}


def siglip_rules(config: Config) -> list[Rule]:
    """Names of `SiglipModel`, and of `Siglip2Model`, which has a linear map of patches."""
    image, text = config.model.image, config.model.text
    head = "vision_model.head"
    embedding = "vision_model.embeddings.patch_embedding.weight"
    naflex = config.data.image.resize == "naflex"
    return [
        rule("log_scale", "logit_scale", SCALAR),
        rule("logit_bias", "logit_bias", SCALAR),
        rule("image_tower/embed/kernel", embedding, TRANSPOSED if naflex else patches(image.patch)),
        rule("image_tower/embed/bias", "vision_model.embeddings.patch_embedding.bias"),
        rule("image_tower/positions", "vision_model.embeddings.position_embedding.weight"),
        *_layers("image_tower", "vision_model", image.heads),
        *norm("image_tower/norm", "vision_model.post_layernorm"),
        rule("image_tower/map/queries", f"{head}.probe", UNSQUEEZED),
        *fused_attention(
            "image_tower/map/attention",
            f"{head}.attention.in_proj_weight",
            f"{head}.attention.in_proj_bias",
            f"{head}.attention.out_proj",
            image.heads,
        ),
        *norm("image_tower/map/norm", f"{head}.layernorm"),
        *dense("image_tower/map/mlp/up", f"{head}.mlp.fc1"),
        *dense("image_tower/map/mlp/down", f"{head}.mlp.fc2"),
        *_words("text_model.embeddings"),
        *_layers("text_tower", "text_model", text.heads),
        *norm("text_tower/norm", "text_model.final_layer_norm"),
        *dense("text_embed", "text_model.head"),
    ]


# -- BERT as a text tower, pooled as sentence-transformers does


def bert_config(given: Mapping[str, Any], where: str) -> Config:
    """From a `config.json` of `BertModel`."""
    keys.BERT.check(given, where)
    text = _BERT | dict(given)
    config = settings.imported_config()
    settings.without_image(config)
    _tower(config.model.text, text, where)
    config.model.embed_dim = config.model.text.width
    config.model.text.update(
        {
            "length": settings.whole(text, "max_position_embeddings", where),
            "causal": False,
            "post_norm": True,
            "pool": "mean",
            "projection": "none",
        }
    )
    return config


def _with_token_type() -> Change:
    """Positions and the embedding of the first kind of token are always added, so they are kept as one table."""

    def write(positions: Any) -> tuple[Any, Any]:
        return positions, positions[:2]

    return Change(lambda positions, types: (positions + types[:1],), write)


def bert_rules(config: Config, inner: str = "") -> list[Rule]:
    """Names of `BertModel`, each behind `inner`."""
    blocks, layer = "text_tower/stack/blocks", inner + "encoder.layer.{}"
    maps = [f"{layer}.attention.{name}" for name in ("self.query", "self.key", "self.value", "output.dense")]
    return [
        rule("text_tower/embed/tokens", f"{inner}embeddings.word_embeddings.weight"),
        rule(
            "text_tower/embed/positions",
            (f"{inner}embeddings.position_embeddings.weight", f"{inner}embeddings.token_type_embeddings.weight"),
            _with_token_type(),
        ),
        *norm("text_tower/pre_norm", f"{inner}embeddings.LayerNorm"),
        *attention(f"{blocks}/attention", maps, config.model.text.heads),
        *norm(f"{blocks}/norm1", f"{layer}.attention.output.LayerNorm"),
        *dense(f"{blocks}/mlp/up", f"{layer}.intermediate.dense"),
        *dense(f"{blocks}/mlp/down", f"{layer}.output.dense"),
        *norm(f"{blocks}/norm2", f"{layer}.output.LayerNorm"),
    ]
