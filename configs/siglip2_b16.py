"""SigLIP 2 ViT-B/16 (Tschannen et al., 2025, arXiv 2502.14786), for a pod, in stages.

    vlc train --config configs/siglip2_b16.py --config.data.train=SHARDS --config.data.tokenizer=FILE --workdir FIRST
    vlc train --config configs/siglip2_b16.py:last --config.init=FIRST ... --workdir LAST
    vlc train --config configs/siglip2_b16.py:naflex --config.init=LAST ... --workdir NAFLEX

First SigLIP's sigmoid loss with a captioner beside it, at 256 pixels, batch 32,768, Adam at 1e-3 with decay 1e-4. For
the last fifth self-distillation from local to global (eight crops, as SILC has them) and masked prediction are added,
taught by the moving average; the paper's weights of 1 and 2.5 are for this size multiplied by 0.25. Then `naflex` goes
on with pictures in their own aspect, 256 patches, without the two.

What is not the paper's: captions are plain ones, where its decoder (LocCa) also says boxes; its texts have Gemma's
256,000 pieces, ours those of `data.tokenizer`; one resolution, where its NaFlex draws one for each batch; prototypes
and the decay of the average are SILC's. It has not been trained at scale here.
"""

from vlc.config import Config, default_config, shrink
from vlc.models import presets

_EXAMPLES = 40_000_000_000


def get_config(form: str = "") -> Config:
    """`last` and `naflex` are the later stages; `smoke` is `last` in seconds."""
    config = default_config()
    config.batch_size = 32_768
    config.log_every = 100
    config.data.vocab_size = 256_000
    config.data.workers = 8
    config.data.image.update({"size": 256, "resize": "squash"})
    config.model.embed_dim = 768
    config.model.image.update(presets.image_tower("B/16", pool="map"))
    config.model.text.update(presets.text_tower("B", length=64, causal=False, pool="last"))
    config.model.text.update({"width": 768, "heads": 12})
    config.model.decoder.update({"layers": 6, "width": 768, "heads": 12})
    config.model.init_logit_scale = 10.0
    config.model.init_logit_bias = -10.0
    config.model.remat = "dots"
    config.objectives.clip.weight = 0.0
    config.objectives.siglip.weight = 1.0
    config.objectives.caption.weight = 1.0
    config.optimizer.update({"lr": 1e-3, "warmup_steps": 20_000, "b2": 0.95, "weight_decay": 1e-4, "clip_norm": 1.0})
    config.checkpoint.every = config.eval.every = 5000
    config.checkpoint.update({"every_minutes": 15.0, "keep_every": 50_000})
    share = {"": 0.8, "last": 0.2, "naflex": 0.05, "smoke": 0.2}[form]
    config.steps = round(share * _EXAMPLES / config.batch_size)
    if form in ("last", "smoke"):
        _with_views(config)
    if form == "naflex":
        config.data.image.resize = "naflex"
    return shrink(config) if form == "smoke" else config


def _with_views(config: Config) -> None:
    config.model.image.prototypes = 65_536
    config.optimizer.ema = 0.996
    config.objectives.local_global.update({"weight": 0.25, "crops": 8, "size": 96, "area": (0.05, 0.4)})
    config.objectives.masked.update({"weight": 0.625, "share": 0.5})
