"""Run in the peers' environment: CLIP_benchmark's own figures for an open_clip model on our files.

`python evaluations.py MODEL DATA OUT.json`: DATA is what `tests/evaluate/test_peers.py` writes.
"""

import json
import sys
from pathlib import Path

import references  # noqa: F401
import open_clip
import torch
from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from PIL import Image


class Pairs(torch.utils.data.Dataset):
    """Images with whatever belongs to them."""

    def __init__(self, rows, transform, classes=()):
        self.rows, self.transform, self.classes = rows, transform, classes

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        path, other = self.rows[index]
        return self.transform(Image.open(path)), other


def batches(dataset):
    def collate(items):
        images, others = zip(*items, strict=True)
        return torch.stack(images), torch.tensor(others) if isinstance(others[0], int) else list(others)

    return torch.utils.data.DataLoader(dataset, batch_size=16, collate_fn=collate)


def main(folder, data, out):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    given = json.loads(Path(data).read_text())
    common = {"tokenizer": tokenizer, "device": "cpu", "amp": False}
    templates = [make("{c}") for make in OPENAI_IMAGENET_TEMPLATES]
    labelled = batches(Pairs(given["labelled"], transform, given["classes"]))
    found = {
        "templates": [template.replace("{c}", "{}") for template in templates],
        "retrieval": zeroshot_retrieval.evaluate(
            model, batches(Pairs(given["captioned"], transform)), recall_k_list=[1, 5, 10], **common
        ),
        "classification": zeroshot_classification.evaluate(
            model, labelled, classnames=given["classes"], templates=templates, **common
        ),
        "selection": image_caption_selection.evaluate(model, batches(Pairs(given["selected"], transform)), **common),
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
