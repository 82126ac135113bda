"""CLIP ViT-B/16 with regions, for a pod: FG-CLIP's regional loss (arXiv 2505.05071), or DoCo's and GRAIN's by a flag.

    vlc train --config configs/regions_b16.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir DIR

For images with boxes and their texts (docs/regions.md): eight of each image at the most, whose texts are short, so that
a step costs a quarter more than without. `--config.objectives.region.negatives=image` compares those of one image alone
(DoCo); `--config.model.regions.queries=5 --config.objectives.region_boxes.weight=1` finds them (GRAIN, whose decoder is
the default). `configs/regions_b16.py:plain` has no regions, for comparison; `--config.init=MODEL` starts from a CLIP.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    """The config; or its forms `plain` and `smoke`."""
    config = default_config()
    config.batch_size = 4096
    config.steps = 35 * 10_000_000 // config.batch_size
    config.log_every = 100
    config.data.vocab_size = 49_408
    config.data.workers = 8
    config.data.image.update({"size": 224, "resize": "crop", "crop_scale": (0.5, 1.0), **presets.CLIP_PIXELS})
    config.model.embed_dim = 512
    config.model.image.update(presets.image_tower("B/16"))
    config.model.text.update(presets.text_tower("B", length=77))
    config.model.remat = "dots"
    config.optimizer.update({"lr": 1e-3, "warmup_steps": 2000, "b1": 0.9, "b2": 0.98, "weight_decay": 0.1})
    config.objectives.clip.weight = 1.0
    if form != "plain":
        config.data.regions.update({"count": 8, "length": 16})
        config.objectives.region.weight = 1.0
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.every_minutes = 15.0
    return shrink(config) if form == "smoke" else config
