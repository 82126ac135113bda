"""Your own images and captions, from a folder, on one machine.

    vlc train --config configs/own_images.py --config.data.train=PATH --workdir runs/mine

PATH is a folder with `captions.jsonl` or `captions.csv`, or WebDataset shards; see docs/data.md. With
`--config.data.dev=PATH` the model is scored on held-out images during training and by `vlc eval`.
A small model trained from nothing on a few thousand images learns their broad themes, not fine detail.
"""

from vlc.config import Config, default_config, shrink


def get_config(form: str = "") -> Config:
    config = default_config()
    config.steps = 1000
    config.batch_size = 64
    config.data.vocab_size = 4096
    config.data.image.size = 96
    config.data.image.crop_scale = (0.5, 1.0)
    config.model.embed_dim = 128
    config.model.image.update({"patch": 12, "width": 192, "layers": 2, "heads": 6, "pool": "map"})
    config.model.image.update({"stem": "conv", "positions": "sines"})
    config.model.text.update({"width": 192, "layers": 3, "heads": 6, "length": 32})
    config.model.decoder.update({"layers": 2, "width": 192, "heads": 6})
    config.objectives.filip.update({"weight": 1.0, "scores": "text", "smoothing": 0.05})
    config.objectives.caption.weight = 1.0
    config.optimizer.update({"name": "muon", "lr": 3e-3})
    config.optimizer.warmup_steps = 100
    config.checkpoint.every = 200
    config.eval.every = 200
    return shrink(config) if form == "smoke" else config
