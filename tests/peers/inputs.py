"""The images and texts that both sides are given. Only NumPy and Pillow: it is run in both environments."""

import io

import numpy as np
from PIL import Image

SIZES = ((97, 64), (64, 97), (200, 133), (131, 260), (64, 64), (75, 41))
TEXTS = (
    "a photo of a cat",
    "Two DOGS, running fast; it's their first time!",
    "   spaces   and\ttabs\nand lines  ",
    "ein Hund läuft über die Straße",
    "犬が海辺を走っています",
    "кошка сидит на окне",
    "une fête d'été à l'école, naïve & co",
    "caf&eacute; &amp; cr&egrave;me &lt;b&gt;",
    "the quick brown fox jumps over the lazy dog again and again until nobody is left to count how often it did so "
    * 2,
    "42 apples cost $3.99 (50% off)",
    "هذه صورة قطة",
    "emoji 😀 in the middle 🚀🚀",
    "!",
    "under_score and hy-phen",
)

# Of folders with a setting changed: capitals, accents, marks inside a text, and a long text among them.
FUZZED = (
    *TEXTS[:9],
    TEXTS[11],
    "Ünïcode İstanbul",
    "the end <|endoftext|> is not the end",
    "a <eos> cat",
    "fox cat",
)


def images() -> list[Image.Image]:
    """Smooth pictures with noise, of several sizes and aspects."""
    rng = np.random.default_rng(0)
    made = []
    for width, height in SIZES:
        y, x = np.mgrid[0:height, 0:width] / 20
        waves = [np.sin(x * rng.uniform(0.5, 3) + y * rng.uniform(0.5, 3) + rng.uniform(0, 6)) for _ in range(3)]
        pixels = 127 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
        made.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return made


def encoded(image: Image.Image) -> bytes:
    """As PNG, so that both sides decode the same pixels."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
