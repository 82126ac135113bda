"""Compiled programs kept in a run's workdir, so that a run that is started again need not compile again."""

import hashlib
import os
import platform
from pathlib import Path

from vlc.storage import place, working_folder


def keep_compiled(workdir: str | Path) -> None:
    """Keeps what takes over a second to compile in `workdir/compiled`; to be called before anything is compiled.

    Of a workdir in a bucket they are kept in the cache of this host.

    `JAX_COMPILATION_CACHE_DIR`, where it is set, names another folder. Programs for a CPU hold for one kind of it, so
    each kind has a folder of its own.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    import jax

    folder = working_folder(place(workdir)).absolute() / "compiled" / _processor()
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _processor() -> str:
    """A name for what programs for this CPU depend on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        facts = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        facts = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
