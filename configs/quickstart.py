from ml_collections import ConfigDict
from vlc.config import default_config

def get_config(form: str = "") -> ConfigDict:
    config = default_config()
    config.steps = 300
    config.batch_size = 128
    config.data.train = "scenes"
    config.data.vocab_size = 512
    config.data.tokenizer_samples = 2000
    config.data.image.size = 72
    config.data.scenes.objects = (2, 3)
    config.data.captions.mix = "long"
    config.data.captions.target = "long:0.5,reference:0.5"
    config.model.embed_dim = 64
    config.model.image.update({"patch": 12, "width": 128, "layers": 4, "heads": 4, "pool": "mean"})
    config.model.text.update({"width": 128, "layers": 3, "heads": 4, "length": 48, "causal": True, "pool": "last"})
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4})
    config.objectives.filip.weight = 1.0
    config.objectives.caption.weight = 1.0
    config.optimizer.lr = 1e-3
    config.optimizer.warmup_steps = 50
    return config
