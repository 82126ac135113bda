"""A tiny model on disk, and small files of every kind that tasks read."""

import jax
import numpy as np
import pytest
from flax import nnx

from tests.tiny import tiny_config
from vlc.data.images import Preprocess
from vlc.interop import Imported, write_native
from vlc.train.inputs import make_preprocess
from vlc.train.state import build_model


@pytest.fixture(scope="session")
def tiny_import(tokenizer) -> Imported:
    """Random weights, with a tokenizer and preprocessing of its own."""
    config = tiny_config(model__decoder__layers=0, objectives__caption__weight=0.0, data__image__size=32)
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(3)), nnx.Param)
    preprocess: Preprocess = make_preprocess(config.data.image)
    return Imported(config, params, tokenizer, preprocess)


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
