"""FILIP large, ViT-L/14 (Yao et al., ICLR 2022, arXiv 2111.07783), for a pod.

    vlc train --config configs/filip_l14.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir DIR

As `filip_b32`, with the large towers and the paper's base rate of 1.5e-3; batch 32,768 for 30,720. The paper's model
has 77.1% zero-shot on ImageNet and COCO R@1 61.3 / 45.9.
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
    config.model.image.update(presets.image_tower("L/14"))
    config.model.text.update(presets.text_tower("L", length=77))
    config.model.remat = "full"
    config.objectives.filip.update({"weight": 1.0, "exchange": "ring"})
    config.objectives.clip.exchange = "ring"
    config.optimizer.update(presets.filip_optimizer(1.5e-3, config.batch_size))
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    return shrink(config) if form == "smoke" else config
