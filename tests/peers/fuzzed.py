"""Run in the peers' environment: what the libraries make of folders with one setting changed.

`python fuzzed.py CASES` reads every `CASES/NAME/` and writes `CASES/NAME.npz`, or `CASES/NAME.error` where the library
refuses the folder.
"""

import contextlib
import io
import sys
import warnings
from pathlib import Path

import references
import numpy as np
import open_clip
import torch
import transformers
from transformers.utils import logging

import inputs
import text_references

logging.disable_progress_bar()
warnings.simplefilter("ignore")
TEXTS = list(inputs.FUZZED)
IMAGES = inputs.images()[:3]


def huggingface(folder):
    model, info = transformers.AutoModel.from_pretrained(folder, output_loading_info=True)
    wrong = [name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[key]]
    if wrong:
        raise ValueError(f"weights do not fit: {wrong[0]}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    pixels = processor(IMAGES, return_tensors="pt").pixel_values
    masked = {"attention_mask": ids["attention_mask"]} if isinstance(model, transformers.CLIPModel) else {}
    out = model.eval().float()(pixel_values=pixels.float(), input_ids=ids["input_ids"], **masked)
    return {"pixels": pixels, "ids": ids["input_ids"], "image": references.unit(out.image_embeds),
            "text": references.unit(out.text_embeds), "logits": out.logits_per_image}  # fmt: skip


def from_open_clip(folder):
    where = f"local-dir:{folder}"
    model, _, transform = open_clip.create_model_and_transforms(where)
    model = model.eval()
    ids = open_clip.get_tokenizer(where)(TEXTS)
    pixels = torch.stack([transform(image) for image in IMAGES])
    image, text = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
    bias = model.logit_bias if getattr(model, "logit_bias", None) is not None else 0
    return {"pixels": pixels, "ids": ids, "image": image, "text": text,
            "logits": model.logit_scale.exp() * image @ text.T + bias}  # fmt: skip


def reader(name):
    if name.startswith("open_clip"):
        return from_open_clip
    return huggingface if name.startswith(("clip", "siglip")) else text_references.encoded_texts


def main(cases):
    text_references.TEXTS = TEXTS
    for folder in sorted(path for path in cases.iterdir() if path.is_dir()):
        read = reader(folder.name)
        quiet = io.StringIO()
        try:
            with torch.no_grad(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
                found = read(folder)
            np.savez(cases / f"{folder.name}.npz", **{key: np.asarray(value) for key, value in found.items()})
        except Exception as error:
            (cases / f"{folder.name}.error").write_text(f"{type(error).__name__}: {error}"[:500])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
