"""Compiler flags for training on several devices: collectives run beside computation. On by default, all in one place.

What a user has set of `XLA_FLAGS` and `LIBTPU_INIT_ARGS` stays and wins; `VLC_XLA_FLAGS=off` adds nothing.
"""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import jax

from vlc.parallel.process_info import has_tpu

GPU = {
    "xla_gpu_enable_latency_hiding_scheduler": "true",  # collectives start early and are waited for late
    "xla_gpu_enable_highest_priority_async_stream": "true",  # and are not queued behind computation
    "xla_gpu_all_reduce_combine_threshold_bytes": "134217728",  # gradients of several layers in one
    "xla_gpu_all_gather_combine_threshold_bytes": "134217728",  # fsdp weights of a layer in one
    "xla_gpu_reduce_scatter_combine_threshold_bytes": "67108864",
    "xla_gpu_enable_pipelined_all_gather": "true",  # of the next layer, while this one computes
    "xla_gpu_enable_pipelined_reduce_scatter": "true",
    "xla_gpu_enable_while_loop_double_buffering": "true",  # what pipelining in a scan over layers needs
}
TPU = {
    "xla_tpu_enable_async_collective_fusion": "true",  # collectives go on inside of fused computation
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_enable_async_all_gather": "true",
    "xla_tpu_enable_data_parallel_all_reduce_opt": "true",  # gradients' all-reduces overlap with the next iteration
    "xla_tpu_data_parallel_opt_different_sized_ops": "true",
}


def compiler_options(program: str) -> dict[str, Any] | None:
    """Options of a compilation for the CPU; elsewhere, and where `XLA_FLAGS` says otherwise, none.

    Args:
        program: `step`, which runs many times: LLVM's second level compiles faster than its third, and what it makes is
            as fast. `once`, which runs a single time: compiling takes longer than running, so nothing is optimised.
    """
    if jax.default_backend() != "cpu" or "xla_backend_optimization_level" in os.environ.get("XLA_FLAGS", ""):
        return None
    return {"xla_backend_optimization_level": {"step": 2, "once": 0}[program]}


def set_flags(env: MutableMapping[str, str] = os.environ, *, gpu: bool | None = None, tpu: bool | None = None) -> None:
    """Adds the flags to the environment; before JAX looks for devices.

    Args:
        env: The environment.
        gpu: Whether there is an NVIDIA GPU; found out when `None`.
        tpu: Whether there is a TPU; found out when `None`.
    """
    if env.get("VLC_XLA_FLAGS") == "off":
        return
    if gpu if gpu is not None else Path("/dev/nvidia0").exists():
        _add(env, "XLA_FLAGS", GPU)
    if tpu if tpu is not None else has_tpu():
        _add(env, "LIBTPU_INIT_ARGS", TPU)


def _add(env: MutableMapping[str, str], name: str, flags: dict[str, str]) -> None:
    own = env.get(name, "")
    named = {word.partition("=")[0].lstrip("-") for word in own.split()}
    new = [f"--{flag}={value}" for flag, value in flags.items() if flag not in named]
    env[name] = " ".join([*new, own]).strip()
