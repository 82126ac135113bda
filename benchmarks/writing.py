"""How fast captions are written in training, beside decoding alone; and what the step of rewards takes of memory.

    python benchmarks/writing.py --out benchmarks/results/writing_cpu.json

The captioner of `configs/rewards.py`, with random weights: 32 scenes and five captions of each, all of full length. In
training they are written by `vlc.train.rollout`, with what the step needs beside (their text, their reward by length);
alone by `vlc.inference`. Both take turns in one process; the best round of each counts. Memory is that of the compiled
steps: of the reward's, and of a captioner that is trained by cross-entropy on the same batch.
"""

import argparse
import json
import os
import platform
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from rates import best_rate

from vlc.config import Config, resolve_auto
from vlc.config.file import load_config
from vlc.data.sources import Scenes
from vlc.generate import DecodingOptions
from vlc.inference import Model
from vlc.inference.captioning import CaptionRequest, generate_ids
from vlc.parallel import Share, make_mesh
from vlc.parallel.sharding import state_sharding
from vlc.train.inputs import get_tokenizer, make_preprocess
from vlc.train.lowering import lower_train_step
from vlc.train.rollout import Rollout
from vlc.train.state import build_model, make_graph


def read() -> Config:
    """The config, with a reward that costs nothing."""
    config = load_config("configs/rewards.py", ["--config.reward.terms=length:1"])
    return resolve_auto(config, jax.default_backend())


def captions_a_second(seconds: float) -> dict[str, float]:
    """In training, and alone."""
    config = read()
    scenes = Scenes(side=config.data.image.size, length=100_000, objects=(2, 4))
    tokenizer = get_tokenizer(config, scenes, None)
    source = scenes.subset(length=config.batch_size)
    params = nnx.state(build_model(config, tokenizer.vocab_size, jax.random.key(0)), nnx.Param)
    graph = make_graph(config, tokenizer.vocab_size)
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
    share, sharding = Share(mesh, config.batch_size), state_sharding(params, mesh)
    rollout = Rollout(config, graph, mesh, share, tokenizer, source, None, sharding)
    host = {"index": np.arange(config.batch_size), "image": np.stack([record.image for record in source])}
    batch, placed = share.to_devices({"image": host["image"]}), jax.device_put(params, sharding)
    model = Model(graph, params, config, tokenizer, make_preprocess(config))
    request = CaptionRequest(1.0, DecodingOptions(num_return_sequences=config.reward.samples, temperature=1.0))
    runs = {
        "in training": lambda: rollout(0, placed, host, batch),
        "alone": lambda: generate_ids(model, host["image"], request),
    }
    count = config.batch_size * config.reward.samples
    best: dict[str, float] = {}
    for _ in range(3):
        for name, run in runs.items():
            best[name] = max(best.get(name, 0.0), best_rate(run, count, seconds))
    return best


def memory() -> dict[str, int]:
    """Bytes that the compiled steps need beside their arguments."""
    config, plain = read(), read()
    plain.reward.terms, plain.objectives.policy.weight, plain.objectives.caption.weight = "", 0.0, 1.0
    mesh = make_mesh({"data": 1, "fsdp": 1, "tensor": 1}, jax.devices()[:1])
    return {
        name: lower_train_step(some, mesh).compile().memory_analysis().temp_size_in_bytes
        for name, some in (("of the reward", config), ("of cross-entropy", plain))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rates = captions_a_second(options.seconds)
    result = {
        "captions a second": {name: round(rate, 1) for name, rate in rates.items()},
        "share of decoding alone": round(rates["in training"] / rates["alone"], 3),
        "bytes of the step": memory(),
        "device": jax.devices()[0].device_kind,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
