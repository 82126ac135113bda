"""A model of ours as another library's folder, where that library can hold it: `export_model`.

Names come from the rules that import reads, read the other way. What the other side cannot hold is an error that names
it; what it cannot use (token projections, a caption decoder, ...) is left out and written into the folder's README.
"""

import json
import re
import string
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers as hf
from tokenizers import Regex, normalizers

from vlc.config import Config
from vlc.data.images import Preprocess
from vlc.data.tokenizers import JsonTokenizer, SentencePiece, Tokenizer
from vlc.data.tokenizers.json_file import HUGGING_FACE_MARKS
from vlc.errors import CheckpointError, ConfigError, did_you_mean
from vlc.interop import huggingface, open_clip, preprocessors, settings
from vlc.interop.load import Imported, paths_of
from vlc.interop.native import check_empty, write_native, write_tensors, write_text
from vlc.interop.rules import Rule, write_arrays
from vlc.models.layers import ACTIVATIONS

FORMATS = ("huggingface", "open_clip", "safetensors")
# Of several names of theirs the first.
_THEIR_ACTIVATION = {ours: theirs for theirs, ours in reversed(settings.ACTIVATIONS.items())}
_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
_THEIR_FILTER = {ours: theirs for theirs, ours in preprocessors.PILLOW.items()}

# What a tower must be so that the other library's class is the same function.
_CLIP_IMAGE = {"pool": "cls", "pre_norm": True, "patch_bias": False, "projection": "linear"}
_CLIP_TEXT = {"causal": True, "pool": "last", "projection": "linear", "post_norm": False, "positions": 0}
_SIGLIP_IMAGE = {"pool": "map", "pre_norm": False, "patch_bias": True, "projection": "none"}
_SIGLIP_TEXT = {
    "causal": False, "pool": "end", "attend_pads": True, "projection": "bias", "post_norm": False, "positions": 0,
}  # fmt: skip
_COCA_IMAGE = {"pool": "queries", "pre_norm": True, "patch_bias": False, "projection": "linear"}
_COCA_TEXT = {"causal": True, "pool": "cls", "projection": "linear", "post_norm": False, "positions": 0}
# What no class of theirs has.
_PLAIN = {"norm": "layer", "qk_norm": False, "rotary": False}
_PLAIN_TEXT = {"prompts": 0, **_PLAIN}
_PLAIN_IMAGE = {"stem": "patch", "positions": "learned", "registers": 0, **_PLAIN}
_KINDS = {
    "clip": (_CLIP_IMAGE | _PLAIN_IMAGE, _CLIP_TEXT | _PLAIN_TEXT),
    "siglip": (_SIGLIP_IMAGE | _PLAIN_IMAGE, _SIGLIP_TEXT | _PLAIN_TEXT),
    "coca": (_COCA_IMAGE | _PLAIN_IMAGE, _COCA_TEXT | _PLAIN_TEXT),
}


def export_model(model: Imported, folder: str | Path, form: str) -> tuple[str, ...]:
    """Writes a model in another library's form.

    Args:
        model: See `vlc.Model.as_imported`.
        folder: New or empty.
        form: `huggingface` (transformers' CLIP and SigLIP), `open_clip` (CLIP, SigLIP, CoCa), or `safetensors`: all of
            it, as `vlc.load` reads it again.

    Returns:
        What the other side cannot use.

    Raises:
        ConfigError: The form is not known.
        CheckpointError: That library has no such model, the folder holds something, or the disk is full.
    """
    folder = Path(folder)
    if form not in FORMATS:
        raise ConfigError(f'--format is "{form}".{did_you_mean(form, (*FORMATS, "lora"))}')
    if form == "safetensors":
        write_native(model, folder)
        return ()
    kind = _kind_of(model.config, form)
    write = _write_huggingface if form == "huggingface" else _write_open_clip
    check_empty(folder)
    return write(model, kind, folder)


def describe_exports(config: Config) -> str:
    """What a model of this config can be exported to, in a line; of a form that it cannot, the nearest difference."""
    parts = []
    for form in FORMATS:
        try:
            kind = f" ({_kind_of(config, form)})" if form != "safetensors" else ""
            parts.append(f"{form}{kind}")
        except CheckpointError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            more = f", and {len(lines) - 3} more" if len(lines) > 3 else ""
            parts.append(f"not {form} ({lines[1] if len(lines) > 1 else lines[0]}{more})")
    return f"Can be exported to: {'; '.join(parts)}."


def _kind_of(config: Config, form: str) -> str:
    """Which of their classes computes the same function.

    Raises:
        CheckpointError: None does; the differences from the nearest are listed.
    """
    towers = config.model
    if not towers.image.layers or not towers.text.layers:
        raise CheckpointError(f"--format {form} needs both towers; this model has one. Use --format safetensors.")
    found = {}
    for kind in ("clip", "siglip", "coca") if form == "open_clip" else ("clip", "siglip"):
        image, text = _KINDS[kind]
        found[kind] = [
            f"config.model.{name}.{key} is {tower[key]!r}, it must be {value!r}"
            for name, tower, expected in (("image", towers.image, image), ("text", towers.text, text))
            for key, value in expected.items()
            if tower[key] != value
        ]
        found[kind] += [
            f"config.model.{name}.activation is {tower.activation!r}, it must be one of {', '.join(ACTIVATIONS)}"
            for name, tower in (("image", towers.image), ("text", towers.text))
            if tower.activation not in ACTIVATIONS
        ]
        if kind == "coca" and towers.decoder.reads != "text":
            found[kind].append(f"config.model.decoder.reads is {towers.decoder.reads!r}, it must be 'text'")
    kind = min(found, key=lambda name: len(found[name]))
    if found[kind]:
        listed = "\n  ".join(found[kind])
        raise CheckpointError(
            f"{form} has no model that computes the same. From its {kind} this one differs in\n  {listed}\n"
            "Use --format safetensors, or train with these settings."
        )
    return kind


def _weights(model: Imported, rules: list[Rule], notes: list[str]) -> dict[str, np.ndarray]:
    """Their arrays; those of ours that no rule names are noted."""
    ours = {path: np.asarray(value) for path, value in paths_of(model.params).items()}
    used = {path for one in rules for path in one.ours}
    written = {
        "prototypes": "the prototypes of self-distillation",
        "queries": "the queries of regions",
        "attributes": "the vectors of attributes",
        "image_tower/prompts/values": "the mask prompts",
        "image_tower/mask": "what self-distillation hides patches by",
        "grammar": "the head for grammar",
        "decoder": "the caption decoder",
        "image_token": "the projection of image tokens (late interaction)",
        "text_token": "the projection of text tokens (late interaction)",
        "token_log_scale": "the scale of late interaction",
    }
    unused = (path for path in ours if path not in used)
    left = sorted({path if path in written else path.split("/")[0] for path in unused} - {"logit_bias"})
    shared = model.config.model.token_head == "pooled"
    notes += [f"left out: {written.get(part, part)}" for part in left if not (shared and part == "token_log_scale")]
    return write_arrays(rules, ours)


def _finish(folder: Path, library: str, notes: list[str]) -> tuple[str, ...]:
    lines = [f"Written by vlc for {library}."]
    if notes:
        lines += ["", "What this side cannot use, or does otherwise:", "", *(f"- {note}" for note in notes)]
    write_text(folder / "README.md", "\n".join(lines))
    return tuple(notes)


# -- transformers


def _write_huggingface(model: Imported, kind: str, folder: Path) -> tuple[str, ...]:
    assert model.tokenizer is not None
    assert model.preprocess is not None
    notes: list[str] = []
    make: Callable[[Any], list[Rule]] = huggingface.clip_rules if kind == "clip" else huggingface.siglip_rules
    processor, config = _image_processor(model.preprocess, kind, notes), _huggingface_config(model, kind)
    weights = _weights(model, make(model.config), notes)
    sigmoid = bool(model.config.objectives.siglip.weight)
    if kind == "clip" and sigmoid:
        bias = float(paths_of(model.params)["logit_bias"])
        notes.append(f"CLIPModel has no place for the bias of the sigmoid loss: add {bias:.6g} to logits_per_image")
    if kind == "siglip" and not sigmoid:
        weights["logit_bias"] = np.zeros_like(weights["logit_bias"])  # it was trained without
    write_tensors(folder / "model.safetensors", weights)
    write_text(folder / "config.json", json.dumps(config, indent=1))
    write_text(folder / "preprocessor_config.json", json.dumps(processor, indent=1))
    _write_tokenizer(model, kind, folder, notes)
    return _finish(folder, "transformers", notes)


def _huggingface_config(model: Imported, kind: str) -> dict[str, Any]:
    towers, tokenizer, size = model.config.model, model.tokenizer, model.config.data.image.size
    assert tokenizer is not None
    naflex = model.config.data.image.resize == "naflex"
    family = "siglip2" if naflex else kind
    text = _huggingface_tower(towers.text) | {
        "model_type": f"{family}_text_model",
        "max_position_embeddings": towers.text.length,
        "vocab_size": tokenizer.vocab_size,
        "bos_token_id": _token(tokenizer.begin_id, tokenizer),
        "eos_token_id": _token(tokenizer.end_id, tokenizer),
        "pad_token_id": towers.text.pad_row,
        "projection_dim" if kind == "clip" else "projection_size": towers.embed_dim,
    }
    vision = _huggingface_tower(towers.image) | {
        "model_type": f"{family}_vision_model",
        "patch_size": towers.image.patch,
        "num_channels": 3,
    }
    grid = towers.image.grid or size // towers.image.patch
    vision |= {"num_patches": grid**2} if naflex else {"image_size": size}
    both = {"architectures": [_CLASSES[family]], "model_type": family, "dtype": "float32"}
    both |= {"projection_dim": towers.embed_dim} if kind == "clip" else {}
    return both | {"text_config": text, "vision_config": vision}


def _token(index: int, tokenizer: Tokenizer) -> int | None:
    """A mark's id; `None` where the tokenizer has no such mark."""
    return index if index < tokenizer.vocab_size else None


def _huggingface_tower(tower: Any) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "intermediate_size": round(tower.width * tower.mlp_ratio),
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "hidden_act": _THEIR_ACTIVATION[tower.activation],
        "layer_norm_eps": tower.eps,
    }


def _image_processor(preprocess: Preprocess, kind: str, notes: list[str]) -> dict[str, Any]:
    size = preprocess.size
    square = {"height": size, "width": size}
    given = {
        "image_processor_type": "CLIPImageProcessor" if kind == "clip" else "SiglipImageProcessor",
        "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": list(preprocess.mean), "image_std": list(preprocess.std),
        "resample": _THEIR_FILTER[_their_filter(preprocess, notes)],
    }  # fmt: skip
    _note_conversion(preprocess, notes)
    if preprocess.resize == "naflex" and kind == "siglip":
        patches = {"patch_size": preprocess.patch, "max_num_patches": (size // preprocess.patch) ** 2}
        return given | patches | {"image_processor_type": "Siglip2ImageProcessor"}
    if preprocess.resize == "squash":
        return given | {"size": square, "do_center_crop": False}
    if preprocess.resize in ("shortest", "crop") and kind == "clip":
        if preprocess.resize == "crop":
            notes.append(_SCALED_THEN_CUT)
        elif preprocess.centre == "round":
            notes.append("of an odd margin the centre is cut one pixel further up or left")
        shorter = preprocess.resize_to or size
        return given | {"size": {"shortest_edge": shorter}, "do_center_crop": True, "crop_size": square}
    raise CheckpointError(f"transformers' {kind} has no resizing like config.data.image.resize={preprocess.resize!r}.")


_SCALED_THEN_CUT = "images are scaled, then cut to whole pixels; vlc's `crop` cuts to fractions of one, then scales"


def _note_conversion(preprocess: Preprocess, notes: list[str]) -> None:
    if preprocess.convert == "upright":
        notes.append(
            "pictures are not turned by their EXIF, transparency is dropped and 16 bits are clipped, by Pillow's own "
            "convert: do what vlc does before (turn, lay on white, scale)"
        )


def _their_filter(preprocess: Preprocess, notes: list[str]) -> str:
    if preprocess.resample != "aliased":
        return preprocess.resample
    notes.append("images are resampled without aliasing (bilinear), not as tf.image.resize does")
    return "bilinear"


def _write_tokenizer(model: Imported, kind: str, folder: Path, notes: list[str]) -> None:
    """The tokenizer's own file, and the settings that the library reads beside it."""
    tokenizer = model.tokenizer
    written: dict[str, Any] = {"model_max_length": model.config.model.text.length, "padding_side": "right"}
    if isinstance(tokenizer, JsonTokenizer):
        cleans_itself = kind == "open_clip" or tokenizer.rules.clean in ("", "lower")
        data = tokenizer.model_bytes() if cleans_itself else _with_cleaning(tokenizer, notes)
        write_text(folder / "tokenizer.json", data.decode())
        written |= _json_settings(tokenizer, kind)
    elif isinstance(tokenizer, SentencePiece):
        tokenizer.save(folder / "spiece.model")
        written |= _pieces_settings(tokenizer, kind, notes)
    write_text(folder / "tokenizer_config.json", json.dumps(written, indent=1))


_QUOTES = (("\u02bc\u2018-\u201b", "'"), ("\u201c-\u201f", '"'))


def _with_cleaning(tokenizer: JsonTokenizer, notes: list[str]) -> bytes:
    """The file with what is done to a text before it is cut, in its own words."""
    quotes = [normalizers.Replace(Regex(f"[{letters}]"), plain) for letters, plain in _QUOTES]  # as ftfy does
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    bare = [normalizers.Replace(Regex(f"[{re.escape(string.punctuation)}]"), "")]
    steps = {
        "clip": [normalizers.NFC(), *quotes, *spaces, normalizers.Lowercase()],
        "whitespace": [normalizers.NFC(), *quotes, *spaces],
        "canonical": [
            normalizers.NFC(),
            *quotes,
            normalizers.Replace("_", " "),
            *bare,
            *spaces,
            normalizers.Lowercase(),
        ],
        "siglip": [normalizers.Lowercase(), *bare, *spaces],
    }[tokenizer.rules.clean]
    made = hf.Tokenizer.from_str(tokenizer.model_bytes().decode())
    made.normalizer = normalizers.Sequence([*steps, made.normalizer] if made.normalizer is not None else steps)
    if tokenizer.rules.clean != "siglip":
        notes.append(
            "wrongly decoded letters are not mended and HTML entities not resolved, as vlc does by ftfy before"
        )
    return made.to_str().encode()


def _json_settings(tokenizer: JsonTokenizer, kind: str) -> dict[str, Any]:
    rules = tokenizer.rules
    begin, end = tokenizer.begin_id, tokenizer.end_id
    # A mark is kept whole inside a text: OpenAI's pad, the id of "!", would be one. What comes after the end mark is
    # not read, so that serves as the pad.
    pad = end if rules.pad is None or (rules.clean == "clip" and kind != "open_clip") else rules.pad
    marks = {"bos_token": begin, "eos_token": end, "unk_token": end, "pad_token": pad}
    written: dict[str, Any] = {
        key: tokenizer.piece(index) for key, index in marks.items() if index < tokenizer.vocab_size
    }
    if rules.clean == "lower":  # SigLIP 2, whose class lower-cases
        return written | {"tokenizer_class": "Siglip2Tokenizer", "unk_token": "<unk>", "add_bos_token": False,
                       "add_eos_token": True}  # fmt: skip
    openai = written.get("bos_token") == HUGGING_FACE_MARKS[0]
    return written | {"tokenizer_class": "CLIPTokenizer" if openai else "PreTrainedTokenizerFast"}


def _pieces_settings(tokenizer: SentencePiece, kind: str, notes: list[str]) -> dict[str, Any]:
    rules = tokenizer.rules
    if rules.clean == "siglip" and kind == "siglip":
        return {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    notes.append(
        "no class here tokenizes as the model was trained: cut texts with spiece.model (SentencePiece), put id "
        f"{rules.begin} before and id {rules.end} after them, and pad with id {rules.pad or 0}"
    )
    return {}


# -- open_clip


def _write_open_clip(model: Imported, kind: str, folder: Path) -> tuple[str, ...]:
    assert model.tokenizer is not None
    assert model.preprocess is not None
    notes: list[str] = []
    config = {
        "model_cfg": _open_clip_config(model, kind, folder, notes),
        "preprocess_cfg": _open_clip_preprocess(model.preprocess, notes),
    }
    write_tensors(folder / "open_clip_model.safetensors", _weights(model, open_clip.make_rules(model.config), notes))
    write_text(folder / open_clip.CONFIG_FILE, json.dumps(config, indent=1))
    _write_tokenizer(model, "open_clip", folder, notes)
    return _finish(folder, "open_clip", notes)


def _open_clip_config(model: Imported, kind: str, folder: Path, notes: list[str]) -> dict[str, Any]:
    towers, tokenizer = model.config.model, model.tokenizer
    assert tokenizer is not None
    image, text, decoder = towers.image, towers.text, towers.decoder
    quick = {tower.activation == "quick_gelu" for tower in (image, text)}
    if len(quick) > 1:
        raise CheckpointError("open_clip has quick_gelu in both towers or in none; this model has it in one.")
    text_cfg = _open_clip_tower(text) | {"heads": text.heads, "context_length": text.length}
    text_cfg |= {"vocab_size": tokenizer.vocab_size, **_open_clip_words(tokenizer, folder, notes)}
    vision_cfg: dict[str, Any] = {"image_size": model.config.data.image.size}
    given: dict[str, Any] = {"embed_dim": towers.embed_dim, "quick_gelu": quick.pop()}
    if model.config.objectives.siglip.weight:
        given["init_logit_bias"] = -10
    if kind == "siglip":
        vision_cfg |= _timm_name(model)
        text_cfg |= {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}
        return given | {"custom_text": True, "vision_cfg": vision_cfg, "text_cfg": text_cfg}
    vision_cfg |= _open_clip_tower(image) | {"patch_size": image.patch, "head_width": image.width // image.heads}
    if kind == "clip":
        if tokenizer.end_id != tokenizer.vocab_size - 1:
            text_cfg |= {"pool_type": "eos", "eos_id": tokenizer.end_id}
        return given | {"vision_cfg": vision_cfg, "text_cfg": text_cfg}
    vision_cfg |= {"attentional_pool": True, "attn_pooler_heads": image.pool_heads, "output_tokens": True}
    vision_cfg["attn_pooler_queries"] = image.queries
    text_cfg |= {"embed_cls": True, "output_tokens": True}
    multimodal = {"width": decoder.width, "heads": decoder.heads, "layers": decoder.layers}
    multimodal |= {"context_length": decoder.length, "vocab_size": tokenizer.vocab_size}
    parts = {"vision_cfg": vision_cfg, "text_cfg": text_cfg, "multimodal_cfg": multimodal}
    return given | parts | {"custom_text": True}


def _open_clip_tower(tower: Any) -> dict[str, Any]:
    act = {"act_kwargs": {"approximate": "tanh"}} if tower.activation == "gelu_tanh" else {}
    return {
        "width": tower.width,
        "layers": tower.layers,
        "mlp_ratio": tower.mlp_ratio,
        "norm_kwargs": {"eps": tower.eps},
    } | act


def _open_clip_words(tokenizer: Tokenizer, folder: Path, notes: list[str]) -> Mapping[str, Any]:
    """Nothing for OpenAI's byte pairs, which open_clip carries; else where the tokenizer is."""
    if tokenizer.rules.clean == "clip":
        return {}
    clean = {"canonical": "canonicalize", "whitespace": "whitespace", "siglip": "canonicalize"}
    if tokenizer.rules.clean not in clean:
        notes.append("open_clip cleans texts before they are tokenized (ftfy, HTML entities), this model did not")
    notes.append("open_clip finds the tokenizer by this folder's path (hf_tokenizer_name); change it when it is moved")
    named = clean.get(tokenizer.rules.clean, "whitespace")
    return {"hf_tokenizer_name": str(folder.absolute()), "tokenizer_kwargs": {"clean": named}}


def _timm_name(model: Imported) -> dict[str, Any]:
    """The name of timm's tower of this size and activation.

    Raises:
        CheckpointError: timm has none.
    """
    image, size = model.config.model.image, model.config.data.image.size
    shape = (image.width, image.layers, image.heads, round(image.width * image.mlp_ratio))
    names = [name for name, known in open_clip.TIMM.items() if known == shape]
    name = f"vit_{names[0]}_patch{image.patch}_siglip_{size}" if names else ""
    if not names or open_clip.timm_activation(name) != image.activation:
        raise CheckpointError(
            f"open_clip builds SigLIP's image tower by timm's names, and there is none of width, layers, heads and "
            f"hidden units {shape} with {image.activation}. Use --format huggingface."
        )
    return {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}


def _open_clip_preprocess(preprocess: Preprocess, notes: list[str]) -> dict[str, Any]:
    _note_conversion(preprocess, notes)
    if preprocess.resize == "crop":
        notes.append(_SCALED_THEN_CUT)
        preprocess = replace(preprocess, resize="shortest", centre="round")
    if preprocess.resize not in ("shortest", "longest", "squash") or preprocess.resize_to:
        raise CheckpointError(
            f"open_clip has no resizing like config.data.image.resize={preprocess.resize!r} with "
            f"resize_to={preprocess.resize_to}."
        )
    if preprocess.resize == "shortest" and preprocess.centre == "floor":
        notes.append("of an odd margin the centre is cut one pixel further down or right")
    interpolation = _their_filter(preprocess, notes)
    if interpolation not in ("bicubic", "bilinear"):
        raise CheckpointError(f"open_clip has no resampling like config.data.image.resample={interpolation!r}.")
    return {
        "size": preprocess.size,
        "mode": "RGB",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "interpolation": interpolation,
        "resize_mode": preprocess.resize,
        "fill_color": 0,
    }
