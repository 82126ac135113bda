"""A captioner on an encoder that stays as it is, that can be asked for a length; small, on scenes by default.

    vlc train --config configs/captioner_frozen.py --config.init=MODEL --workdir runs/captioner

`config.init` is any dual encoder that `vlc.load` reads, by default `runs/quickstart`; only the captioner is learned, so
an example costs a forward pass of the image tower. The image is hidden from half of the examples (Kornblith et al.,
ICCV 2023, arXiv 2307.16686), and each caption's length is said before it (FlexCap, arXiv 2403.12026). On your own data
set `config.data.train`, and `config.data.captions.target` to "". Measured: docs/captioning.md.
"""

from vlc.config import Config, default_config, shrink


def get_config(form: str = "") -> Config:
    config = default_config()
    config.init = "runs/quickstart"
    config.steps = 1200
    config.batch_size = 128
    config.log_every = 50
    config.data.train = "scenes"
    config.data.vocab_size = 512
    config.data.tokenizer_samples = 2000
    config.data.image.size = 72
    config.data.scenes.objects = (2, 4)
    config.data.scenes.varied = True
    config.data.captions.target = "varied"
    config.model.embed_dim = 64
    config.model.image.update({"patch": 12, "width": 128, "layers": 4, "heads": 4, "pool": "mean"})
    config.model.text.update({"width": 128, "layers": 2, "heads": 4, "length": 48})
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4, "length": 36})
    config.model.decoder.control.length = 24
    config.objectives.clip.weight = 0.0
    config.objectives.caption.update({"weight": 1.0, "null_rate": 0.5})
    config.optimizer.update({"lr": 1e-3, "warmup_steps": 100, "weight_decay": 0.01})
    config.optimizer.frozen = ("image_tower", "text_tower", "image_embed", "text_embed", "image_token", "text_token")
    config.checkpoint.every = 600
    return shrink(config) if form == "smoke" else config
