"""The checks that stop a bad config before anything is compiled."""

import math

from vlc.config.sections import SCHEDULE_FREE, Settings
from vlc.config.values import Config, get_key
from vlc.data.attributes import Attributes
from vlc.errors import ConfigError
from vlc.objectives import parts_used, weighted
from vlc.settings import walk
from vlc.track import check_trackers


def check_config(config: Config) -> None:
    """Checks what can be checked without looking at data or devices.

    Raises:
        ConfigError: Names the key, its value, and what it should be.
    """
    for key, setting in walk(Settings):
        setting.check(key, get_key(config, key))
    _check_model(config)
    _check_captioner(config)
    _check_objectives(config)
    _check_teachers(config)
    _check_regions(config)
    _check_optimizer(config)
    _check_reward(config)
    if config.batch_size % config.accumulate:
        raise ConfigError(
            f"config.accumulate={config.accumulate} does not divide config.batch_size={config.batch_size}."
        )
    _check_copies(config.checkpoint)
    parse_steps(config.data.bag_sizes, "data.bag_sizes")
    if config.data.bags and config.data.twins:
        raise ConfigError("config.data.bags and .twins both say what stands side by side in a batch: leave one out.")
    if "bag_retrieval" in parse_weights(config.reward.terms, "reward.terms", signed=True) and not config.data.bags:
        raise ConfigError("The reward bag_retrieval needs bags of look-alike images: set config.data.bags.")
    if config.data.twins and config.data.captions.first == "pool":
        raise ConfigError(
            "config.data.twins pairs records by their main captions, and config.data.captions.first=pool has none."
        )
    named = ",".join((config.data.train, *config.data.sources.values())).split(",")
    shows_scenes = "scenes" in map(str.strip, named)
    if shows_scenes and config.data.scenes.first_share and (config.data.filters or config.data.join):
        raise ConfigError(
            "config.data.scenes.first_share changes the scenes during training; filters and joins know those of one "
            "kind only."
        )
    check_trackers(config.track)
    for key in ("mix", "mix_end", "target"):
        parse_weights(config.data.captions[key], f"data.captions.{key}")


def config_warnings(config: Config) -> list[str]:
    """What is allowed but seldom meant."""
    found = []
    warmup, steps = config.optimizer.warmup_steps, config.steps
    if warmup > steps:
        found.append(
            f"config.optimizer.warmup_steps={warmup} is more than config.steps={steps}: the warm-up is cut to the run, "
            "which ends at the peak learning rate without any decay."
        )
    if config.model.lora.rank and not config.init:
        found.append(
            "config.model.lora.rank is set without config.init: LoRA lies beside weights that are random and stay so."
        )
    return found


def parse_weights(text: str, key: str, *, signed: bool = False) -> dict[str, float]:
    """Reads `"long:0.7,short:0.3"`; a bare name has weight 1.

    Raises:
        ConfigError: A weight is no positive number, or, where they are `signed`, 0 or not finite.
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
        least = -math.inf if signed else 0
        if not (least < weights[name.strip()] < math.inf and weights[name.strip()]):
            what = "finite and not 0" if signed else "positive"
            raise ConfigError(f'config.{key} is "{text}": weights must be {what}; leave out what is not wanted.')
    return weights


def parse_steps(text: str, key: str) -> dict[int, int]:
    """Reads `"0:3,500:5"`, a number by the step from which on it counts.

    Raises:
        ConfigError: A part is not two whole numbers.
    """
    try:
        parts = [part.split(":") for part in text.split(",") if part.strip()]
        return {int(step): int(number) for step, number in parts}
    except ValueError:
        raise ConfigError(f'config.{key} is "{text}"; write steps and numbers, as in "0:3,500:5".') from None


def _check_objectives(config: Config) -> None:
    used = parts_used(config.objectives)
    if not used:
        raise ConfigError(
            f"No objective has weight. Set one of config.objectives.{{{','.join(config.objectives)}}}.weight."
        )
    if "caption" in used and not config.model.decoder.layers:
        raise ConfigError("config.objectives.caption has weight, but config.model.decoder.layers is 0: no captioner.")
    if "hard_texts" in used and not config.data.captions.negatives:
        raise ConfigError(
            "config.objectives.hard_clip, .hard_filip, .hard_margin and .hard_texts of the others need wrong texts of "
            "each caption: set config.data.captions.negatives to their number."
        )
    clip, filip = config.objectives.clip, config.objectives.filip
    hard = config.objectives.hard_filip
    if filip.weight and hard.weight and filip.scores != hard.scores:
        raise ConfigError(
            f'config.objectives.filip.scores is "{filip.scores}", and that of hard_filip "{hard.scores}": a model '
            "compares tokens in one way; set both alike."
        )
    if clip.weight and clip.hard_texts and clip.label_smoothing:
        raise ConfigError("config.objectives.clip.hard_texts does not go with label_smoothing: leave one of them out.")
    if filip.weight and filip.hard_texts and filip.keep_tokens < 1:
        raise ConfigError("config.objectives.filip.hard_texts does not go with keep_tokens below 1.")
    if "grammar" in used and not config.model.text.grammar:
        raise ConfigError("config.objectives.grammar trains a head: set config.model.text.grammar=True.")
    if "sub_captions" in used and not config.data.captions.sub_captions:
        raise ConfigError(
            "config.objectives.multi_positive and .grouping need several captions an image: set "
            "config.data.captions.sub_captions."
        )


def _check_regions(config: Config) -> None:
    """Of objectives that look at parts of pictures."""
    used, model = parts_used(config.objectives), config.model
    wanted = used & {"regions", "region_texts", "region_captions", "attributes"}
    control = model.decoder.control
    if (wanted or config.data.regions.crop) and not config.data.regions.count:
        raise ConfigError(
            "config.objectives.region, .region_boxes, .region_caption and .attribute_mil and config.data.regions.crop "
            "need regions: set config.data.regions.count to the most of an image."
        )
    if (wanted or model.regions.queries) and model.image.pool == "queries":
        raise ConfigError("config.model.image.pool=queries (CoCa) has no patches, so no regions: use another pool.")
    if model.image.mask_prompt and not (config.data.regions.crop and config.data.regions.count):
        raise ConfigError(
            "config.model.image.mask_prompt is trained on crops of regions: set config.data.regions.crop=True and "
            ".count=1."
        )
    if model.image.mask_prompt and (
        config.data.image.resize == "naflex"
        or model.image.drop_patches
        or config.data.first_size
        or model.image.mask_prompt > model.image.layers
    ):
        raise ConfigError(
            "config.model.image.mask_prompt is for whole squares of one size (neither resize=naflex, drop_patches nor "
            "data.first_size), and at most as many blocks as model.image.layers."
        )
    if "region_hard" in used and not config.data.regions.negatives:
        raise ConfigError(
            "config.objectives.region_hard needs wrong texts of each region: set config.data.regions.negatives to "
            "their number."
        )
    if "classes" in used and not config.data.captions.class_source:
        raise ConfigError(
            "config.objectives.same_class needs the classes of images: set config.data.captions.class_source to the "
            "caption source whose text is the class."
        )
    if "queries" in used and not model.regions.queries:
        raise ConfigError("config.objectives.region_boxes needs queries: set config.model.regions.queries.")
    if wanted & {"regions", "region_captions", "attributes"} and model.image.drop_patches:
        raise ConfigError("config.model.image.drop_patches leaves out patches that regions are made of; set it to 0.")
    if "attributes" in used:
        named = len(Attributes.parse(config.data.regions.attributes))
        if not named or named != model.regions.attributes:
            raise ConfigError(
                f"config.objectives.attribute_mil needs config.data.regions.attributes, a vector for each ({named} are "
                f"named, config.model.regions.attributes is {model.regions.attributes})."
            )
    if "region_captions" in used and not (model.decoder.layers and (control.box or control.mask)):
        raise ConfigError(
            "config.objectives.region_caption needs a captioner that is told the region: set "
            "config.model.decoder.layers and config.model.decoder.control.box or .mask."
        )
    longest = model.decoder.length or model.text.length
    if "region_captions" in used and config.data.regions.length > longest:
        raise ConfigError(
            f"config.data.regions.length={config.data.regions.length} is more than the captioner writes, {longest}."
        )
    if config.objectives.region_caption.points and (not control.box or config.data.image.resize == "naflex"):
        raise ConfigError(
            "config.objectives.region_caption.points needs config.model.decoder.control.box, and square pictures (not "
            "resize=naflex)."
        )
    if "cycle" in used and not model.decoder.localiser:
        raise ConfigError(
            "config.objectives.cycle looks words up in the image: set config.model.decoder.localiser=True."
        )
    if model.decoder.localiser and (model.decoder.memory == "embedding" or model.decoder.reads == "text"):
        raise ConfigError(
            "config.model.decoder.localiser finds words among patches: it needs decoder.memory=tokens or pooled, and "
            'decoder.reads="ids".'
        )
    places, captions = model.decoder.places, config.data.captions
    if places and places != captions.places:
        raise ConfigError(
            f"config.model.decoder.places={places} shares positions with the words of config.data.captions.places="
            f"{captions.places}: set both alike."
        )
    if captions.places and captions.place_share and not (config.data.regions.count and "caption" in used):
        raise ConfigError(
            "config.data.captions.places are of regions, for the captioner: set config.data.regions.count and "
            "config.objectives.caption.weight."
        )
    if captions.places > 100 or (captions.places and model.decoder.reads == "text"):
        raise ConfigError('config.data.captions.places is at most 100, and does not go with decoder.reads="text".')
    if control.mask and model.decoder.memory != "tokens":
        raise ConfigError(
            "config.model.decoder.control.mask marks patches: it needs config.model.decoder.memory=tokens."
        )
    if (control.box or control.mask) and model.decoder.reads == "text":
        raise ConfigError('config.model.decoder.reads="text" (CoCa) captions no regions: set reads="ids".')
    if model.regions.width % model.regions.heads:
        raise ConfigError(
            f"config.model.regions.heads={model.regions.heads} does not divide its width={model.regions.width}."
        )


def _check_teachers(config: Config) -> None:
    """Of objectives that learn from another model, or from the moving average."""
    used, objectives = parts_used(config.objectives), config.objectives
    own = {"crops": "local_global", "hidden": "masked"}
    views = [name for part, name in own.items() if part in used]
    averaged = views + (["distill"] if "teacher" in used and not objectives.distill.teacher else [])
    if averaged and not has_average(config.optimizer):
        raise ConfigError(
            f"config.objectives.{averaged[0]} learns from the moving average of the parameters: set "
            "config.optimizer.ema, as 0.996."
        )
    if views and not config.model.image.prototypes:
        raise ConfigError(
            f"config.objectives.{views[0]} chooses among prototypes: set config.model.image.prototypes, as 4096."
        )
    if views and (config.data.image.resize == "naflex" or config.model.image.pool == "queries"):
        raise ConfigError(
            f"config.objectives.{views[0]} needs square images, all of whose patches are features: neither "
            "data.image.resize=naflex nor model.image.pool=queries."
        )
    local = objectives.local_global
    if local.weight and local.size % config.model.image.patch:
        raise ConfigError(
            f"config.model.image.patch={config.model.image.patch} does not divide "
            f"config.objectives.local_global.size={local.size}."
        )


def has_average(optimizer: Config) -> bool:
    """Whether the state holds averaged parameters, which are evaluated: a moving average, or that of schedule-free."""
    return bool(optimizer.ema) or optimizer.name == SCHEDULE_FREE


def _check_reward(config: Config) -> None:
    policy, reward, decoder = config.objectives.policy, config.reward, config.model.decoder
    wanted = [objective.name for objective in weighted(config.objectives) if "written" in objective.uses]
    if not wanted:
        if config.data.captions.preferred:
            raise ConfigError(
                "config.data.captions.preferred has pairs of captions for config.objectives.preference and .best_of, "
                "and neither has weight."
            )
        if reward.terms:
            raise ConfigError(
                "config.reward.terms is set, and neither config.objectives.policy nor .preference nor .best_of has "
                "weight: nothing is written."
            )
        return
    named = f"config.objectives.{wanted[0]}"
    if not decoder.layers or decoder.reads == "text":
        raise ConfigError(f'{named} needs a captioner: config.model.decoder.layers, and decoder.reads="ids".')
    if config.data.captions.preferred:
        if "policy" in wanted or reward.terms or reward.updates > 1:
            raise ConfigError(
                "config.data.captions.preferred has pairs of captions in the data, and nothing is written: leave "
                "config.reward.terms, config.reward.updates and config.objectives.policy out."
            )
        return
    if not reward.terms:
        raise ConfigError(f'{named} has weight, and config.reward.terms names no reward: "self_retrieval:1".')
    if reward.samples < 2 and (policy.baseline == "group" or wanted != ["policy"]):
        raise ConfigError(f"{named} compares captions of an image: set config.reward.samples to 2 or more.")
    if config.data.image.resize == "naflex" or config.model.image.drop_patches or config.data.first_size:
        raise ConfigError(
            f"{named} writes captions of whole square pictures of one size: neither resize=naflex, "
            "drop_patches nor data.first_size."
        )
    longest = (decoder.length or config.model.text.length) - 1
    if reward.max_tokens > longest:
        raise ConfigError(f"config.reward.max_tokens={reward.max_tokens} is more than the captioner writes, {longest}.")


def _check_optimizer(config: Config) -> None:
    optimizer = config.optimizer
    if optimizer.name != SCHEDULE_FREE:
        return
    wrong = [
        name for name, there in (
            ("optimizer.schedule other than constant", optimizer.schedule != "constant"),
            ("optimizer.ema", bool(optimizer.ema)),
            ("optimizer.frozen", bool(optimizer.frozen)),
            ("optimizer.trained", bool(optimizer.trained)),
            ("model.lora.rank", bool(config.model.lora.rank)),
            ("optimizer.b1=0", optimizer.b1 == 0),
        ) if there
    ]  # fmt: skip
    if wrong:
        raise ConfigError(
            f"config.optimizer.name=schedule_free does not go with config.{wrong[0]}: it averages all parameters of a "
            "run at a constant rate, with weight b1."
        )


def _check_copies(checkpoint: Config) -> None:
    often = checkpoint.copies_every or checkpoint.copies_every_minutes
    if often and not checkpoint.copies:
        raise ConfigError(
            "config.checkpoint.copies_every and .copies_every_minutes need config.checkpoint.copies, a folder on the "
            "hosts' own disks."
        )
    if "://" in checkpoint.copies:
        raise ConfigError(
            f"config.checkpoint.copies={checkpoint.copies} is in a bucket; copies go to the hosts' own disks, and "
            "checkpoints to --workdir."
        )


def _check_captioner(config: Config) -> None:
    decoder = config.model.decoder
    control = decoder.control
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


def _check_positions(model: Config) -> None:
    for name, parts in (("image", 4), ("text", 2)):
        tower = model[name]
        if tower.rotary and tower.width // tower.heads % parts:
            raise ConfigError(
                f"config.model.{name}.rotary needs heads whose width is a multiple of {parts}; it is "
                f"{tower.width // tower.heads}."
            )
    if model.image.positions == "sines" and (model.image.width % 4 or model.image.width < 8):
        raise ConfigError(
            f"config.model.image.positions=sines needs a width that is a multiple of 4 and at least 8; it is "
            f"{model.image.width}."
        )
    text = model.text
    if text.prompts and (text.pool == "cls" or text.length + text.prompts > text.positions):
        raise ConfigError(
            f"config.model.text.prompts={text.prompts} vectors and length={text.length} tokens need as many positions, "
            f"and a pool other than cls; config.model.text.positions is {text.positions}."
        )
    if text.prompts and model.decoder.layers and model.decoder.reads == "text":
        raise ConfigError("config.model.decoder.reads=text (CoCa) does not go with config.model.text.prompts.")
    if model.text.rotary and model.decoder.layers and model.decoder.reads == "text":
        raise ConfigError("config.model.decoder.reads=text (CoCa) does not go with config.model.text.rotary.")


def _check_model(config: Config) -> None:
    size, patch = config.data.image.size, config.model.image.patch
    if size % patch:
        raise ConfigError(
            f"config.model.image.patch={patch} does not divide config.data.image.size={size}. "
            f"Nearest sizes: {size // patch * patch} and {(size // patch + 1) * patch}."
        )
    _check_sizes(config)
    for name in ("image", "text", "decoder"):
        tower = config.model[name]
        if tower.width % tower.heads:
            raise ConfigError(f"config.model.{name}.heads={tower.heads} does not divide its width={tower.width}.")
    _check_positions(config.model)
    for name in ("image", "text"):
        if not config.model[name].layers:
            raise ConfigError(f"config.model.{name}.layers is 0: a model without that tower can be used, not trained.")
    if config.model.decoder.layers and config.model.decoder.reads == "text":
        _check_reading_decoder(config.model)


def _check_sizes(config: Config) -> None:
    """Of images that are not the one square."""
    data, patch = config.data, config.model.image.patch
    if data.first_size % patch:
        raise ConfigError(f"config.model.image.patch={patch} does not divide config.data.first_size={data.first_size}.")
    if data.first_length > config.model.text.length:
        raise ConfigError(
            f"config.data.first_length={data.first_length} is more than config.model.text.length="
            f"{config.model.text.length}."
        )
    if data.first_length and config.model.text.pool in ("end", "cls"):
        raise ConfigError(
            f"config.data.first_length does not go with config.model.text.pool={config.model.text.pool}, which reads "
            "the place behind the last token, another one then."
        )
    if data.regions.count and data.image.augment:
        raise ConfigError(
            "config.data.image.augment moves pixels, and boxes do not follow; with config.data.regions use crops and "
            "flips."
        )
    if data.image.resize == "naflex":
        if data.image.patch not in (0, patch):
            raise ConfigError(
                f"config.data.image.patch={data.image.patch} is not config.model.image.patch={patch}; leave it at 0."
            )
        if config.model.image.stem != "patch":
            raise ConfigError(
                "config.data.image.resize=naflex gives patches one by one, and convolutions see across them; use "
                "config.model.image.stem=patch."
            )
        if config.data.image.augment:
            raise ConfigError("config.data.image.augment does not go with resize=naflex; crops and flips do.")


def _check_reading_decoder(model: Config) -> None:
    """A decoder that reads the text tower's features takes them, and the image's, as they are."""
    memory = model.embed_dim if model.image.pool == "queries" else model.image.width
    if not (model.decoder.width == model.text.width == memory and model.decoder.heads == model.text.heads):
        have = f"{model.decoder.width} and {model.decoder.heads}, the text tower {model.text.width}"
        raise ConfigError(
            "config.model.decoder.reads=text needs the same width and number of heads everywhere: the decoder has "
            f"{have} and {model.text.heads}, image tokens {memory}."
        )
    if not model.text.causal or model.text.post_norm:
        raise ConfigError("config.model.decoder.reads=text needs a causal text tower with norms before each part.")
