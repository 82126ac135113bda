"""Draws a scene with NumPy: every shape is a signed distance, so edges are smooth at any size."""

import functools

import numpy as np

from vlc.data.sources.scenes.world import Scene, SceneObject

RGB = {
    "red": (220, 40, 40), "orange": (245, 140, 30), "yellow": (245, 220, 50), "green": (50, 160, 60),
    "teal": (40, 190, 190), "blue": (50, 90, 225), "purple": (140, 60, 190), "pink": (250, 150, 195),
    "brown": (130, 80, 40), "white": (250, 250, 250),
}  # fmt: skip
BACKGROUND_RGB = {
    "black": (12, 12, 14), "grey": (125, 125, 128), "beige": (222, 208, 178), "navy": (22, 26, 62),
    "checkered": (96, 96, 100), "speckled": (70, 66, 60),
}  # fmt: skip


def _polygon(u: np.ndarray, v: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Signed distance to a closed polygon, negative inside (even-odd rule). `corners` is `[n, 2]`."""
    distance = np.full(u.shape, np.inf, np.float32)
    inside = np.zeros(u.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = u - ax, v - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        crosses = (ay > v) != (by > v)
        if ey != 0:
            inside ^= crosses & (u < ex * (v - ay) / ey + ax)
    distance = np.sqrt(distance)
    return np.where(inside, -distance, distance)


def _regular(n: int, radius: float = 1.0, turn: float = 0.0) -> np.ndarray:
    angle = 2 * np.pi * np.arange(n) / n - np.pi / 2 + turn
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _star() -> np.ndarray:
    corners = np.empty((10, 2))
    corners[0::2] = _regular(5)
    corners[1::2] = _regular(5, 0.42, np.pi / 5)
    return corners


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x / 16, -y / 16 - 0.1], axis=1)


POLYGONS = {
    "square": 0.8 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]),
    "triangle": np.array([[0, -0.95], [0.95, 0.75], [-0.95, 0.75]]),
    "star": _star(),
    "heart": _heart(),
    "cross": np.array(
        [[-.3, -.95], [.3, -.95], [.3, -.3], [.95, -.3], [.95, .3], [.3, .3],
         [.3, .95], [-.3, .95], [-.3, .3], [-.95, .3], [-.95, -.3], [-.3, -.3]]
    ),
    "diamond": np.array([[0, -1], [0.62, 0], [0, 1], [-0.62, 0]]),
    "pentagon": _regular(5, 0.95),
    "hexagon": _regular(6, 0.95, np.pi / 6),
    "arrow": np.array([[-.95, -.28], [.1, -.28], [.1, -.75], [.95, 0], [.1, .75], [.1, .28], [-.95, .28]]),
}  # fmt: skip


def shape_distance(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to a unit shape, negative inside, at coordinates `(u, v)` of any one shape."""
    if shape == "circle":
        return np.hypot(u, v) - 0.92
    if shape == "ring":
        return np.abs(np.hypot(u, v) - 0.7) - 0.22
    if shape == "crescent":
        return np.maximum(np.hypot(u, v) - 0.95, 0.8 - np.hypot(u - 0.45, v))
    return _polygon(u, v, POLYGONS[shape])


@functools.lru_cache(maxsize=256)
def _stencil(shape: str, half: int, pixels_per_unit: float) -> np.ndarray:
    """Signed distance in pixels on a grid of sub-pixel centres, kept because shapes recur. `[4h+2, 4h+2]` float32."""
    axis = (np.arange(-2 * half - 1, 2 * half + 1, dtype=np.float32) + 0.5) / (2 * pixels_per_unit)
    u, v = np.meshgrid(axis, axis)
    return (shape_distance(shape, u, v) * pixels_per_unit).astype(np.float32)


def _coverage(obj: SceneObject, side: int) -> tuple[np.ndarray, slice, slice]:
    """Share of each pixel that the object covers, `[h, w]` in [0, 1], and where in the picture it lies.

    The centre is rounded to half a pixel, so that one stencil of half-pixel samples serves every place.
    """
    radius = obj.radius * side
    half = int(np.ceil(radius)) + 2
    stencil = _stencil(obj.shape, half, radius)
    cx, cy = round(2 * obj.x * side), round(2 * obj.y * side)  # in half pixels
    left, top = cx // 2 - half, cy // 2 - half
    dx, dy = 1 - cx % 2, 1 - cy % 2
    n = 2 * half
    distance = stencil[dy : dy + 2 * n : 2, dx : dx + 2 * n : 2]
    cover = np.clip(0.5 - distance, 0, 1)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + n, side), min(top + n, side)
    return cover[y0 - top : y1 - top, x0 - left : x1 - left], slice(y0, y1), slice(x0, x1)


@functools.lru_cache(maxsize=64)
def _texture(texture: str, side: int, period: int) -> np.ndarray | float:
    """Brightness by pixel, `[side, side]`, of a texture whose period is in pixels."""
    if texture == "plain":
        return 1.0
    y, x = np.mgrid[0:side, 0:side]
    if texture == "striped":
        return np.where((x + y) % period < period / 2, 1.0, 0.45).astype(np.float32)
    cx, cy = (x % period) - (period - 1) / 2, (y % period) - (period - 1) / 2
    return np.where(cx**2 + cy**2 < (0.3 * period) ** 2, 0.35, 1.0).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _background(name: str, side: int) -> np.ndarray:
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = BACKGROUND_RGB[name]
    y, x = np.mgrid[0:side, 0:side]
    if name == "checkered":
        cell = max(side // 8, 1)
        canvas += np.where((x // cell + y // cell) % 2, 32.0, -32.0)[..., None]
    if name == "speckled":
        canvas += np.random.default_rng(0).normal(0, 22, (side, side, 1))
    return canvas


def draw(scene: Scene, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the scene.

    Returns:
        The picture `[side, side, 3]` uint8, and the visible part of every object `[objects, side, side]` bool.
    """
    canvas = _background(scene.background, side).copy()
    masks = np.zeros((len(scene.objects), side, side), bool)
    period = max(4, round(side / 12))
    for i, obj in enumerate(scene.objects):
        cover, rows, columns = _coverage(obj, side)
        shade = _texture(obj.texture, side, period)
        if isinstance(shade, np.ndarray):
            shade = shade[rows, columns, None]
        paint = shade * np.asarray(RGB[obj.colour], np.float32)
        alpha = cover[..., None]
        canvas[rows, columns] += alpha * (paint - canvas[rows, columns])
        solid = cover > 0.5
        masks[:i, rows, columns] &= ~solid
        masks[i, rows, columns] = solid
    return np.clip(canvas, 0, 255).astype(np.uint8), masks
