"""CLIP ViT-B/16 (Radford et al. 2021, arXiv 2103.00020), for a pod.

    vlc train --config configs/clip_b16.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir DIR

Hyperparameters of tables 18 and 19: batch 32,768, 32 epochs of 400 million pairs, AdamW with beta2 0.98, epsilon 1e-6,
decay 0.2, peak rate 5e-4 after 2,000 warm-up steps, cosine; random square crop as the only augmentation. The paper's
model has 68.6% zero-shot on ImageNet.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 32_768
    config.steps = 32 * 400_000_000 // config.batch_size
    config.log_every = 100
    config.data.vocab_size = 49_408
    config.data.workers = 8
    config.data.image.update({"size": 224, "resize": "crop", "crop_scale": (0.9, 1.0), **presets.CLIP_PIXELS})
    config.model.embed_dim = 512
    config.model.image.update(presets.image_tower("B/16"))
    config.model.text.update(presets.text_tower("B", length=77))
    config.model.remat = "dots"
    config.optimizer.update(
        {"lr": 5e-4, "warmup_steps": 2000, "b1": 0.9, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.2, "clip_norm": 0.0}
    )
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    return shrink(config) if form == "smoke" else config
