"""Compiling in the background, while the rest of a run is made ready."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
from jax.sharding import Mesh


def compile_ahead(function: Any, mesh: Mesh, *shapes: Any) -> Future[Any]:
    """Starts to compile; the result is called like the function.

    Args:
        function: From `jax.jit`.
        mesh: In force while it is traced.
        shapes: Shapes and dtypes of its arguments.
    """

    def compile() -> Any:
        with jax.set_mesh(mesh):
            return function.lower(*shapes).compile()

    pool = ThreadPoolExecutor(1, thread_name_prefix="vlc-compile")
    try:
        return pool.submit(compile)
    finally:
        pool.shutdown(wait=False)
