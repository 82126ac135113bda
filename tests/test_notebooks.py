"""Every notebook runs from top to bottom on a freshly trained model."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT, read_config
from vlc.train import train


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch):
    assert train(read_config("quickstart", "smoke"), tmp_path) == 0
    monkeypatch.setenv("VLC_WORKDIR", str(tmp_path))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit notebooks without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= 3
