"""FILIP base, ViT-B/32 (Yao et al., ICLR 2022, arXiv 2111.07783), for a pod.

    vlc data build 'PAIRS/*.tar' --filter filip --out SHARDS
    vlc train --config configs/filip_b32.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir DIR

The paper's (tables 9 and 10): tokens of width 256, causal text tower of 77 tokens, temperature from 0.07, AutoAugment,
LAMB with epsilon 1e-4 and decay 3e-3, 3,000 warm-up steps, cosine, 30 epochs of 340 million pairs, rate
2e-3 * sqrt(B / 512).
Ours: batch 32,768 for 40,960, and CLIP's loss beside FILIP's, which alone is fragile without its augmentations;
`--config.objectives.clip.weight=0` gives the paper's objective.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 32_768
    config.steps = 30 * 340_000_000 // config.batch_size
    config.log_every = 100
    config.data.vocab_size = 49_408
    config.data.workers = 8
    config.data.image.update({"size": 224, "resize": "crop", "crop_scale": (0.6, 1.0), "augment": "auto"})
    config.model.embed_dim = 256
    config.model.image.update(presets.image_tower("B/32"))
    config.model.text.update(presets.text_tower("B", length=77))
    config.model.remat = "dots"
    config.objectives.filip.update({"weight": 1.0, "exchange": "ring"})
    config.objectives.clip.exchange = "ring"
    config.optimizer.update(presets.filip_optimizer(2e-3, config.batch_size))
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    return shrink(config) if form == "smoke" else config
