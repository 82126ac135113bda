"""The rivals of `benchmarks/decoding.py`, run in the environment that `make peers` makes.

`python decoding_rivals.py make FOLDER` writes a random CoCa in open_clip's form;
`python decoding_rivals.py NAME FOLDER DATA BATCH WORDS SECONDS` prints one JSON line: seconds for a batch from images
to captions, and for the captions alone (images encoded before), the best of as many runs as fit. Each is used
as its documentation does, greedily, with as many new tokens as asked for.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "peers"))

import references
import numpy as np
import open_clip
import torch
import transformers
from rates import best_rate

VISION = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16, "attentional_pool": True,
          "attn_pooler_heads": 8, "output_tokens": True, "attn_pooler_queries": 256}  # fmt: skip
TEXT = {"context_length": 76, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 6, "embed_cls": True,
        "output_tokens": True}  # fmt: skip
DECODER = {"context_length": 76, "vocab_size": 49408, "width": 768, "heads": 12, "layers": 6}


def make(folder):
    references.OUT = Path(folder).parent
    cfg = {"embed_dim": 768, "vision_cfg": VISION, "text_cfg": TEXT, "multimodal_cfg": DECODER, "custom_text": True}
    references.TEXTS, references.IMAGES = references.TEXTS[:2], references.IMAGES[:2]
    references.open_clip_folder(Path(folder).name, cfg)


def in_open_clip(folder, pixels, words):
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    mean, std = (torch.tensor(x)[:, None, None] for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    images = (pixels / 255 - mean) / std
    encoded = model._encode_image(images)

    def decode(latent, tokens):
        """The loop of its `generate`, which refuses to run beside transformers 5: no cache, the image encoded once."""
        ids = torch.full((len(images), 1), 49406)
        for _ in range(words):
            out = model(images, ids, image_latent=latent, image_embs=tokens, output_labels=False)
            ids = torch.cat([ids, out["logits"][:, -1].argmax(dim=-1, keepdim=True)], dim=1)
        return ids

    return lambda: decode(*model._encode_image(images)), lambda: decode(*encoded)


def in_transformers(folder, pixels, words):
    del folder
    text = {"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_size": 768, "vocab_size": 49408}
    vision = {"image_size": 224, "patch_size": 16}
    config = transformers.BlipConfig(text_config=text, vision_config=vision)
    model = transformers.BlipForConditionalGeneration(config).eval()
    mean, std = (torch.tensor(x)[:, None, None] for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    images = (pixels / 255 - mean) / std
    options = {"max_new_tokens": words, "min_new_tokens": words, "do_sample": False, "num_beams": 1}
    encoded = model.vision_model(pixel_values=images)

    def decode():
        encode, model.vision_model.forward = model.vision_model.forward, lambda **_: encoded
        try:
            return model.generate(pixel_values=images, **options)
        finally:
            model.vision_model.forward = encode

    return lambda: model.generate(pixel_values=images, **options), decode


def main(name, folder, data, batch, words, seconds):
    pixels = torch.from_numpy(np.load(data)["pixels"][: int(batch)]).permute(0, 3, 1, 2).contiguous()
    with torch.inference_mode():
        whole, alone = (in_open_clip if name == "open_clip" else in_transformers)(folder, pixels, int(words))
        assert alone().shape == (int(batch), int(words) + 1)
        found = {
            "captions": 1 / best_rate(whole, 1, float(seconds)),
            "decoding": 1 / best_rate(alone, 1, float(seconds)),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    make(sys.argv[2]) if sys.argv[1] == "make" else main(*sys.argv[1:])
