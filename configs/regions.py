"""Regions on generated scenes: which words belong to which part of a picture.

    vlc train --config configs/regions.py --workdir runs/regions
    vlc eval runs/regions --task regions --data scenes

The quickstart's encoder with what regions add: InfoNCE of regions and their texts (RegionCLIP, FG-CLIP; DoCo's within
an image), queries that find them (GRAIN), and captions of them (FlexCap, FINECAPTION). Forms leave parts out, or have
others, for comparison (`configs/regions.py:NAME`):

- `plain` has no regions; `text` the first part, `queries` the second, `captions` the third alone;
- `image` compares regions within each image alone; `hard` has wrong texts of each (FG-CLIP), `classes` takes all texts
  of a class for right (AdaptCLIPZS), `sequence` realigns pictures and texts (Norton); `graph` has a caption graph as
  further positives (GBC);
- `places` finds regions and writes where they are (LocCa), `shared` with words that share the patches' positions
  (LLaVA-ST);
- `whole` is a captioner of whole pictures, `cycle` one whose words are looked up (cyclical training).

`attributes` is stage 1 of ViLLA, which is told where something is and not what; `mapped` stage 2, on the data that it
maps:

    vlc train --config configs/regions.py:attributes --workdir runs/attributes
    vlc map-regions runs/attributes --data scenes --records 8192 --captions long --out data/mapped
    vlc train --config configs/regions.py:mapped --workdir runs/mapped --config.data.train=data/mapped

`prompts` teaches a model that is there what stands for patches outside of a mask (OVSeg), and changes nothing else of
it: `--config.init=runs/regions`, then `vlc eval ... --task regions --crops`.
"""

from vlc.config import Config, default_config, shrink
from vlc.data.sources.scenes.world import COLOURS, SHAPES, SIZES, TEXTURES

_ATTRIBUTES = (*SHAPES, *COLOURS, *SIZES, *TEXTURES)
_LOOKS = "region,brief"  # "large striped red circle", "red circle"


def get_config(form: str = "") -> Config:
    """The config, or one of the forms above, or `smoke`."""
    config = default_config()
    config.batch_size = 64
    config.steps = 480
    config.log_every = 20

    config.data.train = "scenes"
    config.data.vocab_size = 512
    config.data.tokenizer_samples = 2000
    config.data.image.size = 72
    config.data.scenes.update({"objects": (2, 4), "varied": True, "first_objects": (1, 1), "first_share": 0.33})
    config.data.captions.mix = "brief"
    config.data.captions.mix_end = "long:0.7,brief:0.3"
    config.data.captions.mix_schedule = (0.31, 0.35)

    config.model.embed_dim = 64
    config.model.image.update({"patch": 12, "width": 128, "heads": 4, "layers": 2})
    config.model.image.update({"stem": "conv", "positions": "sines", "pool": "map"})
    config.model.text.update({"width": 128, "layers": 2, "heads": 4, "length": 64})

    config.objectives.clip.weight = 1.0
    config.objectives.filip.update({"weight": 1.0, "scores": "text", "smoothing": 0.05})
    config.optimizer.update({"name": "muon", "lr": 4e-3, "warmup_steps": 50})

    for part in _PARTS[form if form != "smoke" else ""]:
        part(config)
    config.checkpoint.every = config.steps // 2
    config.eval.every = config.steps
    return shrink(config) if form == "smoke" else config


def _regions(config: Config) -> None:
    config.data.regions.update({"count": 4, "sources": _LOOKS, "length": 16})


def _text(config: Config) -> None:
    _regions(config)
    config.objectives.region.weight = 1.0


def _image(config: Config) -> None:
    _text(config)
    config.objectives.region.negatives = "image"


def _hard(config: Config) -> None:
    _text(config)
    config.data.regions.negatives = 4
    config.objectives.region_hard.weight = 0.5


def _classes(config: Config) -> None:
    _text(config)
    config.objectives.region_same_class.update({"weight": 0.5, "reduction": "mean"})


def _sequence(config: Config) -> None:
    _text(config)
    config.objectives.sequence.weight = 0.5


def _graph(config: Config) -> None:
    config.data.captions.update(
        {"sub_captions": 4, "sub_sources": "entity/*,relation/*,composition/*", "sub_length": 24}
    )
    config.objectives.clip.weight = 0.0
    config.objectives.multi_positive.update({"weight": 1.0, "negatives": "all", "duplicates": "ignored"})


def _queries(config: Config) -> None:
    _regions(config)
    config.model.regions.update({"queries": 6, "layers": 2, "width": 128, "heads": 4})
    config.objectives.region_boxes.update({"weight": 1.0, "l1": 5.0, "giou": 2.0})


def _captions(config: Config) -> None:
    _regions(config)
    config.data.regions.sources = _LOOKS + ",varied"
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4, "length": 24})
    config.model.decoder.control.update({"box": True, "mask": True, "length": 8})
    config.objectives.region_caption.update({"weight": 1.0, "points": 0.2})
    config.data.captions.target = "short"
    config.objectives.caption.update({"weight": 0.3, "null_rate": 0.2})


def _attributes(config: Config) -> None:
    config.data.regions.update({"count": 4, "attributes": ",".join(_ATTRIBUTES), "length": 16})
    config.data.captions.update({"mix": "long", "mix_end": ""})
    config.model.regions.attributes = len(_ATTRIBUTES)
    config.objectives.attribute_mil.weight = 1.0
    config.steps = 240


def _mapped(config: Config) -> None:
    _text(config)
    config.data.regions.sources = "mapped"
    config.data.scenes.first_share = 0.0
    config.steps = 240


def _prompts(config: Config) -> None:
    config.data.regions.update({"count": 1, "crop": True, "sources": _LOOKS})
    config.data.captions.update({"mix": "", "mix_end": ""})
    config.data.scenes.first_share = 0.0
    config.model.image.mask_prompt = 2
    config.objectives.filip.weight = 0.0
    config.optimizer.update({"name": "adamw", "lr": 0.05, "weight_decay": 0.0, "trained": ("image_tower/prompts",)})
    config.steps = 160


def _places(config: Config) -> None:
    _regions(config)
    config.data.regions.sources = "brief"
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4, "length": 24})
    config.data.captions.update({"target": "short", "places": 24, "place_share": 0.8})
    config.objectives.caption.weight = 1.0


def _shared(config: Config) -> None:
    _places(config)
    config.model.decoder.places = 24


def _whole(config: Config) -> None:
    config.model.decoder.update({"layers": 2, "width": 128, "heads": 4, "length": 24})
    config.data.captions.target = "short"
    config.objectives.caption.weight = 1.0


def _cycle(config: Config) -> None:
    _whole(config)
    config.model.decoder.localiser = True
    config.objectives.caption.weight = 0.5
    config.objectives.cycle.weight = 0.5


_PARTS = {
    "": (_text, _queries, _captions),
    "plain": (),
    "text": (_text,),
    "image": (_image,),
    "hard": (_hard,),
    "classes": (_classes,),
    "sequence": (_sequence,),
    "graph": (_graph,),
    "queries": (_queries,),
    "captions": (_captions,),
    "attributes": (_attributes,),
    "mapped": (_mapped,),
    "prompts": (_prompts,),
    "places": (_text, _queries, _places),
    "shared": (_text, _queries, _shared),
    "whole": (_whole,),
    "cycle": (_cycle,),
}
