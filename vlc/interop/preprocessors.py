"""The preprocessing that a folder asks for, in our words."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlc.data.images import Preprocess
from vlc.errors import CheckpointError
from vlc.interop import keys, settings
from vlc.interop.weights import read_json
from vlc.models.presets import CLIP_PIXELS

_FILES = ("preprocessor_config.json", "processor_config.json")
PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_RESAMPLE = (2, 3)  # with the others transformers' classes differ among themselves
_HALF = (0.5, 0.5, 0.5)
_RESIZE = ("shortest", "longest", "squash")
# What a file leaves out has the values of its image processor's class.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "clip": {
        "size": {"shortest_edge": 224}, "do_center_crop": True, "resample": 3,
        "image_mean": CLIP_PIXELS["mean"], "image_std": CLIP_PIXELS["std"],
    },
    "siglip": {
        "size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 3,
        "image_mean": _HALF, "image_std": _HALF,
    },
    "vit": {
        "size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 2,
        "image_mean": _HALF, "image_std": _HALF,
    },
}  # fmt: skip
_NAFLEX = {"patch_size": 16, "max_num_patches": 256, "resample": 2, "image_mean": _HALF, "image_std": _HALF}

# Classes of transformers by the defaults that they have.
_CLASSES = {"CLIP": "clip", "Bit": "clip", "Siglip": "siglip", "ViT": "vit"}


def huggingface(folder: Path, family: str, size: int) -> Preprocess:
    """From `preprocessor_config.json`, or the image processor in `processor_config.json`.

    Args:
        folder: The model's.
        family: `clip` or `siglip`.
        size: Pixels on a side that the image tower takes.

    Raises:
        CheckpointError: There is none, or it does what vlc's preprocessing does not.
    """
    given, where = _read(folder), _where(folder)
    _check(given, keys.IMAGE_PROCESSOR, where)
    full = _defaults(given, family, where) | given
    target, square = _target(full["size"], family, where)
    crop = full.get("do_center_crop")
    final = _crop_side(full.get("crop_size", target), where) if crop else target
    if final != size:
        raise CheckpointError(f"{where} gives images of {final} pixels a side, the model takes {size}.")
    if not square and not crop:
        raise CheckpointError(f"{where} scales the shorter side and does not cut: its images have no fixed size.")
    rule = "squash" if square and target == final else "shortest"
    if square and crop and target != final:
        raise CheckpointError(f"{where} squashes to {target} and then cuts to {final}, which vlc does not.")
    return _make(
        where,
        size=final,
        resize=rule,
        resize_to=target if rule == "shortest" and target != final else 0,
        resample=_filter(full["resample"], where),
        mean=full["image_mean"],
        std=full["image_std"],
        centre="floor",
    )


def naflex(folder: Path, patch: int) -> Preprocess:
    """Of SigLIP 2 of variable resolution: as many patches as `max_num_patches` allows.

    Args:
        folder: The model's.
        patch: Pixels on a side of a patch that the image tower takes.

    Raises:
        CheckpointError: There is none, or it does what vlc's preprocessing does not.
    """
    given, where = _read(folder), _where(folder)
    _check(given, keys.NAFLEX_PROCESSOR, where)
    name = given.get("image_processor_type") or ""
    if not str(name).startswith("Siglip2") and name:
        raise CheckpointError(f"{where} is a {name}; a Siglip2ImageProcessor belongs to this model.")
    full = _NAFLEX | given
    most, theirs = (settings.whole(full, key, where) for key in ("max_num_patches", "patch_size"))
    side = math.isqrt(most)
    if theirs != patch or side**2 != most:
        raise CheckpointError(
            f"{where} cuts patches of {theirs}, at most {most}; the model's are of {patch}, and vlc takes as many as a "
            f"square has, as {side**2} or {(side + 1) ** 2}."
        )
    return _make(
        where, size=side * patch, resize="naflex", patch=patch, resample=_filter(full["resample"], where),
        mean=full["image_mean"], std=full["image_std"],
    )  # fmt: skip


def _where(folder: Path) -> str:
    return f"{folder}: the image processor"


def _check(given: Mapping[str, Any], known: keys.Keys, where: str) -> None:
    """What every image processor must do."""
    known.check(given, where)
    for step in ("do_resize", "do_rescale", "do_normalize"):
        if not given.get(step, True):
            raise CheckpointError(f"{where} has {step}=false; vlc always does it.")
    if abs(given.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-7:
        raise CheckpointError(f"{where} has rescale_factor={given['rescale_factor']}; vlc's is 1/255.")


def _defaults(given: Mapping[str, Any], family: str, where: str) -> dict[str, Any]:
    """What a file leaves out has the values of the class that it names.

    Raises:
        CheckpointError: The class is not known.
    """
    name = given.get("image_processor_type") or given.get("feature_extractor_type") or ""
    kind = str(name).removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    if name and kind not in _CLASSES:
        raise CheckpointError(f"{where} is a {name}; known are those of {', '.join(_CLASSES)}.")
    return _DEFAULTS[_CLASSES[kind] if name else family]


def _read(folder: Path) -> dict[str, Any]:
    for name in _FILES:
        path = folder / name
        if path.is_file():
            found = read_json(path)
            return settings.part(found, "image_processor", str(path)) if name == _FILES[1] else found
    raise CheckpointError(
        f"{folder}: no preprocessing there (looked for {' and '.join(_FILES)}). With another mean, size or resizing "
        "than in training a model gives wrong answers quietly. Put its file there."
    )


def _target(size: Any, family: str, where: str) -> tuple[int, bool]:
    """The side to scale to, and whether both sides are."""
    if isinstance(size, int):
        return size, family == "siglip"
    if isinstance(size, dict) and set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"]), False
    return _crop_side(size, where), True


def _crop_side(size: Any, where: str) -> int:
    if isinstance(size, int):
        return size
    if isinstance(size, dict) and isinstance(size.get("height"), int) and size.get("height") == size.get("width"):
        return size["height"]
    raise CheckpointError(f"{where} has the size {size!r}; vlc's images are square.")


def _filter(resample: Any, where: str) -> str:
    if resample not in _RESAMPLE or isinstance(resample, bool):
        known = ", ".join(f"{number} ({PILLOW[number]})" for number in _RESAMPLE)
        raise CheckpointError(f"{where} has resample={resample!r}; known: {known}.")
    return PILLOW[resample]


def open_clip(given: Mapping[str, Any], size: int, where: str) -> Preprocess:
    """From the `preprocess_cfg` of an `open_clip_config.json`.

    Raises:
        CheckpointError: It is missing, or names what vlc's preprocessing does not do.
    """
    cfg = settings.part(given, "preprocess_cfg", f"{where} (mean and std of the pixels must be known)")
    keys.OPEN_CLIP_PIXELS.check(cfg, f"{where}: preprocess_cfg")
    for key in ("mean", "std"):
        if key not in cfg:
            raise CheckpointError(f"{where}: preprocess_cfg has no {key}.")
    resize, interpolation = cfg.get("resize_mode", "shortest"), cfg.get("interpolation", "bicubic")
    if resize not in _RESIZE or interpolation not in ("bicubic", "bilinear", "random"):
        raise CheckpointError(f"{where}: resize_mode={resize!r} with interpolation={interpolation!r} is not known.")
    if cfg.get("fill_color", 0) != 0:
        raise CheckpointError(f"{where}: fill_color={cfg['fill_color']!r}; vlc fills with black.")
    return _make(
        where,
        size=size,
        resize=resize,
        resample="bilinear" if interpolation == "bilinear" else "bicubic",
        mean=cfg["mean"],
        std=cfg["std"],
        centre="round",
    )


def _make(where: str, *, mean: Any, std: Any, **fields: Any) -> Preprocess:
    pixels = [(value,) * 3 if isinstance(value, int | float) else value for value in (mean, std)]
    if not all(
        isinstance(v, list | tuple) and len(v) == 3 and all(isinstance(x, int | float) for x in v) for v in pixels
    ):
        raise CheckpointError(f"{where}: mean {mean!r} and std {std!r} must be three numbers each.")
    if not all(x > 0 for x in pixels[1]):
        raise CheckpointError(f"{where}: std {std!r} must be above 0.")
    mean, std = (tuple(map(float, value)) for value in pixels)
    return Preprocess(mean=mean, std=std, full_scale=True, convert="plain", **fields)
