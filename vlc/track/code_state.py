"""Which code runs: the package's version, and the commit of the repository that a run is started in."""

import subprocess
from importlib.metadata import version
from typing import Any


def code_state() -> dict[str, Any]:
    """`vlc`: the version; where the current folder is in a repository also `commit`, `branch` and `changed`, the number
    of files that differ from it."""
    found: dict[str, Any] = {"vlc": version("vlc-jax")}
    commit = _git("rev-parse", "HEAD")
    if commit:
        found |= {"commit": commit, "branch": _git("rev-parse", "--abbrev-ref", "HEAD") or ""}
        found["changed"] = len((_git("status", "--porcelain") or "").splitlines())
    return found


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
