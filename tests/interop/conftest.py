"""Models of the peers, shared by the test processes."""

import os
from pathlib import Path

import pytest

from tests.peers.environment import PYTHON, made_once


@pytest.fixture(scope="session")
def references(tmp_path_factory) -> Path:
    """The folder that `tests/peers/references.py` writes."""
    if not PYTHON.exists():
        pytest.skip("no .venv-peers: `make peers` makes it (Python 3.11)")
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return made_once(base / "references", "references")
