"""A tiny model on disk, and small files of every kind that tasks read."""

import numpy as np
import pytest

from vlc.interop import write_native


@pytest.fixture(scope="session")
def tiny_folder(tiny_import, tmp_path_factory):
    """As `vlc export --format safetensors` writes it."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_native(tiny_import, folder)
    return folder


@pytest.fixture
def draw():
    """Writes a picture of one colour with noise."""
    from PIL import Image

    rng = np.random.default_rng(5)

    def make(path, colour=None, size=(40, 30)):
        path.parent.mkdir(parents=True, exist_ok=True)
        base = rng.integers(0, 256, 3) if colour is None else np.asarray(colour)
        noise = rng.normal(0, 8, (size[1], size[0], 3))
        Image.fromarray((base + noise).clip(0, 255).astype(np.uint8)).save(path)
        return path

    return make
