"""open_clip's side of `benchmarks/train_step.py`: `python train_step_rivals.py eager|compiled SIZE BATCH`."""

import json
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "peers"))

import torchvision_on_cpu  # noqa: F401
import open_clip
import torch

VISION = {"B/32": {"layers": 12, "width": 768}, "S/32": {"layers": 12, "width": 384, "head_width": 64}}
TEXT = {"B/32": {"width": 512, "heads": 8}, "S/32": {"width": 384, "heads": 6}}
VOCABULARY, LENGTH = 49408, 77


def main(how, size, batch_size):
    begun = time.perf_counter()
    torch.manual_seed(0)
    vision = open_clip.CLIPVisionCfg(image_size=224, patch_size=32, **VISION[size])
    text = open_clip.CLIPTextCfg(context_length=LENGTH, vocab_size=VOCABULARY, layers=12, **TEXT[size])
    model = open_clip.model.CLIP(embed_dim=512, vision_cfg=vision, text_cfg=text)
    loss = open_clip.ClipLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    images, tokens = torch.randn(batch_size, 3, 224, 224), torch.randint(3, 8000, (batch_size, LENGTH))

    def forward():
        return loss(*model(images, tokens))

    if how == "compiled":
        forward = torch.compile(forward)

    def step():
        optimizer.zero_grad(set_to_none=True)
        value = forward()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return value.item()

    if how == "compiled":
        forward().backward()  # compiles both passes
    print(json.dumps({"compile": time.perf_counter() - begun}), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
