"""A contrastive captioner with guidance: CoCa-style, after Kornblith et al. (ICCV 2023, arXiv 2307.16686), for a pod.

    vlc train --config configs/captioner_b16.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir D

The paper fine-tunes a CoCa-Base with the image hidden from half of the examples (the best of their 0 to 0.75); here the
same share is hidden from the start. Contrastive and captioning losses as 1 to 2, a 64,000-piece vocabulary, 64
pooled image tokens for the decoder; `--config.model.decoder.memory=embedding` is the paper's bottleneck. Ours: ViT-B/16
at 224 for B/18 at 288, AdamW for Adafactor, 12 decoder layers on their own for 12 unimodal and 12 multimodal ones.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 8192
    config.steps = 500_000
    config.log_every = 100
    config.data.vocab_size = 64_000
    config.data.workers = 8
    config.data.image.update({"size": 224, "resize": "crop", "crop_scale": (0.7, 1.0)})
    config.model.embed_dim = 512
    config.model.image.update(presets.image_tower("B/16"))
    config.model.text.update(presets.text_tower("B", length=76))
    config.model.decoder.update({"layers": 12, "width": 768, "heads": 12, "memory": "pooled", "queries": 64})
    config.model.remat = "dots"
    config.objectives.caption.update({"weight": 2.0, "null_rate": 0.5})
    config.optimizer.update(
        {"lr": 8e-4, "schedule": "linear", "warmup_steps": 10_000, "b2": 0.999, "weight_decay": 0.01, "clip_norm": 1.0}
    )
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    return shrink(config) if form == "smoke" else config
