"""A small model on Flickr8k (Hodosh et al. 2013; photographs for research use only), on a CPU.

    vlc train --config configs/flickr8k.py --config.data.train='PATH/flickr8k-train-*.tar' \
        --config.data.dev='PATH/flickr8k-dev-*.tar' --workdir runs/flickr8k

Six thousand photographs with five captions each are far too few to learn from nothing what web-scale models know; the
aim is recall well above chance in under twenty CPU minutes. Each visit trains on two of an image's captions
(multi-positive loss of DreamLIP, arXiv 2403.17007), with FILIP's token loss and a captioner beside; for the first half
images are smaller, so that there are more steps, and the moving average is what is evaluated. Measured:
docs/flickr8k.md.
"""

from vlc.config import Config, default_config, shrink


def get_config(form: str = "") -> Config:
    config = default_config()
    config.steps = 760
    config.batch_size = 128
    config.data.vocab_size = 4096
    config.data.image.size = 96
    config.data.image.crop_scale = (0.4, 1.0)
    config.data.update({"first_size": 64, "first_share": 0.5})
    config.data.image.flip = True
    config.data.captions.sub_captions = 1
    config.model.embed_dim = 128
    config.model.image.update({"patch": 16, "width": 192, "layers": 2, "heads": 6, "pool": "map"})
    config.model.image.update({"stem": "conv", "positions": "sines"})
    config.model.text.update({"width": 192, "layers": 2, "heads": 6, "length": 24})
    config.model.decoder.update({"layers": 1, "width": 192, "heads": 6})
    config.objectives.clip.weight = 0.0
    config.objectives.multi_positive.weight = 1.0
    config.objectives.filip.update({"weight": 0.5, "scores": "text", "smoothing": 0.05})
    config.objectives.caption.weight = 0.5
    config.optimizer.update({"name": "muon", "lr": 3e-3})
    config.optimizer.weight_decay = 0.5
    config.optimizer.warmup_steps = 60
    config.optimizer.ema = 0.98
    config.checkpoint.every = 150
    config.eval.every = 300
    config.eval.examples = 1000
    return shrink(config) if form == "smoke" else config
