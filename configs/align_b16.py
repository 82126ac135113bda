"""ALIGN's recipe (Jia et al., ICML 2021, arXiv 2102.05918) on a ViT-B/16, for a pod.

    vlc data build 'PAIRS/*.tar' --filter align_image --filter align_text --out SHARDS
    vlc train --config configs/align_b16.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir DIR

The paper's: the *sum* of both directions with label smoothing 0.1, temperature learned from 1.0, LAMB with decay 1e-5,
rate 0 to 1e-3 in 10,000 steps, then linearly to 0 at 1.2 million, batch 16,384, 64 text tokens, a bidirectional text
tower read at its first token. Ours: a ViT-B/16 at 288 pixels for the EfficientNet at 289, SentencePiece for WordPiece.
With EfficientNet-L2 and BERT-Large the paper has 76.4% zero-shot on ImageNet, COCO R@1 58.6 / 45.6.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets


def get_config(form: str = "") -> Config:
    config = default_config()
    config.batch_size = 16_384
    config.steps = 1_200_000
    config.log_every = 100
    config.data.vocab_size = 100_000
    config.data.workers = 8
    config.data.image.update({"size": 288, "resize": "crop", "crop_scale": (0.7, 1.0), "flip": True})
    config.model.embed_dim = 640
    config.model.image.update(presets.image_tower("B/16", pool="mean"))
    config.model.text.update(presets.text_tower("B", length=64, causal=False, pool="first"))
    config.model.text.update({"width": 768, "heads": 12})
    config.model.init_logit_scale = 1.0
    config.model.remat = "dots"
    config.objectives.clip.update({"label_smoothing": 0.1, "reduction": "sum"})
    config.optimizer.update(
        {
            "name": "lamb",
            "lr": 1e-3,
            "schedule": "linear",
            "warmup_steps": 10_000,
            "b2": 0.999,
            "weight_decay": 1e-5,
            "clip_norm": 0.0,
        }
    )
    config.checkpoint.every = config.eval.every = 10_000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    return shrink(config) if form == "smoke" else config
