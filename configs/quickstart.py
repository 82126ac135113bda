"""A fine-grained model with captions on generated scenes, in minutes on a laptop CPU.

    vlc train --config configs/quickstart.py --workdir runs/quickstart

Towers of width 128 see 72-pixel scenes: for a third of training of one object with brief captions, cut to 16 tokens so
that steps cost less, then of two or three with long ones. In a batch of scenes of several objects their colours tell
them apart, and nothing asks for shapes. Convolutions see the patches and one layer mixes them, so that a patch speaks
of what it shows. Three objectives share one encoding of the batch: CLIP's loss on pooled embeddings, FILIP's on tokens
(arXiv 2111.07783) with ColBERT's MaxSim for both softmaxes and soft maxima, and a caption decoder, some of whose
targets are generic, so that classifier-free guidance (arXiv 2307.16686) has something to show. What each is worth, and
what was measured: docs/quickstart.md.
"""

from vlc.config import Config, default_config, shrink


def get_config(form: str = "") -> Config:
    """`smoke` trains in seconds; `plain` has linear patches, AdamW, both similarities of FILIP, long captions alone;
    `places` takes 1.6 times as long and learns where things stand, by regions and captions that say it wrong."""
    config = default_config()
    config.batch_size = 64
    config.log_every = 10

    config.data.train = "scenes"
    config.data.vocab_size = 512
    config.data.tokenizer_samples = 2000
    config.data.image.size = 72
    config.data.scenes.objects = (2, 3)
    config.data.scenes.reference_generic_rate = 0.6

    config.model.embed_dim = 64
    config.model.image.update({"patch": 12, "width": 128, "heads": 4})
    config.model.text.update({"width": 128, "layers": 2, "heads": 4, "length": 48})
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4, "length": 24})

    config.objectives.filip.weight = 1.0
    config.objectives.caption.weight = 1.0
    config.objectives.caption.null_rate = 0.2
    config.optimizer.warmup_steps = 50

    _plain(config) if form == "plain" else _fine(config)
    if form == "places":
        _places(config)
    config.checkpoint.every = config.steps // 2
    config.eval.every = config.steps
    return shrink(config) if form == "smoke" else config


def _plain(config: Config) -> None:
    config.steps = 320
    config.data.captions.mix = "long"
    config.data.captions.target = "reference"
    config.model.image.update({"layers": 4, "pool": "mean"})
    config.optimizer.lr = 1e-3


def _fine(config: Config) -> None:
    config.steps = 800
    config.data.update({"first_length": 16, "first_share": 0.33})  # brief captions are short
    config.data.scenes.update({"varied": True, "first_objects": (1, 1), "first_share": 0.33})
    config.data.captions.mix = "brief"
    config.data.captions.mix_end = "long:0.7,brief:0.3"
    config.data.captions.mix_schedule = (0.31, 0.35)
    config.data.captions.target = "reference:0.35,short:0.65"
    config.model.image.update({"stem": "conv", "positions": "sines", "layers": 1, "pool": "map"})
    config.objectives.filip.update({"scores": "text", "smoothing": 0.05})
    config.optimizer.update({"name": "muon", "lr": 4e-3})


def _places(config: Config) -> None:
    """A batch is told apart without them; so a caption with them is told from one that has them wrong."""
    config.data.scenes.update({"place_rate": 0.5, "edits": ("swap_place",)})
    config.data.captions.negatives = 1
    config.objectives.hard_filip.update({"weight": 0.5, "scores": "text"})
    config.data.regions.update({"count": 3, "sources": "region,brief", "length": 16})
    config.objectives.region.weight = 1.0
