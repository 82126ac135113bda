"""The config of a run: its defaults, its checks, config files, and what may change when a run is resumed.

A config file is a Python file with `get_config()`; it starts from `default_config()` and changes what its experiment
needs. `get_config("smoke")` shrinks the same experiment to seconds.
"""

from typing import Any

from ml_collections import ConfigDict

from vlc.config.checks import check_config, config_warnings, has_average, parse_steps, parse_weights
from vlc.config.sections import SCHEDULE_FREE, Settings
from vlc.config.values import Config, get_key
from vlc.errors import ConfigError
from vlc.settings import make_config, sections

__all__ = [
    "FREE_KEYS", "SCHEDULE_FREE", "Config", "check_config", "config_from_json", "config_warnings", "default_config",
    "get_key", "has_average", "parse_steps", "parse_weights", "resolve_auto", "shrink",
]  # fmt: skip

FREE_KEYS = tuple(key for key, section in sections(Settings) if section.free)  # whose names the user chooses


def default_config() -> Config:
    """All settings. The config is locked: setting a key that does not exist is an error that names the nearest one."""
    config: Config = make_config(Settings)
    config.lock()
    for key in FREE_KEYS:
        get_key(config, key).unlock()
    return config


def shrink(config: Config) -> Config:
    """The same experiment in seconds: two steps of a tiny model on scenes, for `FILE.py:smoke` and the tests.

    Objectives, optimizer, poolings and the captioner's memory stay; sizes, data and batch shrink.
    """
    config.steps, config.batch_size, config.log_every, config.init = 2, 8, 1, ""
    config.data.train, config.data.dev, config.data.tokenizer = "scenes", "", ""
    config.data.sources, config.data.mixture, config.data.join, config.data.filters = ConfigDict(), ConfigDict(), "", ()
    config.data.vocab_size, config.data.tokenizer_samples, config.data.workers = 256, 300, 0
    config.data.image.size, config.data.scenes.first_share = 32, 0.0
    config.data.first_size = config.data.first_length = 0
    config.data.captions.update({"mix": "", "mix_end": "", "target": "", "sub_sources": "", "slots": ""})
    config.data.captions.preferred = ""
    config.data.captions.sub_length = config.model.decoder.length = 0
    config.data.captions.sub_captions = min(config.data.captions.sub_captions, 3)
    config.model.embed_dim = 32
    config.model.image.update({"patch": 8, "width": 32, "layers": 1, "heads": 2})
    config.model.text.update({"width": 32, "layers": 1, "heads": 2, "length": 48})
    config.model.image.prototypes = min(config.model.image.prototypes, 16)
    config.objectives.local_global.size = 0
    if config.model.decoder.layers:
        config.model.decoder.update({"width": 32, "layers": 1, "heads": 2, "queries": 4})
        config.model.decoder.control.update({"alignment": 0, "edges": (), "best": 0})  # scenes have no scores
    config.optimizer.warmup_steps = 1
    config.checkpoint.every = config.eval.every = 2
    config.eval.examples = 16
    return config


def resolve_auto(config: Config, platform: str) -> Config:
    """A copy in which `auto` is what suits the platform (`cpu`, `gpu`, `tpu`)."""
    config = config.copy_and_resolve_references()
    cpu = platform == "cpu"
    for part in (config.model, config.objectives.filip):
        if part.dtype == "auto":
            part.dtype = "float32" if cpu else "bfloat16"
    if config.model.scan == "auto":
        with config.ignore_type():
            config.model.scan = not cpu
    return config


def config_from_json(saved: dict[str, Any]) -> Config:
    """A saved config laid over today's defaults, so that keys added since have their default."""
    config = default_config()

    def lay(target: Config, values: dict[str, Any], where: str) -> None:
        for key, value in values.items():
            if where.removeprefix("config.").rstrip(".") in FREE_KEYS:
                target[key] = value
                continue
            if key not in target:
                raise ConfigError(f"The saved config has {where}{key}, which this version does not know.")
            if isinstance(value, dict):
                lay(target[key], value, f"{where}{key}.")
            else:
                with target.ignore_type():
                    target[key] = tuple(value) if isinstance(value, list) else value

    lay(config, saved, "config.")
    return config
