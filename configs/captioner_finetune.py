"""Guidance for a captioner that is there: fine-tuning with the image hidden, after Kornblith et al. (ICCV 2023).

    vlc train --config configs/captioner_finetune.py --config.init=MODEL --config.data.train=SHARDS --workdir D

MODEL is a workdir of `captioner_b16.py`, or what `vlc.load` reads with a captioner (open_clip's CoCa); its towers,
tokenizer and pixels are kept. The paper's recipe (arXiv 2307.16686, section 4): Adam, batch 128, the learning rate up
to 1e-5 over 1,000 steps and linearly to 0, the image hidden from half of the examples, 20,000 steps on COCO train and
Karpathy's validation images (for CC3M: 100,000 steps). Its grid: hidden 0 to 0.75, 5,000 to 50,000 steps. Their figures
at scale 1, 1.5, 2, 3: CIDEr 126, 113, 79, 42; caption-to-image R@1 26.5, 36.6, 44.6, 49.4.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 128
    config.steps = 20_000
    config.log_every = 100
    config.data.workers = 4
    config.model.image.update(presets.image_tower("B/16"))  # of config.init, where it is set
    config.model.text.update(presets.text_tower("B", length=76))
    config.model.decoder.update({"layers": 12, "width": 768, "heads": 12, "memory": "pooled", "queries": 64})
    config.objectives.clip.weight = 0.0
    config.objectives.caption.update({"weight": 1.0, "null_rate": 0.5})
    config.optimizer.update(
        {"lr": 1e-5, "schedule": "linear", "warmup_steps": 1000, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0,
         "clip_norm": 0.0}
    )  # fmt: skip
    config.checkpoint.every = config.eval.every = 1000
    return shrink(config) if form == "smoke" else config
