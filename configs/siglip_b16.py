"""SigLIP ViT-B/16 (Zhai et al., ICCV 2023, arXiv 2303.15343), for a pod.

    vlc train --config configs/siglip_b16.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir DIR

The sigmoid loss divided by the batch size, scale from 10 and bias from -10, attention pooling of the image, 64 text
tokens of a 32,000-piece vocabulary, a bidirectional text tower as wide as the image tower, batch 32,768, Adam with
beta2 0.95 (section 4.6, for stability), rate 1e-3, decay 1e-4. The pooled text is the last token's, as released.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 32_768
    config.steps = 9_000_000_000 // config.batch_size
    config.log_every = 100
    config.data.vocab_size = 32_000
    config.data.workers = 8
    config.data.image.update({"size": 224, "resize": "squash"})
    config.model.embed_dim = 768
    config.model.image.update(presets.image_tower("B/16", pool="map"))
    config.model.text.update(presets.text_tower("B", length=64, causal=False, pool="last"))
    config.model.text.update({"width": 768, "heads": 12})
    config.model.init_logit_scale = 10.0
    config.model.init_logit_bias = -10.0
    config.model.remat = "dots"
    config.objectives.clip.weight = 0.0
    config.objectives.siglip.weight = 1.0
    config.optimizer.update({"lr": 1e-3, "warmup_steps": 20_000, "b2": 0.95, "weight_decay": 1e-4, "clip_norm": 1.0})
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    return shrink(config) if form == "smoke" else config
