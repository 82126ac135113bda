"""Eight emulated CPU devices for every test, and the fixtures that several of them share."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

# Set before JAX is imported. Compiling for TPU without one: quietly, and in several processes at once. Programs for the
# CPU are compiled once for all processes of a run, those that tests start included: they inherit the folder.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_LOG_DIR": "disabled",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR")
    or tempfile.mkdtemp(prefix="vlc-compiled-"),
    "VLC_CACHE": tempfile.mkdtemp(prefix="vlc-cache-"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    # Most of the time goes into compiling programs that run for a moment.
    "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
    + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
}

import jax
import numpy as np
import pytest
from absl import flags

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

from vlc.data.sources import Scenes  # noqa: E402
from vlc.data.tokenizers import SentencePiece, Tokenizer  # noqa: E402

ROOT = Path(__file__).parent.parent


def pytest_sessionfinish():
    """Takes the folders away; that of the programs when the process ends that started the others."""
    shutil.rmtree(os.environ["VLC_CACHE"], ignore_errors=True)
    compiled = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    if compiled.name.startswith("vlc-compiled-") and "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(compiled, ignore_errors=True)


def read_config(name: str, form: str = ""):
    """`configs/NAME.py`'s config."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(form)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Trained from the captions of 200 scenes."""
    scenes = Scenes()
    texts = [t for i in range(200) for ts in scenes.captions(i).values() for t in ts]
    return SentencePiece.train(texts, 256)


@pytest.fixture(scope="session")
def tiny_import(tokenizer):
    """A model with random weights, tokenizer and preprocessing."""
    from flax import nnx

    from tests.tiny import tiny_config
    from vlc.interop import Imported
    from vlc.train.inputs import make_preprocess
    from vlc.train.state import build_model

    config = tiny_config(model__decoder__layers=0, objectives__caption__weight=0.0, data__image__size=32)
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(3)), nnx.Param)
    return Imported(config, params, tokenizer, make_preprocess(config))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def unit_rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random rows of unit length, float32."""
    x = rng.normal(size=shape)
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def tiny_regions(tokenizer):
    """A model with random weights that knows regions: queries, attributes, mask prompts, and a captioner of them."""
    from flax import nnx

    from tests.tiny import tiny_config
    from vlc.inference import Model
    from vlc.interop import Imported
    from vlc.train.inputs import make_preprocess
    from vlc.train.state import build_model

    config = tiny_config(
        data__image__size=32, model__regions__queries=3, model__regions__layers=1, model__regions__width=16,
        model__regions__heads=2, model__regions__attributes=3, data__regions__attributes="red,blue,circle",
        model__decoder__control__box=True, model__decoder__control__mask=True, model__image__mask_prompt=1,
    )  # fmt: skip
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(3)), nnx.Param)
    return Model.of(Imported(config, params, tokenizer, make_preprocess(config)))
