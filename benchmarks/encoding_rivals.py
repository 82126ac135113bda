"""The rivals of `benchmarks/encoding.py`, run in the environment that `make peers` makes.

`python encoding_rivals.py make FOLDER` writes a random ViT-B/32 in open_clip's and transformers' form;
`python encoding_rivals.py NAME FOLDER DATA SECONDS` prints one JSON line of rates. Each is used as its documentation
does: inference mode, evaluation mode, transformers' texts padded to the longest of a batch.
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

BATCH = 32


def make(folder):
    references.OUT = Path(folder).parent
    vision = {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32}
    text = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
    cfg = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": text}
    references.TEXTS, references.IMAGES = references.TEXTS[:2], references.IMAGES[:2]
    references.open_clip_folder(Path(folder).name, cfg)


def batches(items):
    return [items[i : i + BATCH] for i in range(0, len(items), BATCH)]


def in_open_clip(folder):
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.SimpleTokenizer(context_length=77)
    model.eval()
    return model.encode_image, lambda texts: model.encode_text(tokenizer(texts)), model.encode_text


def in_transformers(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config={"hidden_act": "gelu"},
                                                           vision_config={"hidden_act": "gelu"})).eval()  # fmt: skip

    def words(texts):
        return model.get_text_features(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))

    return lambda x: model.get_image_features(pixel_values=x), words, lambda ids: model.get_text_features(input_ids=ids)


def main(name, folder, data, seconds):
    image, words, tokens = (in_open_clip if name == "open_clip" else in_transformers)(folder)
    given = np.load(data)
    pixels = torch.from_numpy(given["pixels"]).permute(0, 3, 1, 2).contiguous()
    texts = given["texts"].tolist()
    ids = open_clip.SimpleTokenizer(context_length=77)(texts[: 4 * BATCH])
    mean, std = (torch.tensor(x)[:, None, None] for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    seconds = float(seconds)
    with torch.inference_mode():
        rates = {
            "images": best_rate(lambda: [image((x / 255 - mean) / std) for x in batches(pixels)], len(pixels), seconds),
            "texts": best_rate(lambda: [words(x) for x in batches(texts)], len(texts), seconds),
            "texts, all 77 tokens": best_rate(lambda: [tokens(x) for x in batches(ids)], len(ids), seconds),
        }
    print(json.dumps(rates))


if __name__ == "__main__":
    make(sys.argv[2]) if sys.argv[1] == "make" else main(*sys.argv[1:])
