"""DreamLIP ViT-B/16 on CC3M with long synthetic captions (Zheng et al., ECCV 2024, arXiv 2403.17007).

    vlc data build 'CC3M/*.tar' --join cc3m_3long_3short_1raw_captions_url.csv --out SHARDS
    vlc train --config configs/dreamlip_b16_cc3m.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir D

Each visit: the raw caption, and seven sub-captions drawn from the sentences of all captions (K = 8, where the paper's
gain saturates), the last sentence included. Multi-positive loss over slots and grouping loss within an image, both with
weight 1, threshold 1/P; AdamW 5e-4, betas 0.9 and 0.98, decay 0.5, 2,000 warm-up steps, 32 epochs, batch 1,024, which
the paper does not state. Its model has Flickr30K image-to-text R@1 69.5 (CLIP on the same data: 32.6).
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 1024
    config.steps = 32 * 3_000_000 // config.batch_size
    config.log_every = 100
    config.data.vocab_size = 49_408
    config.data.workers = 8
    config.data.image.update({"size": 224, "resize": "crop", "crop_scale": (0.9, 1.0), **presets.CLIP_PIXELS})
    config.data.captions.mix = "raw"
    config.data.captions.sub_captions = 7
    config.model.embed_dim = 512
    config.model.image.update(presets.image_tower("B/16"))
    config.model.text.update(presets.text_tower("B", length=77))
    config.model.remat = "dots"
    config.objectives.clip.weight = 0.0
    config.objectives.multi_positive.weight = 1.0
    config.objectives.grouping.weight = 1.0
    config.optimizer.update(
        {"lr": 5e-4, "warmup_steps": 2000, "b2": 0.98, "eps": 1e-6, "weight_decay": 0.5, "clip_norm": 0.0}
    )
    config.checkpoint.every = config.eval.every = 2500
    return shrink(config) if form == "smoke" else config
