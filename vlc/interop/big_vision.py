"""big_vision's `.npz`: SigLIP and other pairs of towers, and single ViTs. The sizes are read off the arrays."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vlc.config import Config
from vlc.errors import CheckpointError
from vlc.interop import settings
from vlc.interop.huggingface import siglip_text
from vlc.interop.rules import SAME, SCALAR, UNSQUEEZED, Change, Rule, flax_patches, pair, rule
from vlc.interop.weights import Entry, Npz


@dataclass(frozen=True)
class Names:
    """What a file calls things.

    Attributes:
        image: Prefix of the image tower.
        text: Prefix of the text tower, or `None`.
        root: Prefix of all.
        parts: Names of the second norm, the attention and the MLP in the image tower's blocks: the ViTs of 2020 number
            all parts of a block, big_vision those of a kind.
        positions: Name of the image tower's positions.
    """

    image: str
    text: str | None
    root: str
    parts: tuple[str, str, str]
    positions: str


_PARTS = ("LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")
_WEIGHTS = ("kernel", "bias")
_OLD_PARTS = ("LayerNorm_2", "MultiHeadDotProductAttention_1", "MlpBlock_3")


def find_names(weights: Npz) -> Names:
    """Tells the kinds of files apart.

    Raises:
        CheckpointError: It holds none of them.
    """
    have = weights.entries
    root = "params/" if any(name.startswith("params/") for name in have) else ""
    if f"{root}img/embedding/kernel" in have:
        if any(name.startswith(f"{root}txt/BertModel") for name in have):
            raise CheckpointError(f"{weights.where}: its text tower is big_vision's BERT, which vlc does not import.")
        image, text = f"{root}img/", f"{root}txt/"
    elif f"{root}embedding/kernel" in have:
        image, text = root, None
    else:
        raise CheckpointError(f"{weights.where}: no image tower of big_vision (looked for img/embedding/kernel).")
    old = f"{image}Transformer/posembed_input/pos_embedding"
    parts = _OLD_PARTS if old in have else _PARTS
    return Names(image, text, root, parts, old if old in have else f"{image}pos_embedding")


def make_config(weights: Npz, names: Names) -> Config:
    """Sizes from the arrays' shapes."""
    have, config = weights.entries, settings.imported_config()
    kernel, positions = _shape(weights, f"{names.image}embedding/kernel", 4), _shape(weights, names.positions, 3)
    has_cls, has_map = f"{names.image}cls" in have, f"{names.image}MAPHead_0/probe" in have
    patch, grid = kernel[0], math.isqrt(positions[1] - has_cls)
    if grid**2 + has_cls != positions[1]:
        raise CheckpointError(f"{weights.where}: {names.positions} {list(positions)} is no square of patches.")
    config.data.image.update({"size": patch * grid, "resize": "squash", "resample": "aliased"})
    head = f"{names.image}head/kernel" in have and names.text is not None
    config.model.image.update(
        _sizes(weights, f"{names.image}Transformer/", names.parts)
        | {
            "patch": patch,
            "pool": "map" if has_map else "cls" if has_cls else "mean",
            "projection": "bias" if head else "none",
        }
    )
    config.model.embed_dim = _shape(weights, f"{names.image}head/kernel", 2)[1] if head else kernel[3]
    if names.text is None:
        settings.without_text(config)
        return config
    length = _shape(weights, f"{names.text}pos_embedding", 3)[1]
    config.model.text.update(_sizes(weights, f"{names.text}Encoder_0/", _PARTS) | siglip_text(length))
    if f"{names.root}b" in have:
        settings.as_siglip(config)
    return config


def text_rows(weights: Npz, names: Names) -> int:
    """Rows of the token table."""
    return _shape(weights, f"{names.text}Embed_0/embedding", 2)[0]


def _shape(weights: Npz, name: str, axes: int) -> tuple[int, ...]:
    entry = weights.entries.get(name)
    if entry is None or len(entry.shape) != axes:
        raise CheckpointError(f"{weights.where}: {name} is {entry or 'missing'}; an array of {axes} axes is meant.")
    return entry.shape


def _sizes(weights: Npz, encoder: str, parts: tuple[str, str, str]) -> dict[str, int | float]:
    scanned = f"{encoder}encoderblock/LayerNorm_0/scale" in weights.entries
    block = f"{encoder}encoderblock/" if scanned else f"{encoder}encoderblock_0/"
    query = _shape(weights, f"{block}{parts[1]}/query/kernel", 3 + scanned)
    hidden = _shape(weights, f"{block}{parts[2]}/Dense_0/kernel", 2 + scanned)[-1]
    numbers = [
        int(m[1]) for m in (re.match(rf"{re.escape(encoder)}encoderblock_(\d+)/", n) for n in weights.entries) if m
    ]
    layers = query[0] if scanned else max(numbers) + 1
    width, heads = query[-3], query[-2]
    return {"width": width, "layers": layers, "heads": heads, "mlp_ratio": hidden / width}


def make_rules(config: Config, weights: Npz, names: Names) -> list[Rule]:
    """Names of the arrays."""
    image = config.model.image
    rules = [
        rule("image_tower/embed/kernel", f"{names.image}embedding/kernel", flax_patches(image.patch)),
        rule("image_tower/embed/bias", f"{names.image}embedding/bias"),
        rule("image_tower/positions", names.positions, UNSQUEEZED),
        *_encoder("image_tower", f"{names.image}Transformer/", names.parts, weights.entries),
    ]
    if image.pool == "cls":
        rules.append(rule("image_tower/cls", f"{names.image}cls", UNSQUEEZED))
    if image.pool == "map":
        head = f"{names.image}MAPHead_0/"
        rules.append(rule("image_tower/map/queries", f"{head}probe", UNSQUEEZED))
        rules += _attention("image_tower/map/attention", f"{head}MultiHeadDotProductAttention_0")
        rules += _norm("image_tower/map/norm", f"{head}LayerNorm_0")
        rules += _mlp("image_tower/map/mlp", f"{head}MlpBlock_0")
    if image.projection == "bias":
        rules += _dense("image_embed", f"{names.image}head")
    if names.text is None:
        return rules
    rules += [
        rule("log_scale", f"{names.root}t", SCALAR),
        *([rule("logit_bias", f"{names.root}b", SCALAR)] if config.objectives.siglip.weight else []),
        rule("text_tower/embed/tokens", f"{names.text}Embed_0/embedding"),
        rule("text_tower/embed/positions", f"{names.text}pos_embedding", UNSQUEEZED),
        *_encoder("text_tower", f"{names.text}Encoder_0/", _PARTS, weights.entries),
        *_dense("text_embed", f"{names.text}head"),
    ]
    return rules


def is_classifier(name: str, entry: Entry) -> bool:
    """The head of a single ViT: its classes are those of ImageNet, and no part of the tower."""
    del entry
    return name.removeprefix("params/").startswith(("head/", "pre_logits/"))


def _encoder(ours: str, theirs: str, parts: tuple[str, str, str], have: Mapping[str, Entry]) -> list[Rule]:
    second, attention, mlp = parts
    scanned = f"{theirs}encoderblock/LayerNorm_0/scale" in have
    block = f"{theirs}encoderblock/" if scanned else theirs + "encoderblock_{}/"
    blocks = f"{ours}/stack/blocks"
    rules = [
        *_norm(f"{blocks}/norm1", f"{block}LayerNorm_0"),
        *_attention(f"{blocks}/attention", f"{block}{attention}"),
        *_norm(f"{blocks}/norm2", f"{block}{second}"),
        *_mlp(f"{blocks}/mlp", f"{block}{mlp}"),
    ]
    if scanned:
        rules = [Rule(one.ours, one.theirs, one.change, stacked=True) for one in rules]
    return [*rules, *_norm(f"{ours}/norm", f"{theirs}encoder_norm")]


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [rule(f"{ours}/{name}", f"{theirs}/{name}") for name in ("scale", "bias")]


def _dense(ours: str, theirs: str) -> list[Rule]:
    return [rule(f"{ours}/{name}", f"{theirs}/{name}") for name in ("kernel", "bias")]


def _mlp(ours: str, theirs: str) -> list[Rule]:
    return [*_dense(f"{ours}/up", f"{theirs}/Dense_0"), *_dense(f"{ours}/down", f"{theirs}/Dense_1")]


def _attention(ours: str, theirs: str) -> list[Rule]:
    """Heads are split as ours are."""
    both: Change = pair(SAME)
    return [
        *(rule(f"{ours}/{part}/{name}", f"{theirs}/{part}/{name}") for part in ("query", "out") for name in _WEIGHTS),
        *(
            rule(f"{ours}/key_value/{name}", (f"{theirs}/key/{name}", f"{theirs}/value/{name}"), both)
            for name in _WEIGHTS
        ),
    ]
