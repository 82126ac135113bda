"""A captioner that predicts most captions in parallel: CapPa (Tschannen et al., NeurIPS 2023, arXiv 2306.07915).

    vlc train --config configs/cappa_b16.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir D

ViT-B/16 and a decoder of six layers; for three quarters of the examples the decoder reads mask tokens alone and
predicts all words at once, for the others it predicts the next word. The loss is averaged within each caption. Settings
of the authors' code (big_vision): 64 tokens of a 32,000-piece vocabulary, batch 8,192, 366,500 steps, 10,000 of them to
warm up, learning rate 1e-3, decay 1e-4, gradients clipped at 1; AdamW here for their Adafactor.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 8192
    config.steps = 366_500
    config.log_every = 100
    config.data.vocab_size = 32_000
    config.data.workers = 8
    config.data.image.update({"size": 224, "resize": "crop", "crop_scale": (0.7, 1.0)})
    config.model.embed_dim = 768
    config.model.image.update(presets.image_tower("B/16") | {"pool": "mean"})
    config.model.text.update(presets.text_tower("B", length=64))
    config.model.decoder.update({"layers": 6, "width": 768, "heads": 12, "memory": "tokens", "parallel": 0.75})
    config.model.remat = "dots"
    config.objectives.clip.weight = 0.0
    config.objectives.caption.update({"weight": 1.0, "average": "example", "null_rate": 0.0})
    config.optimizer.update({"lr": 1e-3, "warmup_steps": 10_000, "b2": 0.999, "weight_decay": 1e-4, "clip_norm": 1.0})
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    return shrink(config) if form == "smoke" else config
