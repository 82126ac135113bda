"""Folders of other libraries with one setting changed, dropped, or set to another plausible value."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What a setting of this name might be as well, beside what its type suggests.
PLAUSIBLE: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu", "quick_gelu", "relu", "gelu_pytorch_tanh", "silu"),
    "model_type": ("clip", "siglip", "siglip2", "clip_text_model", "align"),
    "architectures": (["CLIPModel"], ["SiglipModel"], ["CLIPTextModelWithProjection"]),
    "layer_norm_eps": (1e-6, 1e-5, 1e-2),
    "eos_token_id": (2, 49407, 320, None),
    "bos_token_id": (0, None, 320),
    "pad_token_id": (0, 1, 49407, None),
    "max_position_embeddings": (16, 77),
    "image_size": (224, 96, [64, 64]),
    "size": (224, {"shortest_edge": 48}, {"height": 48, "width": 48}, {"height": 64, "width": 48},
             {"shortest_edge": 64, "longest_edge": 90}),
    "crop_size": (224, {"height": 48, "width": 48}, {"shortest_edge": 48}),
    "resample": (0, 1, 2, 3),
    "image_mean": ([0.5, 0.5, 0.5], [0.485, 0.456, 0.406], 0.5),
    "image_std": ([0.5, 0.5, 0.5], [0.229, 0.224, 0.225]),
    "image_processor_type": ("CLIPImageProcessor", "SiglipImageProcessor", "ViTImageProcessor",
                             "ConvNextImageProcessor", "BitImageProcessor", "CLIPFeatureExtractor"),
    "rescale_factor": (1 / 255, 1 / 127.5),
    "tokenizer_class": ("CLIPTokenizer", "CLIPTokenizerFast", "SiglipTokenizer", "GemmaTokenizer", "GemmaTokenizerFast",
                        "Siglip2Tokenizer", "PreTrainedTokenizerFast", "BertTokenizer"),
    "pad_token": ("!", "<|endoftext|>", "<pad>"),
    "eos_token": ("</s>", "<|endoftext|>", "<eos>"),
    "padding_side": ("left", "right"),
    "truncation_side": ("left", "right"),
    "model_max_length": (16, 64, 512),
    "do_lower_case": (False, True),
    "strip_accents": (False, True),
    "add_bos_token": (True, False),
    "add_eos_token": (True, False),
    "pool_type": ("tok", "avg", "none", "argmax", "first", "last", "eos"),
    "pos_embed_type": ("learnable", "sin_cos_2d"),
    "interpolation": ("bicubic", "bilinear", "nearest", "random"),
    "resize_mode": ("shortest", "longest", "squash"),
    "clean": ("canonicalize", "lower", "whitespace"),
    "timm_pool": ("map", "avg", "token"),
    "timm_proj": ("linear", "none", "mlp", ""),
    "proj_type": ("linear", "mlp", "none"),
    "mlp_ratio": (2.0, 3.3, 4.0),
    "norm_kwargs": ({"eps": 1e-3}, {}),
    "act_kwargs": ({"approximate": "tanh"}, {"approximate": "none"}),
}  # fmt: skip

# Settings that a folder may also have, by file and part; each is added in turn.
ADDED: dict[str, dict[str, dict[str, tuple[Any, ...]]]] = {
    "config.json": {
        "": {"is_decoder": (True,), "text_config_dict": ({"hidden_act": "gelu"}, {"num_hidden_layers": 1}),
             "vision_config_dict": ({"layer_norm_eps": 1e-2}, None), "torch_dtype": ("float16",),
             "tie_word_embeddings": (True,), "projection_size": (48,), "some_new_setting": (3,)},
        "text_config": {"projection_dim": (64,), "attention_dropout": (0.5,), "is_decoder": (True,),
                        "use_attention_mask": (True,), "some_new_setting": (True,),
                        "position_embedding_type": ("rotary",)},
        "vision_config": {"attention_dropout": (0.5,), "num_channels": (1,), "some_new_setting": (0.5,),
                          "vision_use_head": (False,), "use_cls_token": (False,)},
    },
    "preprocessor_config.json": {
        "": {"do_resize": (False,), "do_center_crop": (True, False), "do_rescale": (False,), "do_normalize": (False,),
             "do_pad": (True,), "crop_pct": (0.875, 1.0), "do_convert_rgb": (False,), "size_divisor": (16,),
             "default_to_square": (True,), "some_new_setting": (1,)},
    },
    "tokenizer_config.json": {
        "": {"do_lower_case": (True, False), "strip_accents": (True, False), "truncation_side": ("left",),
             "padding_side": ("left",), "add_bos_token": (True,), "add_eos_token": (False,),
             "clean_up_tokenization_spaces": (True,), "errors": ("ignore",), "add_prefix_space": (True,),
             "unk_token": ("<unk>",), "split_special_tokens": (True,), "tokenize_chinese_chars": (False,)},
    },
    "config_sentence_transformers.json": {
        "": {"truncate_dim": (16, None), "prompts": ({}, {"query": "q: ", "document": "d: "}), "some_new_setting": (1,),
             "default_prompt_name": ("query", "document"), "query_prefix": ("[Q] ", "find"), "document_prefix":
             ("[Q] ", "text"), "model_type": ("SentenceTransformer", "SparseEncoder", "ColBERT", "MultiVectorEncoder"),
             "skiplist_words": ([], ["the", ","], ["no such word"])},
    },
    "sentence_bert_config.json": {
        "": {"max_seq_length": (12, None, 400), "do_lower_case": (True, False), "query_length": (10, None),
             "document_length": (10, None), "processing_kwargs": ({"text": {"max_length": 9}}, {}),
             "query_expansion": (None, {"strategy": "min", "length": 12}, {"strategy": "fixed", "length": 12},
                                 {"strategy": "fixed", "length": 16, "token": "the", "attend": False}),
             "some_new_setting": (1,), "unpad_inputs": (False,)},
    },
    "Pooling": {
        "": {"pooling_mode": ("cls", "mean", "max", ["mean", "cls"], ["cls"], "lasttoken"), "include_prompt":
             (False, True), "pooling_mode_cls_token": (True, False), "pooling_mode_max_tokens": (True,),
             "pooling_mode_lasttoken": (True,), "some_new_setting": (1,)},
    },
    "Dense": {
        "": {"use_residual": (True, False), "bias": (True, False), "module_output_name": ("other",),
             "activation_function": ("torch.nn.modules.activation.Tanh", "torch.nn.modules.activation.ReLU"),
             "some_new_setting": (1,)},
    },
    "MultiVectorMask": {
        "": {"skiplist_words": ([], ["cat"]), "skiplist_tasks": (["query"], "query", []), "keep_only_token_ids":
             ([2000, 2001],), "some_new_setting": (1,)},
    },
    "artifact.metadata": {
        "": {"mask_punctuation": (False, True), "attend_to_mask_tokens": (True, False), "query_maxlen": (None, 12),
             "doc_maxlen": (None, 12), "query_token_id": ("[unused5]", "no such token"), "some_new_setting": (1,),
             "similarity": ("l2", "dot")},
    },
    "open_clip_config.json": {
        "model_cfg": {"quick_gelu": (True, False), "custom_text": (True, False), "init_logit_bias": (-10, None),
                      "init_logit_scale": (2.0,), "nonscalar_logit_scale": (True,), "output_dict": (True,),
                      "cast_dtype": ("fp16",)},
        "model_cfg.vision_cfg": {"patch_dropout": (0.5,), "no_ln_pre": (True,), "ls_init_value": (0.1,),
                                 "pool_type": ("avg", "tok", "none"), "final_ln_after_pool": (True,),
                                 "output_tokens": (True,), "pos_embed_type": ("sin_cos_2d",), "mlp_ratio": (2.0, 3.3),
                                 "attentional_pool": ("parallel", True), "global_average_pool": (True,),
                                 "act_kwargs": ({"approximate": "tanh"},), "norm_kwargs": ({"eps": 1e-3},),
                                 "layers": ([3, 4, 6, 3],), "head_width": (48,), "qk_norm": (True,)},
        "model_cfg.text_cfg": {"pool_type": ("last", "first", "eos", "argmax"), "eos_id": (49407, 2), "pad_id": (1, 0),
                               "no_causal_mask": (True,), "embed_cls": (True,), "proj_bias": (True,),
                               "ls_init_value": (0.1,),
                               "tokenizer_kwargs": ({"clean": "lower"}, {"clean": "canonicalize"},
                                                    {"strip_sep_token": True}),
                               "hf_model_name": ("roberta-base",), "correct_cls_mask": (True, False),
                               "mlp_ratio": (2.0,),
                               "act_kwargs": ({"approximate": "tanh"},), "norm_kwargs": ({"eps": 1e-3},),
                               "proj_type": ("mlp", "none"), "output_tokens": (True,), "vocab_size": (49409,)},
        "preprocess_cfg": {"mode": ("RGB", "L"), "size": (64, 224, [64, 64]), "fill_color": (0, 127),
                           "interpolation": ("bilinear", "random"), "resize_mode": ("longest", "squash"),
                           "some_new_setting": (1,)},
    },
}  # fmt: skip


_WHOLE = ("size", "crop_size", "bos_token", "eos_token", "added_tokens_decoder")  # changed as a whole


def others(key: str, value: Any) -> list[Any]:
    """What a setting might be instead."""
    found: list[Any] = [one for one in PLAUSIBLE.get(key, ()) if one != value]
    if isinstance(value, bool):
        found.append(not value)
    elif isinstance(value, int):
        found += [value * 2, max(value // 2, 1), None]
    elif isinstance(value, float):
        found += [value * 4, None]
    elif isinstance(value, str) and key not in PLAUSIBLE:
        found.append("other")
    unique: list[Any] = []
    for one in found:
        if one != value and one not in unique:
            unique.append(one)
    return unique


def walk(given: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting with its path, the parts that are objects included."""
    for key, value in given.items():
        yield (*path, key), value
        if isinstance(value, dict) and key not in (
            "size",
            "crop_size",
            "bos_token",
            "eos_token",
            "added_tokens_decoder",
        ):
            yield from walk(value, (*path, key))


def with_value(given: dict[str, Any], path: tuple[str, ...], value: Any, *, drop: bool = False) -> dict[str, Any]:
    """A copy with one setting changed or dropped."""
    copy = json.loads(json.dumps(given))
    place = copy
    for key in path[:-1]:
        place = place.setdefault(key, {})
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copy


def _other_lists(file: str, given: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """A list without one of its items, and with two that follow each other exchanged."""
    for place in range(len(given)):
        yield f"{file} without item {place}", [*given[:place], *given[place + 1 :]]
        if place:
            yield f"{file}: items {place - 1} and {place} exchanged", [
                *given[: place - 1], given[place], given[place - 1], *given[place + 1 :]
            ]  # fmt: skip


def changes(file: str, given: Any) -> Iterator[tuple[str, Any]]:
    """Each changed file, by what was changed."""
    if isinstance(given, list):
        yield from _other_lists(file, given)
        return
    seen = set()

    def once(name: str, changed: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        text = json.dumps(changed, sort_keys=True)
        if text not in seen:
            seen.add(text)
            yield name, changed

    for path, value in walk(given):
        name = ".".join(path)
        yield from once(f"{file} without {name}", with_value(given, path, None, drop=True))
        if not isinstance(value, dict) or path[-1] in PLAUSIBLE:
            for other in others(path[-1], value):
                yield from once(f"{file}: {name}={json.dumps(other)}", with_value(given, path, other))
    for part, settings in ADDED.get(Path(file).parent.name.split("_")[-1] or file, {}).items():
        above = tuple(part.split(".")) if part else ()
        if part and not _has(given, above):
            continue
        for key, values in settings.items():
            for value in values:
                name = ".".join((*above, key))
                yield from once(f"{file}: {name}={json.dumps(value)}", with_value(given, (*above, key), value))


def _has(given: dict[str, Any], path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(given.get(key), dict):
            return False
        given = given[key]
    return True


def link(folder: Path, to: Path) -> None:
    """A folder with the files of another, none of them copied."""
    to.mkdir(parents=True)
    for file in folder.rglob("*"):
        if file.is_file():
            (to / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            os.symlink(file, to / file.relative_to(folder))


def replace_file(folder: Path, name: str, text: str | None) -> None:
    """Another file in place of a link; `None` takes it away."""
    (folder / name).unlink(missing_ok=True)
    if text is not None:
        (folder / name).write_text(text)


def write_cases(folder: Path, out: Path) -> dict[str, str]:
    """Writes a folder for each change of each settings file; their names, and what was changed."""
    names = {}
    for file in sorted([*folder.rglob("*.json"), *folder.glob("artifact.metadata")]):
        if file.name in ("tokenizer.json", "vocab.json"):
            continue
        place = str(file.relative_to(folder))
        for what, changed in changes(place, json.loads(file.read_text())):
            name = f"{folder.name}-{len(names):03d}"
            link(folder, out / name)
            replace_file(out / name, place, json.dumps(changed))
            names[name] = what
    for what, edit in FILES.items():
        name = f"{folder.name}-{len(names):03d}"
        link(folder, out / name)
        if edit(out / name):
            names[name] = what
        else:
            shutil.rmtree(out / name)
    return names


# -- whole files


def _edit_json(folder: Path, name: str, edit: Any) -> bool:
    if not (folder / name).exists():
        return False
    found = json.loads((folder / name).read_text())
    changed = edit(found)
    if changed is None:
        return False
    replace_file(folder, name, json.dumps(changed))
    return True


def _added_token(folder: Path) -> bool:
    if not (folder / "vocab.json").exists():
        return False
    replace_file(folder, "added_tokens.json", json.dumps({"cat": 49408 - 5}))
    return True


def _reordered(folder: Path) -> bool:
    def edit(vocab: dict[str, int]) -> dict[str, int]:
        names = sorted(vocab, key=lambda name: vocab[name])
        names[300:1300] = names[300:1300][::-1]
        return {name: place for place, name in enumerate(names)}

    return _edit_json(folder, "vocab.json", edit)


def _without(name: str) -> Any:
    def edit(folder: Path) -> bool:
        if not (folder / name).exists():
            return False
        replace_file(folder, name, None)
        return True

    return edit


def _special_map(values: dict[str, Any]) -> Any:
    def edit(folder: Path) -> bool:
        replace_file(folder, "special_tokens_map.json", json.dumps(values))
        return (folder / "tokenizer_config.json").exists()

    return edit


def _tokenizer_part(key: str, value: Any) -> Any:
    return lambda folder: _edit_json(folder, "tokenizer.json", lambda found: found | {key: value})


def _extra_token(found: dict[str, Any]) -> dict[str, Any]:
    count = max(found["model"]["vocab"].values()) if isinstance(found["model"]["vocab"], dict) else 0
    token = {"id": count - 3, "content": "fox", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": False}  # fmt: skip
    return found | {"added_tokens": [*found["added_tokens"], token]} if count else None  # pyright: ignore


def _siglip_settings(**values: Any) -> Any:
    """A `tokenizer_config.json` beside SigLIP's SentencePiece model."""

    def edit(folder: Path) -> bool:
        replace_file(folder, "tokenizer_config.json", json.dumps({"tokenizer_class": "SiglipTokenizer"} | values))
        return (folder / "spiece.model").exists()

    return edit


FILES = {
    "SigLIP's settings": _siglip_settings(),
    "SigLIP, cased": _siglip_settings(do_lower_case=False),
    "SigLIP, lower case": _siglip_settings(do_lower_case=True),
    "SigLIP, another pad": _siglip_settings(pad_token="<unk>"),
    "SigLIP, another end": _siglip_settings(eos_token="<unk>"),
    "SigLIP, padded on the left": _siglip_settings(padding_side="left"),
    "SigLIP, cut on the left": _siglip_settings(truncation_side="left"),
    "SigLIP, another length": _siglip_settings(model_max_length=8),
    "SigLIP, of another class": _siglip_settings(tokenizer_class="T5Tokenizer"),
    "added_tokens.json with a word": _added_token,
    "vocab.json in another order": _reordered,
    "no tokenizer_config.json": _without("tokenizer_config.json"),
    "no preprocessor_config.json": _without("preprocessor_config.json"),
    "no tokenizer.json": _without("tokenizer.json"),
    "special_tokens_map.json with another pad": _special_map({"pad_token": "!"}),
    "special_tokens_map.json with another end": _special_map({"eos_token": {"content": "!", "lstrip": False}}),
    "tokenizer.json: lower case": _tokenizer_part("normalizer", {"type": "Lowercase"}),
    "tokenizer.json: no normalizer": _tokenizer_part("normalizer", None),
    "tokenizer.json: no template": _tokenizer_part("post_processor", None),
    "tokenizer.json: truncation": _tokenizer_part(
        "truncation", {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0}
    ),
    "tokenizer.json: an added token": lambda folder: _edit_json(folder, "tokenizer.json", _extra_token),
}
