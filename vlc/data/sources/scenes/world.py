"""What a scene is: shapes with colour, size, texture and place, sampled from a seed, and the changes made to it.

Coordinates are fractions of the picture's side, x to the right and y down. Objects are listed from back to front.
"""

import dataclasses
import itertools
from dataclasses import dataclass

import numpy as np

SHAPES = (
    "circle", "square", "triangle", "star", "heart", "cross",
    "ring", "crescent", "diamond", "pentagon", "hexagon", "arrow",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "white")
SIZES = ("small", "medium", "large")
TEXTURES = ("plain", "striped", "dotted")
RELATIONS = ("left of", "right of", "above", "below", "in front of", "behind")
BACKGROUNDS = ("black", "grey", "beige", "navy", "checkered", "speckled")

RADIUS = {"small": 0.12, "medium": 0.17, "large": 0.23}
OVERLAP = 0.9  # two objects overlap when their centres are nearer than this share of the sum of their radii
ATTRIBUTES = {"shape": SHAPES, "colour": COLOURS, "size": SIZES, "texture": TEXTURES}

# Colour-shape pairs that no training scene shows: one in twelve, each colour and each shape among them.
HELD_OUT_PAIRS = frozenset(
    (colour, shape)
    for (i, colour), (j, shape) in itertools.product(enumerate(COLOURS), enumerate(SHAPES))
    if (7 * i + j) % 12 == 0
)


@dataclass(frozen=True)
class SceneObject:
    """One object: four attributes and its centre `(x, y)` in [0, 1]."""

    shape: str
    colour: str
    size: str
    texture: str
    x: float
    y: float

    @property
    def radius(self) -> float:
        return RADIUS[self.size]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in [0, 1]."""
        r = self.radius
        return self.x - r, self.y - r, self.x + r, self.y + r


@dataclass(frozen=True)
class Scene:
    """A background and two to five objects, from back to front. No two objects share colour and shape."""

    background: str
    objects: tuple[SceneObject, ...]


def relation(scene: Scene, subject: int, anchor: int) -> str:
    """How object `subject` stands to object `anchor`: by depth where they overlap, else by the longer axis."""
    a, b = scene.objects[subject], scene.objects[anchor]
    dx, dy = a.x - b.x, a.y - b.y
    if np.hypot(dx, dy) < OVERLAP * (a.radius + b.radius):
        return "in front of" if subject > anchor else "behind"
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def sample_scene(
    rng: np.random.Generator,
    *,
    objects: tuple[int, int] = (2, 5),
    overlap_rate: float = 0.2,
    pairs: str = "seen",
) -> Scene:
    """Draws a scene.

    Args:
        rng: All randomness comes from here.
        objects: Fewest and most objects.
        overlap_rate: Chance that an object is placed so that it partly covers an earlier one.
        pairs: `"seen"` leaves out `HELD_OUT_PAIRS`; `"held_out"` makes the first object one of them; `"any"`.
    """
    count = int(rng.integers(objects[0], objects[1] + 1))
    looks = _sample_looks(rng, count, pairs)
    sizes = [SIZES[i] for i in rng.integers(len(SIZES), size=count)]
    textures = [TEXTURES[i] for i in rng.integers(len(TEXTURES), size=count)]
    places, sizes = _sample_places(rng, sizes, overlap_rate)
    made = tuple(
        SceneObject(shape, colour, size, texture, x, y)
        for (colour, shape), size, texture, (x, y) in zip(looks, sizes, textures, places, strict=True)
    )
    return Scene(BACKGROUNDS[rng.integers(len(BACKGROUNDS))], made)


def _sample_looks(rng: np.random.Generator, count: int, pairs: str) -> list[tuple[str, str]]:
    """Distinct (colour, shape) pairs."""
    looks: list[tuple[str, str]] = []
    if pairs == "held_out":
        held = sorted(HELD_OUT_PAIRS)
        looks.append(held[rng.integers(len(held))])
    while len(looks) < count:
        look = (COLOURS[rng.integers(len(COLOURS))], SHAPES[rng.integers(len(SHAPES))])
        if look not in looks and not (pairs == "seen" and look in HELD_OUT_PAIRS):
            looks.append(look)
    return looks


def _sample_places(
    rng: np.random.Generator, sizes: list[str], overlap_rate: float
) -> tuple[list[tuple[float, float]], list[str]]:
    """Centres for the given sizes; shrinks the sizes when they do not fit."""
    while True:
        places: list[tuple[float, float]] = []
        for i, size in enumerate(sizes):
            touching = i > 0 and rng.random() < overlap_rate
            place = _place_one(rng, places, sizes, RADIUS[size], touching)
            if place is None:
                break
            places.append(place)
        if len(places) == len(sizes):
            return places, sizes
        largest = max(range(len(sizes)), key=lambda j: RADIUS[sizes[j]])
        sizes = [*sizes]
        sizes[largest] = SIZES[max(0, SIZES.index(sizes[largest]) - 1)]


def _place_one(rng, places, sizes, radius, touching) -> tuple[float, float] | None:
    """One centre that keeps its distance from all others but, when `touching`, partly covers one of them."""
    partner = int(rng.integers(len(places))) if touching else -1
    for _ in range(40):
        if touching:
            angle = rng.random() * 2 * np.pi
            reach = 0.72 * (radius + RADIUS[sizes[partner]])
            x = places[partner][0] + reach * np.cos(angle)
            y = places[partner][1] + reach * np.sin(angle)
        else:
            x, y = rng.uniform(radius, 1 - radius, size=2)
        if not (radius <= x <= 1 - radius and radius <= y <= 1 - radius):
            continue
        if all(
            j == partner or np.hypot(x - px, y - py) >= 1.02 * (radius + RADIUS[sizes[j]])
            for j, (px, py) in enumerate(places)
        ):
            return float(x), float(y)
    return None


def swap(scene: Scene, attribute: str, i: int, j: int) -> Scene:
    """The scene with one attribute (`"place"` for positions) exchanged between objects `i` and `j`."""
    fields = ("x", "y") if attribute == "place" else (attribute,)
    made = list(scene.objects)
    made[i] = dataclasses.replace(made[i], **{f: getattr(scene.objects[j], f) for f in fields})
    made[j] = dataclasses.replace(made[j], **{f: getattr(scene.objects[i], f) for f in fields})
    return dataclasses.replace(scene, objects=tuple(made))


def replace_attribute(scene: Scene, rng: np.random.Generator, attribute: str, i: int) -> Scene:
    """The scene with one attribute of object `i` changed to another value; its place stays."""
    others = [value for value in ATTRIBUTES[attribute] if value != getattr(scene.objects[i], attribute)]
    taken = {(o.colour, o.shape) for k, o in enumerate(scene.objects) if k != i}
    rng.shuffle(others)
    for value in others:
        changed = dataclasses.replace(scene.objects[i], **{attribute: value})
        if (changed.colour, changed.shape) not in taken:
            objects = (*scene.objects[:i], changed, *scene.objects[i + 1 :])
            return dataclasses.replace(scene, objects=objects)
    raise AssertionError("twelve shapes and ten colours always leave a free pair")


EDITS = ("colour", "shape", "size", "texture", "swap_colour", "swap_shape", "swap_place")


def edit_twin(scene: Scene, rng: np.random.Generator, edit: str) -> Scene | None:
    """The scene with one thing changed, or `None` where this edit would change nothing that a caption says.

    Args:
        scene: The scene to change.
        rng: Chooses the object and the new value.
        edit: One of `EDITS`: an attribute to replace, or an exchange between two objects. After a swap both
            pictures hold the same words and differ only in how they are bound.
    """
    if not edit.startswith("swap_"):
        return replace_attribute(scene, rng, edit, int(rng.integers(len(scene.objects))))
    attribute = edit.removeprefix("swap_")
    pairs = list(itertools.combinations(range(len(scene.objects)), 2))
    rng.shuffle(pairs)
    for i, j in pairs:
        twin = swap(scene, attribute, int(i), int(j))
        if _is_binding_change(scene, twin, attribute, int(i), int(j)):
            return twin
    return None


def _is_binding_change(scene: Scene, twin: Scene, attribute: str, i: int, j: int) -> bool:
    a, b = scene.objects[i], scene.objects[j]
    if attribute == "place":
        return a.size == b.size and relation(scene, i, j) in RELATIONS[:4]
    if getattr(a, attribute) == getattr(b, attribute):
        return False
    looks = [(o.colour, o.shape) for o in twin.objects]
    return len(set(looks)) == len(looks) and set(looks) != {(o.colour, o.shape) for o in scene.objects}


def matched_scene(scene: Scene, rng: np.random.Generator, keep: str) -> Scene:
    """A new scene that shares one factor with the given one: the hard distractors of a matched gallery.

    Args:
        scene: The scene to resemble.
        rng: Draws everything else.
        keep: `"colour"` and `"shape"` keep every object's value of it, `"place"` keeps the centres and sizes. The
            background is kept in all three, so that it never tells the scenes apart.
    """
    count = len(scene.objects)
    while True:
        fresh = sample_scene(rng, objects=(count, count), pairs="any")
        if keep == "place":
            made = [
                dataclasses.replace(new, x=old.x, y=old.y, size=old.size)
                for new, old in zip(fresh.objects, scene.objects, strict=True)
            ]
        else:
            made = [
                dataclasses.replace(new, **{keep: getattr(old, keep)})
                for new, old in zip(fresh.objects, scene.objects, strict=True)
            ]
        looks = {(o.colour, o.shape) for o in made}
        if len(looks) == count:
            return Scene(scene.background, tuple(made))
