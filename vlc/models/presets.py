"""Sizes with the field's names: `image_tower("B/16")`, `text_tower("B")`."""

import math
from typing import Any

# width, layers, heads of ViT (Dosovitskiy et al. 2021, table 1; Ti and S from Touvron et al. 2021)
_VIT = {"Ti": (192, 12, 3), "S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16)}
# width, layers, heads of CLIP's text towers (Radford et al. 2021, table 19)
_TEXT = {"Ti": (192, 12, 3), "S": (384, 12, 6), "B": (512, 12, 8), "L": (768, 12, 12)}


def image_tower(name: str, *, pool: str = "cls") -> dict[str, Any]:
    """Settings of an image tower.

    Args:
        name: Size and patch, e.g. `"B/16"`.
        pool: `cls`, `mean` or `map`.
    """
    size, patch = name.split("/")
    width, layers, heads = _VIT[size]
    return {"width": width, "layers": layers, "heads": heads, "patch": int(patch), "mlp_ratio": 4.0, "pool": pool}


def text_tower(name: str, *, length: int = 77, causal: bool = True, pool: str = "last") -> dict[str, Any]:
    """Settings of a text tower, with the width that CLIP pairs with an image tower of that size."""
    width, layers, heads = _TEXT[name]
    return {
        "width": width, "layers": layers, "heads": heads, "mlp_ratio": 4.0,
        "length": length, "causal": causal, "pool": pool,
    }  # fmt: skip


# Mean and standard deviation of the pixels that CLIP was trained with, as its release has them.
CLIP_PIXELS = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}


def filip_optimizer(base_lr: float, batch_size: int) -> dict[str, Any]:
    """LAMB as FILIP uses it (arXiv 2111.07783, appendix): the peak is `base_lr * sqrt(batch_size / 512)`."""
    return {
        "name": "lamb",
        "lr": base_lr * math.sqrt(batch_size / 512),
        "warmup_steps": 3000,
        "b2": 0.999,
        "eps": 1e-4,
        "weight_decay": 3e-3,
        "clip_norm": 0.0,
    }
