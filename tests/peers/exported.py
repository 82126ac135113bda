"""Run in the peers' environment: what transformers and open_clip make of the folders that vlc exported.

`python exported.py EXPORTS` reads every `EXPORTS/huggingface/NAME` and `EXPORTS/open_clip/NAME`, and writes
`EXPORTS/huggingface/NAME.npz` and so on, as `references.py` does. `NAME` tells how the model's texts are tokenized.
"""

import sys
from pathlib import Path

import references
import transformers


def huggingface(folder):
    """transformers' own classes, chosen by transformers."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    length = model.config.text_config.max_position_embeddings
    ids = tokenizer(references.TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    references.run_model(folder.name, folder.parent, model, processor, ids)


def main(exports):
    for folder in sorted(path for path in (exports / "huggingface").iterdir() if path.is_dir()):
        huggingface(folder)
    for folder in sorted(path for path in (exports / "open_clip").iterdir() if path.is_dir()):
        references.run_open_clip(folder.name, folder.parent, f"local-dir:{folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
