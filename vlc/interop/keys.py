"""Which settings of other libraries' files are used, which do not matter, and why; every other one is refused by name.

The table in docs/checkpoints.md is made from this file: `python -m vlc.interop.keys`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vlc.errors import CheckpointError

_NO_OUTPUT = "says how Python returns results"
_TRAINING = "for training alone"
_GENERATION = "for writing text, which these models do not"
_ORIGIN = "says where the file comes from"


@dataclass(frozen=True)
class Keys:
    """The settings of one part of a file.

    Attributes:
        file: The file, and the part of it.
        used: Settings that are read.
        idle: Settings that change nothing here, and why.
        fixed: Settings that may be there with these values alone; with any other the model is another one.
    """

    file: str
    used: tuple[str, ...]
    idle: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def check(self, given: Mapping[str, Any], where: str) -> None:
        """Refuses a setting that is none of these.

        Raises:
            CheckpointError: It is named.
        """
        for key, value in given.items():
            if key in self.used or key in self.idle:
                continue
            if key not in self.fixed:
                raise CheckpointError(
                    f"{where}: the setting {key}={value!r} is not known, and might change what the model computes. "
                    "If it does not, take it out of the file."
                )
            if not any(value is one or (value == one and type(value) is type(one)) for one in self.fixed[key]):
                allowed = " or ".join(map(repr, self.fixed[key]))
                raise CheckpointError(f"{where}: {key} is {value!r}; vlc's models are those with {key}={allowed}.")


# What every config of transformers may carry; older files carry all of it, in each part.
_GENERIC: dict[str, str] = {
    **dict.fromkeys(
        ("_name_or_path", "_commit_hash", "architectures", "transformers_version", "auto_map", "model_type",
         "finetuning_task", "task_specific_params", "problem_type", "id2label", "label2id", "name_or_path"), _ORIGIN),
    **dict.fromkeys(
        ("output_attentions", "output_hidden_states", "output_scores", "return_dict", "return_dict_in_generate",
         "torchscript", "use_cache"), _NO_OUTPUT),
    **dict.fromkeys(("dtype", "torch_dtype", "use_bfloat16"), "weights are read as float32"),
    **dict.fromkeys(
        ("attention_dropout", "dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
         "initializer_factor", "initializer_range", "gradient_checkpointing", "tf_legacy_loss"), _TRAINING),
    **dict.fromkeys(
        ("bad_words_ids", "begin_suppress_tokens", "decoder_start_token_id", "diversity_penalty", "do_sample",
         "early_stopping", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "forced_bos_token_id",
         "forced_eos_token_id", "length_penalty", "max_length", "min_length", "no_repeat_ngram_size", "num_beam_groups",
         "num_beams", "num_return_sequences", "prefix", "remove_invalid_values", "repetition_penalty", "sep_token_id",
         "suppress_tokens", "temperature", "top_k", "top_p", "typical_p", "cross_attention_hidden_size"), _GENERATION),
    "bos_token_id": "the tokenizer's files have it",
    "chunk_size_feed_forward": "computes the same in parts",
    "tie_encoder_decoder": "there is no decoder",
    "tie_word_embeddings": "there is no output layer",
    "tokenizer_class": "the tokenizer's files have it",
    "_attn_implementation_autoset": "computes the same",
    "attn_implementation": "computes the same",
}  # fmt: skip
_GENERIC_FIXED: dict[str, tuple[Any, ...]] = {
    "is_decoder": (False,), "is_encoder_decoder": (False,), "add_cross_attention": (False,), "pruned_heads": ({}, None),
    "use_attention_mask": (None,),
}  # fmt: skip
_TOWER = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
          "layer_norm_eps")  # fmt: skip
_NO_PAD_ID = {"pad_token_id": "the tokenizer's files have it"}

CLIP = Keys(
    "transformers CLIP, config.json",
    ("model_type", "projection_dim", "text_config", "vision_config", "text_config_dict", "vision_config_dict"),
    _GENERIC | _NO_PAD_ID | {"logit_scale_init_value": _TRAINING, "eos_token_id": "that of text_config counts",
                "hidden_size": "those of the parts count"},
    _GENERIC_FIXED,
)  # fmt: skip
CLIP_TEXT = Keys(
    "transformers CLIP, text_config",
    (*_TOWER, "max_position_embeddings", "vocab_size", "eos_token_id"),
    _GENERIC | _NO_PAD_ID | {"projection_dim": "that of the whole counts"},
    _GENERIC_FIXED,
)
CLIP_VISION = Keys(
    "transformers CLIP, vision_config",
    (*_TOWER, "image_size", "patch_size", "num_channels"),
    _GENERIC | _NO_PAD_ID | {"projection_dim": "that of the whole counts", "eos_token_id": "images have none"},
    _GENERIC_FIXED,
)
SIGLIP = Keys(
    "transformers SigLIP, config.json",
    ("model_type", "text_config", "vision_config"),
    _GENERIC
    | _NO_PAD_ID
    | {
        "eos_token_id": "the tokenizer's files have it",
        "hidden_size": "those of the parts count",
        "projection_dim": "there is no projection",
    },
    _GENERIC_FIXED,
)
SIGLIP_TEXT = Keys(
    "transformers SigLIP, text_config",
    (*_TOWER, "max_position_embeddings", "vocab_size", "projection_size"),
    _GENERIC
    | _NO_PAD_ID
    | {"eos_token_id": "the tokenizer's files have it", "projection_dim": "projection_size counts"},
    _GENERIC_FIXED,
)
SIGLIP_VISION = Keys(
    "transformers SigLIP, vision_config",
    (*_TOWER, "image_size", "patch_size", "num_channels", "vision_use_head"),
    _GENERIC | _NO_PAD_ID | {"eos_token_id": "images have none", "projection_dim": "there is no projection"},
    _GENERIC_FIXED,
)
NAFLEX_VISION = Keys(
    "transformers SigLIP 2 (NaFlex), vision_config",
    (*_TOWER, "num_patches", "patch_size", "num_channels", "vision_use_head"),
    SIGLIP_VISION.idle,
    _GENERIC_FIXED,
)
BERT = Keys(
    "transformers BERT, config.json",
    (*_TOWER, "max_position_embeddings", "vocab_size", "model_type"),
    _GENERIC | _NO_PAD_ID | {
        "eos_token_id": "the tokenizer's files have it", "pooler_fc_size": "of a head that is not read",
        "directionality": _ORIGIN, "pooler_num_attention_heads": "of a head that is not read",
        "pooler_num_fc_layers": "of a head that is not read", "pooler_size_per_head": "of a head that is not read",
        "pooler_type": "of a head that is not read", "type_vocab_size": "its rows are counted in the weights",
    },
    _GENERIC_FIXED | {"position_embedding_type": ("absolute",)},
)  # fmt: skip
NAFLEX_PROCESSOR = Keys(
    "transformers SigLIP 2 (NaFlex), preprocessor_config.json",
    ("image_processor_type", "feature_extractor_type", "resample", "image_mean", "image_std", "rescale_factor",
     "do_resize", "do_rescale", "do_normalize", "patch_size", "max_num_patches"),
    {
        "do_convert_rgb": "pictures are RGB in any case", "processor_class": _ORIGIN, "_processor_class": _ORIGIN,
        "_valid_processor_keys": _ORIGIN, "return_tensors": _NO_OUTPUT, "data_format": _NO_OUTPUT,
        "input_data_format": _NO_OUTPUT, "device": _NO_OUTPUT, "disable_grouping": _NO_OUTPUT, "auto_map": _ORIGIN,
        "default_to_square": "of other processors", "image_seq_length": "of other models",
    },
    {"size": (None,), "crop_size": (None,), "do_center_crop": (None, False), "do_pad": (None,), "pad_size": (None,),
     "antialias": (None, True)},
)  # fmt: skip

IMAGE_PROCESSOR = Keys(
    "transformers, preprocessor_config.json",
    ("image_processor_type", "feature_extractor_type", "size", "do_center_crop", "crop_size", "resample", "image_mean",
     "image_std", "rescale_factor", "do_resize", "do_rescale", "do_normalize"),
    {
        "do_convert_rgb": "pictures are RGB in any case", "processor_class": _ORIGIN, "_processor_class": _ORIGIN,
        "_valid_processor_keys": _ORIGIN, "return_tensors": _NO_OUTPUT, "data_format": _NO_OUTPUT,
        "input_data_format": _NO_OUTPUT, "device": _NO_OUTPUT, "disable_grouping": _NO_OUTPUT, "auto_map": _ORIGIN,
        "default_to_square": "the form of size says it", "do_pad": "images are of one size already",
        "pad_size": "images are of one size already", "image_seq_length": "of other models",
    },
    {"crop_pct": (None,), "size_divisor": (None,), "antialias": (None, True)},
)  # fmt: skip

TOKENIZER = Keys(
    "transformers, tokenizer_config.json",
    ("tokenizer_class", "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token",
     "padding_side", "add_bos_token", "do_lower_case", "strip_accents", "tokenize_chinese_chars",
     "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens"),
    {
        "model_max_length": "the positions of the model count (of sentence-transformers the smaller)",
        "max_length": "the positions of the model count",
        "add_eos_token": "the end mark is added in any case", "processor_class": _ORIGIN, "name_or_path": _ORIGIN,
        "special_tokens_map_file": _ORIGIN, "tokenizer_file": _ORIGIN, "vocab_file": _ORIGIN, "auto_map": _ORIGIN,
        "backend": _ORIGIN, "model_type": _ORIGIN, "is_local": _ORIGIN, "local_files_only": _ORIGIN,
        "clean_up_tokenization_spaces": "for texts that are written", "spaces_between_special_tokens":
        "for texts that are written", "errors": "for texts that are written", "use_default_system_prompt": "for chats",
        "chat_template": "for chats", "add_prefix_space": "CLIP's words have none", "legacy": "of T5's older cuts",
        "extra_ids": "of T5", "sp_model_kwargs": "SentencePiece is read without", "do_basic_tokenize": "always done",
        "never_split": "the special tokens are kept whole", "stride": "texts are cut, not split",
        "truncation_strategy": "texts are cut", "pad_to_multiple_of": "texts are padded to the model's length",
        "pad_token_type_id": "there is one kind of token", "model_input_names": _NO_OUTPUT,
    },
    {"truncation_side": ("right",), "split_special_tokens": (False,), "add_dummy_prefix_space": (None,)},
)  # fmt: skip

SENTENCES = Keys(
    "sentence-transformers and PyLate, config_sentence_transformers.json",
    ("model_type", "prompts", "default_prompt_name", "query_prefix", "document_prefix", "query_length",
     "document_length", "attend_to_expansion_tokens", "do_query_expansion", "skiplist_words"),
    {"__version__": _ORIGIN, "similarity_fn_name": "says how that library compares"},
    {"truncate_dim": (None,), "query_expansion": (None,)},
)  # fmt: skip
SENTENCE_TOWER = Keys(
    "sentence-transformers, sentence_bert_config.json",
    ("max_seq_length", "do_lower_case", "query_length", "document_length", "query_expansion"),
    {"unpad_inputs": "computes the same"},
    {"transformer_task": ("feature-extraction",), "module_output_name": ("token_embeddings",),
     "modality_config": ({"text": {"method": "forward", "method_output_name": "last_hidden_state"}}, None),
     "processing_kwargs": ({}, None), "model_args": ({}, None), "tokenizer_args": ({}, None),
     "config_args": ({}, None), "tokenizer_name_or_path": (None,)},
)  # fmt: skip
POOLING = Keys(
    "sentence-transformers, 1_Pooling/config.json",
    ("pooling_mode", *(f"pooling_mode_{mode}" for mode in (
        "cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"))),
    {"word_embedding_dimension": "the width of the tower counts", "embedding_dimension":
     "the width of the tower counts"},
    {"include_prompt": (True,)},
)  # fmt: skip
DENSE = Keys(
    "sentence-transformers and PyLate, 2_Dense/config.json",
    ("in_features", "out_features", "bias", "module_input_name", "module_output_name"),
    {},
    {"activation_function": ("torch.nn.modules.linear.Identity",), "use_residual": (False,)},
)
TOKEN_MASK = Keys(
    "sentence-transformers, MultiVectorMask/config.json",
    ("skiplist_words", "skiplist_tasks"),
    {},
    {"keep_only_token_ids": (None,)},
)
COLBERT = Keys(
    "Stanford's ColBERT, artifact.metadata",
    ("query_token_id", "doc_token_id", "query_maxlen", "doc_maxlen", "mask_punctuation", "attend_to_mask_tokens"),
    {
        **dict.fromkeys(
            ("query_token", "doc_token"), "query_token_id and doc_token_id count"),
        **dict.fromkeys(
            ("dim", "checkpoint", "model_name", "name", "config", "meta", "version"), _ORIGIN),
        **dict.fromkeys(
            ("triples", "collection", "queries", "bsize", "accumsteps", "lr", "maxsteps", "save_every", "warmup",
             "warmup_bert", "nway", "use_ib_negatives", "reranker", "distillation_alpha", "ignore_scores", "resume",
             "resume_optimizer", "fix_broken_tokenizer_mode", "amp", "rank", "nranks", "gpus", "total_visible_gpus",
             "avoid_fork_if_possible", "root", "experiment", "overwrite", "model_config", "source"), _TRAINING),
        **dict.fromkeys(
            ("index_root", "index_name", "index_path", "index_bsize", "nbits", "kmeans_niters", "partitions", "ncells",
             "nprobe", "ndocs", "centroid_score_threshold", "load_index_with_mmap", "pool_factor",
             "clustering_mode", "protected_tokens"), "of an index"),
    },
    {"similarity": ("cosine", "l2"), "interaction": ("colbert",), "relu": (False,)},
)  # fmt: skip

OPEN_CLIP = Keys(
    "open_clip, model_cfg",
    ("embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "quick_gelu", "init_logit_bias"),
    {"custom_text": "the names of the weights say it", "init_logit_scale": _TRAINING},
)
OPEN_CLIP_VISION = Keys(
    "open_clip, vision_cfg",
    ("layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "attentional_pool",
     "attn_pooler_queries", "attn_pooler_heads", "act_kwargs", "norm_kwargs", "timm_model_name", "timm_pool",
     "timm_proj", "pool_type", "pos_embed_type"),
    {"patch_dropout": _TRAINING, "timm_drop": _TRAINING, "timm_drop_path": _TRAINING, "output_tokens": _NO_OUTPUT,
     "timm_model_pretrained": _ORIGIN},
)  # fmt: skip
OPEN_CLIP_TEXT = Keys(
    "open_clip, text_cfg",
    ("context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "width", "heads", "layers", "mlp_ratio",
     "embed_cls", "pad_id", "eos_id", "no_causal_mask", "pool_type", "proj_bias", "proj_type", "act_kwargs",
     "norm_kwargs"),
    {"output_tokens": _NO_OUTPUT},
)  # fmt: skip
OPEN_CLIP_DECODER = Keys(
    "open_clip, multimodal_cfg",
    ("width", "heads", "layers", "mlp_ratio"),
    {"context_length": "that of the text tower counts", "vocab_size": "that of the text tower counts",
     "dim_head": "of open_clip's first CoCa", "n_queries": "vision_cfg has it",
     "attn_pooler_heads": "vision_cfg has it"},
)  # fmt: skip
OPEN_CLIP_PIXELS = Keys(
    "open_clip, preprocess_cfg",
    ("mean", "std", "interpolation", "resize_mode", "fill_color"),
    {"size": "vision_cfg's image_size counts"},
    {"mode": ("RGB",)},
)

ALL = (CLIP, CLIP_TEXT, CLIP_VISION, SIGLIP, SIGLIP_TEXT, SIGLIP_VISION, NAFLEX_VISION, BERT, IMAGE_PROCESSOR,
       NAFLEX_PROCESSOR, TOKENIZER, SENTENCES, SENTENCE_TOWER, POOLING, DENSE, TOKEN_MASK, COLBERT, OPEN_CLIP,
       OPEN_CLIP_VISION, OPEN_CLIP_TEXT, OPEN_CLIP_DECODER, OPEN_CLIP_PIXELS)  # fmt: skip


def table() -> str:
    """The table of docs/checkpoints.md."""
    lines = ["| file | used | does not matter | must be |", "|---|---|---|---|"]
    for keys in ALL:
        idle: dict[str, list[str]] = {}
        for key, why in keys.idle.items():
            idle.setdefault(why, []).append(f"`{key}`")
        reasons = "; ".join(f"{why}: {', '.join(names)}" for why, names in idle.items())
        fixed = ", ".join(f"`{key}`={' or '.join(map(repr, values))}" for key, values in keys.fixed.items())
        lines.append(f"| {keys.file} | {', '.join(f'`{key}`' for key in keys.used)} | {reasons} | {fixed} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
