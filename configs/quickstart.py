"""A fine-grained model with captions on generated scenes, in minutes on a laptop CPU.

    vlc train --config configs/quickstart.py --workdir runs/quickstart

Towers of width 128 see 72-pixel scenes of two or three objects. Three objectives share one encoding of the batch:
CLIP's loss on pooled embeddings, FILIP's on tokens (arXiv 2111.07783), and a caption decoder whose targets are mostly
generic, so that classifier-free guidance (arXiv 2307.16686) has something to show. The measured numbers are in
docs/quickstart.md.
"""

from vlc.config import Config, default_config, shrink


def get_config(form: str = "") -> Config:
    config = default_config()
    config.steps = 320
    config.batch_size = 64
    config.log_every = 10

    config.data.train = "scenes"
    config.data.vocab_size = 512
    config.data.tokenizer_samples = 2000
    config.data.image.size = 72
    config.data.scenes.objects = (2, 3)
    config.data.scenes.reference_generic_rate = 0.6
    config.data.captions.mix = "long"
    config.data.captions.target = "reference"

    config.model.embed_dim = 64
    config.model.image.update({"patch": 12, "width": 128, "layers": 4, "heads": 4, "pool": "mean"})
    config.model.text.update({"width": 128, "layers": 2, "heads": 4, "length": 48})
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4, "length": 24})

    config.objectives.filip.weight = 1.0
    config.objectives.caption.weight = 1.0
    config.objectives.caption.null_rate = 0.2

    config.optimizer.lr = 1e-3
    config.optimizer.warmup_steps = 50
    config.checkpoint.every = 160
    config.eval.every = 320
    return shrink(config) if form == "smoke" else config
