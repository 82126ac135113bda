"""Every setting with its default, and the checks that stop a bad config before anything is compiled.

A config file is a Python file with `get_config()`; it starts from `default_config()` and changes what its experiment
needs. `get_config("smoke")` shrinks the same experiment to seconds.
"""

import math
from typing import Any

from ml_collections import ConfigDict

from vlc.errors import ConfigError, did_you_mean

# A ConfigDict. A type checker cannot know what it holds, and takes every value for all types at once.
Config = Any


def default_config() -> Config:
    """All settings. The config is locked: setting a key that does not exist is an error that names the nearest one."""
    config: Config = ConfigDict()
    config.seed = 0
    config.steps = 1000
    config.batch_size = 128  # global
    config.accumulate = 1  # parts that a batch is encoded in; the loss and its gradient are those of the whole batch
    config.mesh = ConfigDict(  # dcn=0: the slices of the pod; -1: all devices that are left
        {"dcn": 0, "data": -1, "fsdp": 1, "tensor": 1}
    )
    config.log_every = 10
    config.init = ""  # a model to start from: its towers, tokenizer and pixels are kept (docs/captioning.md)

    config.data = ConfigDict()
    config.data.train = ""  # "scenes", a folder, shards, a captions file, ...: docs/data.md; several with commas
    config.data.dev = ""  # held-out records for evaluation; "scenes" has a dev split of its own
    config.data.sources = ConfigDict()  # in place of data.train: source by name, for a mixture
    config.data.mixture = ConfigDict()  # weight by name
    config.data.mixture_rule = "weights"  # shares of the draws, or "epochs": how often each record is seen in an epoch
    config.data.columns = ""  # which columns are the image and which captions, "image=file,alt=title"
    config.data.join = ""  # a file with more captions for the same images, by path or URL
    config.data.filters = ()  # steps that leave records out before training, ("align_image", "words(min=3)")
    config.data.threads = 2
    config.data.workers = 0
    config.data.tokenizer = ""  # a SentencePiece model; empty: trained from the captions into the workdir
    config.data.vocab_size = 8192  # of a tokenizer trained here
    config.data.tokenizer_samples = 20_000  # records whose captions it is trained on
    config.data.image = ConfigDict(
        {
            "size": 224,
            "resize": "squash",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "crop_scale": (1.0, 1.0),
            "flip": False,
            "interpolation": "antialiased",  # of random crops; "bilinear" is faster, and aliased
            "resample": "bicubic",  # of whole images: nearest, bilinear, bicubic, lanczos, aliased
            "resize_to": 0,  # the shorter side before the centre is cut, for resize=shortest; 0: size
            "centre": "floor",  # or round, as torchvision
            "full_scale": False,  # decode large JPEGs whole, as other libraries do; slower
            "augment": "",  # "rand" or "rand(ops=2, magnitude=9)" (RandAugment), "auto" (AutoAugment)
        }
    )
    config.data.captions = ConfigDict(
        {
            "mix": "",  # weights of the caption sources, "long*:0.7,short:0.3"; empty: all captions alike
            "mix_end": "",  # weights that the mix moves to; empty: it stays
            "mix_schedule": (0.0, 1.0),  # between which shares of training it moves
            "sub_captions": 0,  # drawn from the sentences of all captions, for multi_positive and grouping
            "sub_sources": "",  # "long,short"; empty: all
            "slots": "",  # the source of each sub-caption, "short,long,long"; empty: one pool
            "first": "main",  # slot 0 is the main caption, or "pool": drawn from the sentences as well
            "split": "sentences",  # or "stops": at every full stop
            "sub_length": 0,  # tokens of a sub-caption; 0: config.model.text.length
            "merge": 1,  # consecutive sentences joined into one sub-caption
            "target": "",  # weights for the captioner's target; empty: the main caption
        }
    )
    config.data.scenes = ConfigDict(
        {
            "seed": 0,
            "objects": (2, 5),
            "overlap_rate": 0.2,
            "alt_generic_rate": 0.5,
            "alt_wrong_rate": 0.2,
            "reference_generic_rate": 0.8,
            "varied": False,  # captions of all lengths as well
        }
    )

    config.model = ConfigDict()
    config.model.embed_dim = 512
    config.model.image = ConfigDict(
        {  # layers=0: no such tower
            "patch": 16,
            "width": 768,
            "layers": 12,
            "heads": 12,
            "mlp_ratio": 4.0,
            "pool": "cls",  # cls, mean, map (SigLIP), queries (CoCa)
            "activation": "gelu_tanh",  # gelu, gelu_tanh, quick_gelu
            "eps": 1e-6,  # of the norms
            "pre_norm": False,  # a norm before the first block (CLIP)
            "patch_bias": True,
            "projection": "linear",  # of the pooled feature to the shared space: linear, bias, none
            "queries": 256,  # of pool=queries
            "pool_heads": 8,
        }
    )
    config.model.text = ConfigDict(
        {  # layers=0: no such tower
            "width": 512,
            "layers": 12,
            "heads": 8,
            "mlp_ratio": 4.0,
            "length": 77,
            "positions": 0,  # rows of the position table, where more than length
            "causal": True,
            "pool": "last",  # last (the end mark), end (the last place, pads included), mean, first, cls (CoCa)
            "activation": "gelu_tanh",
            "eps": 1e-6,
            "post_norm": False,  # norms after each part (BERT), not before
            "projection": "linear",
            "attend_pads": False,  # SigLIP's towers look at pads too
            "pad_row": 0,  # row of the token table that a pad takes
        }
    )
    config.model.decoder = ConfigDict(  # layers=0: no captioner; length=0: config.model.text.length
        {
            "layers": 0,
            "width": 512,
            "heads": 8,
            "mlp_ratio": 4.0,
            "length": 0,
            "memory": "tokens",
            "queries": 32,  # of memory=pooled
            "activation": "gelu_tanh",
            "eps": 1e-6,
            "reads": "ids",  # of the words so far: their ids, or what the text tower makes of them (CoCa)
            "parallel": 0.0,  # share of captions that are predicted without their words (CapPa: 0.75)
            "control": ConfigDict(  # what a caption can be asked to be; docs/captioning.md
                {
                    "length": 0,  # words, up to so many
                    "alignment": 0,  # bins of the similarity of image and caption
                    "edges": (),  # between the bins; empty: from the training data's scores
                    "best": 0,  # the bin that alignment=best asks for; 0: from those scores, or the highest
                    "sources": "",  # caption sources that are told apart, "alt,short,long*"
                }
            ),
        }
    )
    config.model.token_head = "own"  # the projection of tokens, or "pooled": that of the pooled features
    config.model.init_logit_scale = 1 / 0.07
    config.model.init_logit_bias = -10.0
    config.model.max_logit_scale = 100.0  # 0: no bound
    config.model.dtype = "auto"  # of computation: float32 on CPU, bfloat16 on accelerators; parameters are float32
    config.model.scan = "auto"  # layers as a loop: yes on accelerators, unrolled on CPU
    config.model.remat = "none"  # none, full, dots

    config.objectives = ConfigDict(  # exchange, over several devices: gather, or ring, whose memory stays flat
        {
            "clip": ConfigDict({"weight": 1.0, "label_smoothing": 0.0, "reduction": "mean", "exchange": "gather"}),
            "siglip": ConfigDict({"weight": 0.0, "exchange": "gather"}),
            "filip": ConfigDict(
                {
                    "weight": 0.0,
                    "implementation": "auto",
                    "dtype": "auto",  # of the tokens that are compared, as model.dtype
                    "smoothing": 0.0,  # temperature of soft maxima; 0: maxima
                    "exchange": "gather",
                    "keep_tokens": 1.0,  # share of tokens that take part; FILIP keeps 0.25
                    "buckets": (),  # widths that captions of similar length are cut to, e.g. (16, 32, 48); exact
                }
            ),
            "multi_positive": ConfigDict({"weight": 0.0, "negatives": "slot"}),
            "grouping": ConfigDict({"weight": 0.0, "threshold": -1.0, "negatives": "image"}),  # -1: 1/P
            "caption": ConfigDict(
                {
                    "weight": 0.0,
                    "average": "token",
                    "null_rate": 0.1,  # share of images that are hidden from the captioner, for guidance
                    "control_dropout": 0.1,  # share of controls that are left unsaid
                }
            ),
        }
    )

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # or lamb
    config.optimizer.lr = 1e-3  # the peak
    config.optimizer.schedule = "cosine"  # or linear, constant
    config.optimizer.warmup_steps = 100
    config.optimizer.weight_decay = 0.1  # of matrices; never of biases, norms, embeddings, positions or temperatures
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.98
    config.optimizer.eps = 1e-6
    config.optimizer.moment_dtype = "float32"  # of the first moment; bfloat16 halves it
    config.optimizer.clip_norm = 1.0  # 0: none
    config.optimizer.frozen = ()  # parameters that stay as they are, ("image_tower", "text_tower"): docs/captioning.md
    config.optimizer.ema = 0.0  # decay of the moving average of the parameters; 0: none

    config.checkpoint = ConfigDict({"every": 500, "keep_last": 2, "keep_best": 1})
    config.eval = ConfigDict({"every": 500, "examples": 256})  # on dev data, during training
    config.lock()
    for free in FREE_KEYS:  # holds names that the user chooses
        get_key(config, free).unlock()
    return config


FREE_KEYS = ("data.sources", "data.mixture")


def shrink(config: Config) -> Config:
    """The same experiment in seconds: two steps of a tiny model on scenes, for `FILE.py:smoke` and the tests.

    Objectives, optimizer, poolings and the captioner's memory stay; sizes, data and batch shrink.
    """
    config.steps, config.batch_size, config.log_every, config.init = 2, 8, 1, ""
    config.data.train, config.data.dev, config.data.tokenizer = "scenes", "", ""
    config.data.sources, config.data.mixture, config.data.join, config.data.filters = ConfigDict(), ConfigDict(), "", ()
    config.data.vocab_size, config.data.tokenizer_samples, config.data.workers = 256, 300, 0
    config.data.image.size = 32
    config.data.captions.update({"mix": "long", "mix_end": "", "target": "", "sub_sources": "", "slots": ""})
    config.data.captions.sub_length = config.model.decoder.length = 0
    config.data.captions.sub_captions = min(config.data.captions.sub_captions, 3)
    config.model.embed_dim = 32
    config.model.image.update({"patch": 8, "width": 32, "layers": 1, "heads": 2})
    config.model.text.update({"width": 32, "layers": 1, "heads": 2, "length": 48})
    if config.model.decoder.layers:
        config.model.decoder.update({"width": 32, "layers": 1, "heads": 2, "queries": 4})
        config.model.decoder.control.update({"alignment": 0, "edges": (), "best": 0})  # scenes have no scores
    config.optimizer.warmup_steps = 1
    config.checkpoint.every = config.eval.every = 2
    config.eval.examples = 16
    return config


def parse_weights(text: str, key: str) -> dict[str, float]:
    """Reads `"long:0.7,short:0.3"`; a bare name has weight 1.

    Raises:
        ConfigError: A weight is no positive number.
    """
    weights = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition(":")
        try:
            weights[name.strip()] = float(number or 1)
        except ValueError:
            raise ConfigError(
                f'config.{key} is "{text}": "{number}" is not a number. Write "long:0.7,short:0.3".'
            ) from None
        if weights[name.strip()] <= 0:
            raise ConfigError(f'config.{key} is "{text}": weights must be positive; leave out what is not wanted.')
    return weights


def check_config(config: Config) -> None:
    """Checks what can be checked without looking at data or devices.

    Raises:
        ConfigError: Names the key, its value, and what it should be.
    """
    _check_choices(config)
    _check_positive(config)
    _check_model(config)
    _check_captioner(config)
    weights = {name: config.objectives[name].weight for name in config.objectives}
    if not any(weights.values()):
        raise ConfigError(f"No objective has weight. Set one of config.objectives.{{{','.join(weights)}}}.weight.")
    if weights["caption"] and not config.model.decoder.layers:
        raise ConfigError("config.objectives.caption has weight, but config.model.decoder.layers is 0: no captioner.")
    if (weights["multi_positive"] or weights["grouping"]) and not config.data.captions.sub_captions:
        raise ConfigError(
            "config.objectives.multi_positive and .grouping need several captions an image: set "
            "config.data.captions.sub_captions."
        )
    if config.batch_size % config.accumulate:
        raise ConfigError(
            f"config.accumulate={config.accumulate} does not divide config.batch_size={config.batch_size}."
        )
    for key in ("mix", "mix_end", "target"):
        parse_weights(config.data.captions[key], f"data.captions.{key}")


_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")
_PROJECTIONS = ("linear", "bias", "none")
_CHOICES = {
    "optimizer.name": ("adamw", "lamb"),
    "optimizer.moment_dtype": ("float32", "bfloat16"),
    "optimizer.schedule": ("cosine", "linear", "constant"),
    "model.image.pool": ("cls", "mean", "map", "queries"),
    "model.image.activation": _ACTIVATIONS,
    "model.image.projection": _PROJECTIONS,
    "model.text.pool": ("last", "end", "mean", "first", "cls"),
    "model.text.activation": _ACTIVATIONS,
    "model.text.projection": _PROJECTIONS,
    "model.token_head": ("own", "pooled"),
    "model.decoder.activation": _ACTIVATIONS,
    "model.decoder.reads": ("ids", "text"),
    "model.decoder.memory": ("tokens", "pooled", "embedding"),
    "model.dtype": ("auto", "float32", "bfloat16"),
    "model.remat": ("none", "full", "dots"),
    "model.scan": ("auto", True, False),
    "data.image.resize": ("squash", "crop", "pad"),
    "objectives.clip.reduction": ("mean", "sum"),
    "objectives.clip.exchange": ("gather", "ring"),
    "objectives.siglip.exchange": ("gather", "ring"),
    "objectives.filip.exchange": ("gather", "ring"),
    "objectives.filip.dtype": ("auto", "float32", "bfloat16"),
    "objectives.filip.implementation": ("auto", "xla", "pallas_tpu", "pallas_gpu", "reference"),
    "objectives.multi_positive.negatives": ("slot", "all"),
    "objectives.grouping.negatives": ("image", "batch"),
    "objectives.caption.average": ("token", "example"),
}


def get_key(config: Config, key: str) -> Any:
    """The value at a dotted key."""
    for part in key.split("."):
        config = config[part]
    return config


def _check_choices(config: Config) -> None:
    for key, choices in _CHOICES.items():
        value = get_key(config, key)
        if value not in choices:
            hint = did_you_mean(str(value), map(str, choices))
            raise ConfigError(f'config.{key} is "{value}", which is not known.{hint}')


def _check_positive(config: Config) -> None:
    for key in ("steps", "batch_size", "accumulate", "log_every", "data.image.size", "model.image.patch",
                "model.embed_dim", "checkpoint.every", "checkpoint.keep_last", "eval.every"):  # fmt: skip
        value = get_key(config, key)
        if not (isinstance(value, int) and value > 0):
            raise ConfigError(f"config.{key} is {value!r}; it must be a whole number above 0.")
    keep = config.objectives.filip.keep_tokens
    if not 0 < keep <= 1:
        raise ConfigError(f"config.objectives.filip.keep_tokens is {keep}; it is a share, above 0 and at most 1.")
    if not (math.isfinite(config.optimizer.lr) and config.optimizer.lr >= 0):
        raise ConfigError(f"config.optimizer.lr is {config.optimizer.lr}; it must be a finite number, 0 or more.")


def _check_captioner(config: Config) -> None:
    decoder, caption = config.model.decoder, config.objectives.caption
    rates = {
        "model.decoder.parallel": decoder.parallel,
        "objectives.caption.null_rate": caption.null_rate,
        "objectives.caption.control_dropout": caption.control_dropout,
    }
    for key, rate in rates.items():
        if not 0 <= rate <= 1:
            raise ConfigError(f"config.{key} is {rate}; it is a share, from 0 to 1.")
    control = decoder.control
    for key in ("length", "alignment"):
        if not (isinstance(control[key], int) and control[key] >= 0):
            raise ConfigError(f"config.model.decoder.control.{key} is {control[key]!r}; it must be a whole number.")
    if control.edges and len(control.edges) != control.alignment - 1:
        raise ConfigError(
            f"config.model.decoder.control.edges has {len(control.edges)} edges; {control.alignment} bins have "
            f"{control.alignment - 1} between them."
        )
    if not 0 <= control.best <= control.alignment:
        raise ConfigError(f"config.model.decoder.control.best is {control.best}; bins are 1 to {control.alignment}.")
    if decoder.reads == "text" and (decoder.parallel or control.length or control.alignment or control.sources):
        raise ConfigError(
            'config.model.decoder.reads="text" (CoCa) has neither control nor parallel prediction: set reads="ids".'
        )


def _check_model(config: Config) -> None:
    size, patch = config.data.image.size, config.model.image.patch
    if size % patch:
        raise ConfigError(
            f"config.model.image.patch={patch} does not divide config.data.image.size={size}. "
            f"Nearest sizes: {size // patch * patch} and {(size // patch + 1) * patch}."
        )
    for name in ("image", "text", "decoder"):
        tower = config.model[name]
        if tower.width % tower.heads:
            raise ConfigError(f"config.model.{name}.heads={tower.heads} does not divide its width={tower.width}.")
    for name in ("image", "text"):
        if not config.model[name].layers:
            raise ConfigError(f"config.model.{name}.layers is 0: a model without that tower can be used, not trained.")
    if config.model.decoder.layers and config.model.decoder.reads == "text":
        _check_reading_decoder(config.model)


def _check_reading_decoder(model: Config) -> None:
    """A decoder that reads the text tower's features takes them, and the image's, as they are."""
    memory = model.embed_dim if model.image.pool == "queries" else model.image.width
    if not (model.decoder.width == model.text.width == memory and model.decoder.heads == model.text.heads):
        have = f"{model.decoder.width} and {model.decoder.heads}, the text tower {model.text.width}"
        raise ConfigError(
            "config.model.decoder.reads=text needs one width and as many heads everywhere: the decoder has "
            f"{have} and {model.text.heads}, image tokens {memory}."
        )
    if not model.text.causal or model.text.post_norm:
        raise ConfigError("config.model.decoder.reads=text needs a causal text tower with norms before each part.")


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
