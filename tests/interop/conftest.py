"""What the peers made, once for all test processes."""

import os
from pathlib import Path

import pytest

from tests.peers.environment import PYTHON, made_once


def shared_folder(tmp_path_factory, script: str) -> Path:
    """What `tests/peers/SCRIPT.py` writes; the test is skipped where there are no peers."""
    if not PYTHON.exists():
        pytest.skip("no .venv-peers: `make peers` makes it (Python 3.11)")
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return made_once(base / script, script)


@pytest.fixture(scope="session")
def references(tmp_path_factory) -> Path:
    """The folder that `tests/peers/references.py` writes."""
    return shared_folder(tmp_path_factory, "references")


@pytest.fixture(scope="session")
def text_references(tmp_path_factory) -> Path:
    """The folder that `tests/peers/text_references.py` writes."""
    return shared_folder(tmp_path_factory, "text_references")


@pytest.fixture(scope="session")
def tokens(tmp_path_factory) -> Path:
    """The folder that `tests/peers/tokens.py` writes."""
    return shared_folder(tmp_path_factory, "tokens")
