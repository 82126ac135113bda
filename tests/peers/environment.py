"""The peers' environment: where it is, and running a script in it. Made by `make peers`."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-peers" / "bin" / "python"

needs_peers = pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-peers: `make peers` makes it (Python 3.11)")


def run_peer(script: str, *arguments: object) -> None:
    """Runs `tests/peers/SCRIPT.py` there; what it says is shown where it fails."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("JAX_", "PYTHON"))}
    command = [PYTHON, Path(__file__).parent / f"{script}.py", *map(str, arguments)]
    done = subprocess.run(command, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


def made_once(folder: Path, script: str) -> Path:
    """What a script writes into a folder, made by the first of several test processes that asks."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".done").exists():
            run_peer(script, folder)
            (folder / ".done").touch()
    return folder
