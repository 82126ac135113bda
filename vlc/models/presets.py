"""Sizes with the field's names: `image_tower("B/16")`, `text_tower("B")`."""

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
