"""How much two boxes have in common."""

from typing import Any

from jaxtyping import Float


def box_iou(a: Float[Any, "... 4"], b: Float[Any, "... 4"]) -> tuple[Float[Any, "..."], Float[Any, "..."]]:
    """Intersection over union of boxes, and the generalised one.

    `GIoU = IoU - |C \\ (A u B)| / |C|` with C the box around both (Rezatofighi et al., CVPR 2019, arXiv 1902.09630).
    Boxes are left, top, right, bottom, of NumPy or JAX, and are broadcast; one without an area counts as of area 0.
    """
    xp = a.__array_namespace__()

    def area(low: Any, high: Any) -> Any:
        sides = xp.maximum(high - low, 0)
        return sides[..., 0] * sides[..., 1]

    a_low, a_high, b_low, b_high = a[..., :2], a[..., 2:], b[..., :2], b[..., 2:]
    common = area(xp.maximum(a_low, b_low), xp.minimum(a_high, b_high))
    union = area(a_low, a_high) + area(b_low, b_high) - common
    around = area(xp.minimum(a_low, b_low), xp.maximum(a_high, b_high))
    iou = common / xp.maximum(union, 1e-9)
    return iou, iou - (around - union) / xp.maximum(around, 1e-9)
