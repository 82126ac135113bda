"""open_clip's CLIP, SigLIP (with timm's image tower) and CoCa: their config and names in our words."""

import re
from collections.abc import Mapping
from typing import Any

from vlc.config import Config
from vlc.errors import CheckpointError
from vlc.interop import keys, settings
from vlc.interop.huggingface import siglip_text
from vlc.interop.rules import (
    ROW,
    UNSQUEEZED,
    Rule,
    attention_out,
    dense,
    fused,
    fused_attention,
    norm,
    pair,
    patches,
    rule,
    split_bias,
    split_heads,
)  # fmt: skip

CONFIG_FILE = "open_clip_config.json"
WEIGHT_FILES = (
    "open_clip_model.safetensors",
    "open_clip_model.safetensors.index.json",
    "model.safetensors",
    "model.safetensors.index.json",
)

# width, layers, heads, hidden of the towers that timm calls vit_NAME_patchN_siglip_SIZE
TIMM = {
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "so400m": (1152, 27, 16, 4304),
    "giantopt": (1536, 40, 16, 6144),
}
_TIMM_TANH = re.compile("vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")  # others: exact GELU
_PLAIN_EPS = 1e-5
_CLIP_WIDTH = 64  # of a head


def make_config(given: Mapping[str, Any], where: str) -> Config:
    """From the `model_cfg` of an `open_clip_config.json`."""
    _refuse(given, keys.OPEN_CLIP, where)
    text, vision = settings.part(given, "text_cfg", where), settings.part(given, "vision_cfg", where)
    _refuse(text, keys.OPEN_CLIP_TEXT, f"{where}: text_cfg")
    _refuse(vision, keys.OPEN_CLIP_VISION, f"{where}: vision_cfg")
    config = settings.imported_config()
    config.model.embed_dim = settings.whole(given, "embed_dim", where)
    quick = bool(given.get("quick_gelu"))
    _text_tower(config, text, quick, f"{where}: text_cfg")
    _image_tower(config, vision, quick, f"{where}: vision_cfg")
    for tower in (config.model.image, config.model.text):  # whose hidden units are cut to whole ones
        tower.mlp_ratio = int(tower.width * tower.mlp_ratio + 1e-9) / tower.width
    if given.get("init_logit_bias") is not None:
        settings.as_siglip(config)
    if given.get("multimodal_cfg"):
        _decoder(config, settings.part(given, "multimodal_cfg", where), quick, where)
    return config


def _refuse(given: Mapping[str, Any], known: keys.Keys, where: str) -> None:
    """Stops at a setting that vlc's towers do not have; open_clip's own are often there, switched off."""
    settings.refuse(given, {*known.used, *known.idle}, where)


def _common(tower: Mapping[str, Any], quick: bool) -> dict[str, Any]:
    """Activation and norms."""
    tanh = (tower.get("act_kwargs") or {}).get("approximate") == "tanh"
    return {
        "mlp_ratio": float(tower.get("mlp_ratio", 4.0)),
        "activation": "quick_gelu" if quick else "gelu_tanh" if tanh else "gelu",
        "eps": float((tower.get("norm_kwargs") or {}).get("eps", 1e-5)),
    }


def _text_tower(config: Config, given: Mapping[str, Any], quick: bool, where: str) -> None:
    length = settings.whole(given, "context_length", where, 77)
    target = config.model.text
    target.update(
        _common(given, quick)
        | {
            "width": settings.whole(given, "width", where, 512),
            "layers": settings.whole(given, "layers", where, 12),
            "heads": settings.whole(given, "heads", where, 8),
            "length": length,
            "pad_row": given.get("pad_id", 0),
        }
    )
    pool = given.get("pool_type", "argmax")
    if given.get("embed_cls"):
        if given.get("no_causal_mask") or given.get("pad_id", 0) != 0:
            raise CheckpointError(f"{where}: CoCa's text tower is known with a causal mask and pad_id 0 alone.")
        target.update({"pool": "cls", "causal": True, "projection": "linear"})
    elif given.get("no_causal_mask") and pool == "last":
        target.update(siglip_text(length))
    elif not given.get("no_causal_mask") and pool in ("argmax", "eos"):
        end = settings.whole(given, "eos_id", where) if pool == "eos" else -2
        target.update({"pool": "last", "causal": True, "end": end})
    else:
        raise CheckpointError(
            f"{where}: pool_type={pool!r} with no_causal_mask={given.get('no_causal_mask')} is not known."
        )
    if given.get("proj_type", "linear") != "linear":
        raise CheckpointError(f"{where}: proj_type={given['proj_type']!r} is not known.")
    target.projection = "bias" if given.get("proj_bias") else "linear"


def _image_tower(config: Config, given: Mapping[str, Any], quick: bool, where: str) -> None:
    config.data.image.size = settings.whole(given, "image_size", where, 224)
    if given.get("timm_model_name"):
        _timm_tower(config, given, where)
        return
    if given.get("pool_type", "tok") != "tok" or given.get("pos_embed_type", "learnable") != "learnable":
        raise CheckpointError(f"{where}: only pool_type=tok and learnable positions are known.")
    if given.get("attentional_pool") not in (None, False, True):
        raise CheckpointError(f"{where}: attentional_pool={given['attentional_pool']!r} is not known.")
    width = settings.whole(given, "width", where, 768)
    if given.get("attentional_pool") and _common(given, quick)["eps"] != _PLAIN_EPS:
        raise CheckpointError(
            f"{where}: norm_kwargs with attentional_pool, whose own norms have {_PLAIN_EPS}, is not known."
        )
    if isinstance(given.get("layers"), list):
        raise CheckpointError(f"{where}: layers={given['layers']} is a ResNet, which vlc does not have.")
    config.model.image.update(
        _common(given, quick)
        | {
            "patch": settings.whole(given, "patch_size", where, 16),
            "width": width,
            "layers": settings.whole(given, "layers", where, 12),
            "heads": width // settings.whole(given, "head_width", where, _CLIP_WIDTH),
            "pool": "queries" if given.get("attentional_pool") else "cls",
            "pre_norm": True,
            "patch_bias": False,
            "projection": "linear",
            "queries": given.get("attn_pooler_queries", 256),
            "pool_heads": given.get("attn_pooler_heads", 8),
        }
    )


def _timm_tower(config: Config, given: Mapping[str, Any], where: str) -> None:
    name = given["timm_model_name"]
    match = re.fullmatch(r"vit_(\w+?)_patch(\d+)_siglip_\d+", str(name))
    pool, projection = given.get("timm_pool"), given.get("timm_proj")
    if not match or match[1] not in TIMM or pool != "map" or projection not in ("none", ""):
        raise CheckpointError(
            f"{where}: timm_model_name={name!r} with timm_pool={pool!r} is not known. Of timm's towers only SigLIP's "
            f"are: vit_NAME_patchN_siglip_SIZE, NAME one of {', '.join(TIMM)}."
        )
    width, layers, heads, hidden = TIMM[match[1]]
    config.model.image.update(
        {
            "patch": int(match[2]),
            "width": width,
            "layers": layers,
            "heads": heads,
            "mlp_ratio": hidden / width,
            "activation": timm_activation(name),
            "eps": 1e-6,
            "pool": "map",
            "projection": "none",
        }
    )
    if config.model.embed_dim != width:
        raise CheckpointError(f"{where}: embed_dim {config.model.embed_dim} is not the width of {name}, {width}.")


def timm_activation(name: str) -> str:
    """The activation of timm's tower of this name."""
    return "gelu_tanh" if _TIMM_TANH.match(name) else "gelu"


def _decoder(config: Config, given: Mapping[str, Any], quick: bool, where: str) -> None:
    _refuse(given, keys.OPEN_CLIP_DECODER, f"{where}: multimodal_cfg")
    width = settings.whole(given, "width", where, 512)
    if width != config.model.text.width or width != config.model.embed_dim:
        raise CheckpointError(f"{where}: CoCa's decoder of width {width} needs text and images of the same width.")
    if settings.whole(given, "heads", where, 8) != config.model.text.heads:
        raise CheckpointError(f"{where}: CoCa's decoder and text tower need the same number of heads.")
    if config.model.image.pool != "queries" or config.model.text.pool != "cls":
        raise CheckpointError(f"{where}: CoCa needs attentional_pool and embed_cls.")
    config.objectives.caption.null_rate = 0.0  # trained without hiding images
    config.model.decoder.update(
        _common(given, quick)
        | {
            "layers": settings.whole(given, "layers", where, 12),
            "width": width,
            "heads": settings.whole(given, "heads", where, 8),
            "length": config.model.text.length,
            "reads": "text",
        }
    )


# -- names


def make_rules(config: Config, *, apart: bool = False) -> list[Rule]:
    """Names of `CLIP`, `CustomTextCLIP` and `CoCa`; `apart`: a CLIP whose text tower is named as one (custom_text)."""
    image, text = config.model.image, config.model.text
    flat = image.pool == "cls" and text.pool == "last" and not apart  # CLIP keeps its text tower at the root
    rules = [rule("log_scale", "logit_scale")]
    if config.objectives.siglip.weight:
        rules.append(rule("logit_bias", "logit_bias"))
    rules += _timm_rules(image) if image.pool == "map" else _image_rules(config)
    rules += _text_rules(text, "" if flat else "text.")
    return rules + _decoder_rules(config.model.decoder) if config.model.decoder.layers else rules


def _blocks(blocks: str, layer: str, heads: int) -> list[Rule]:
    return [
        *norm(f"{blocks}/norm1", f"{layer}.ln_1"),
        *fused_attention(
            f"{blocks}/attention",
            f"{layer}.attn.in_proj_weight",
            f"{layer}.attn.in_proj_bias",
            f"{layer}.attn.out_proj",
            heads,
        ),
        *norm(f"{blocks}/norm2", f"{layer}.ln_2"),
        *dense(f"{blocks}/mlp/up", f"{layer}.mlp.c_fc"),
        *dense(f"{blocks}/mlp/down", f"{layer}.mlp.c_proj"),
    ]


def _image_rules(config: Config) -> list[Rule]:
    image = config.model.image
    return [
        rule("image_tower/embed/kernel", "visual.conv1.weight", patches(image.patch)),
        rule("image_tower/cls", "visual.class_embedding", ROW),
        rule("image_tower/positions", "visual.positional_embedding"),
        *norm("image_tower/pre_norm", "visual.ln_pre"),
        *_blocks("image_tower/stack/blocks", "visual.transformer.resblocks.{}", image.heads),
        *(_pooler_rules(config) if image.pool == "queries" else []),
        *norm("image_tower/norm", "visual.ln_post"),
        rule("image_embed/kernel", "visual.proj"),
    ]


def _pooler_rules(config: Config) -> list[Rule]:
    ours, theirs, heads = "image_tower/query_pool", "visual.attn_pool", config.model.image.pool_heads
    weight, bias = split_heads(heads), split_bias(heads)
    maps = f"{ours}/attention/query/kernel", f"{ours}/attention/key_value/kernel"
    if config.model.embed_dim == config.model.image.width:  # PyTorch then keeps all three as one
        projections = [rule(maps, f"{theirs}.attn.in_proj_weight", fused(weight))]
    else:
        names = (f"{theirs}.attn.k_proj_weight", f"{theirs}.attn.v_proj_weight")
        projections = [
            rule(maps[0], f"{theirs}.attn.q_proj_weight", weight),
            rule(maps[1], names, pair(weight)),
        ]
    return [
        rule(f"{ours}/queries", f"{theirs}.query"),
        *norm(f"{ours}/query_norm", f"{theirs}.ln_q"),
        *norm(f"{ours}/memory_norm", f"{theirs}.ln_k"),
        *projections,
        rule(
            (f"{ours}/attention/query/bias", f"{ours}/attention/key_value/bias"),
            f"{theirs}.attn.in_proj_bias",
            fused(bias),
        ),
        *attention_out(f"{ours}/attention", f"{theirs}.attn.out_proj", heads),
    ]


def _timm_rules(image: Any) -> list[Rule]:
    trunk, blocks, layer = "visual.trunk", "image_tower/stack/blocks", "visual.trunk.blocks.{}"
    pool, heads = f"{trunk}.attn_pool", image.heads
    weight, bias = split_heads(heads), split_bias(heads)
    return [
        rule("image_tower/embed/kernel", f"{trunk}.patch_embed.proj.weight", patches(image.patch)),
        rule("image_tower/embed/bias", f"{trunk}.patch_embed.proj.bias"),
        rule("image_tower/positions", f"{trunk}.pos_embed", UNSQUEEZED),
        *norm(f"{blocks}/norm1", f"{layer}.norm1"),
        *fused_attention(
            f"{blocks}/attention", f"{layer}.attn.qkv.weight", f"{layer}.attn.qkv.bias", f"{layer}.attn.proj", heads
        ),
        *norm(f"{blocks}/norm2", f"{layer}.norm2"),
        *dense(f"{blocks}/mlp/up", f"{layer}.mlp.fc1"),
        *dense(f"{blocks}/mlp/down", f"{layer}.mlp.fc2"),
        *norm("image_tower/norm", f"{trunk}.norm"),
        rule("image_tower/map/queries", f"{pool}.latent", UNSQUEEZED),
        rule("image_tower/map/attention/query/kernel", f"{pool}.q.weight", weight),
        rule("image_tower/map/attention/query/bias", f"{pool}.q.bias", bias),
        rule("image_tower/map/attention/key_value/kernel", f"{pool}.kv.weight", fused(weight, parts=2)),
        rule("image_tower/map/attention/key_value/bias", f"{pool}.kv.bias", fused(bias, parts=2)),
        *attention_out("image_tower/map/attention", f"{pool}.proj", heads),
        *norm("image_tower/map/norm", f"{pool}.norm"),
        *dense("image_tower/map/mlp/up", f"{pool}.mlp.fc1"),
        *dense("image_tower/map/mlp/down", f"{pool}.mlp.fc2"),
    ]


def _text_rules(text: Any, prefix: str) -> list[Rule]:
    projection = (
        dense("text_embed", f"{prefix}text_projection")
        if text.projection == "bias"
        else [rule("text_embed/kernel", f"{prefix}text_projection")]
    )
    return [
        rule("text_tower/embed/tokens", f"{prefix}token_embedding.weight"),
        rule("text_tower/embed/positions", f"{prefix}positional_embedding"),
        *([rule("text_tower/cls", f"{prefix}cls_emb", ROW)] if text.pool == "cls" else []),
        *_blocks("text_tower/stack/blocks", prefix + "transformer.resblocks.{}", text.heads),
        *norm("text_tower/norm", f"{prefix}ln_final"),
        *projection,
    ]


def _decoder_rules(decoder: Any) -> list[Rule]:
    blocks, cross = "decoder/stack/blocks", "text_decoder.cross_attn.{}"
    return [
        *_blocks(f"{blocks}/words", "text_decoder.resblocks.{}", decoder.heads),
        *_blocks(f"{blocks}/image", cross, decoder.heads),
        *norm(f"{blocks}/image/memory_norm", f"{cross}.ln_1_kv"),
        *norm("decoder/norm", "text_decoder.ln_final"),
        rule("decoder/out/kernel", "text_decoder.text_projection"),
    ]
