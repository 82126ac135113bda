"""One setting of one file changed, dropped or added: what the other library gives, or refused; never another thing."""

import pytest

from tests.conftest import ROOT
from tests.interop.fuzz import BASES, TEXT_BASES, try_all
from tests.peers.environment import needs_peers
from vlc.interop import keys


@pytest.mark.slow
@needs_peers
@pytest.mark.parametrize("name", BASES)
def test_no_setting_is_passed_over(references, tmp_path, name):
    """Every third case; `benchmarks/folder_fuzz.py` tries all."""
    found = try_all(references / name, tmp_path / "cases", every=3)
    assert not found.wrong, found.wrong
    assert found.counts["equal"] > 20 and found.counts["refused"] > 4


@pytest.mark.slow
@needs_peers
@pytest.mark.parametrize("name", TEXT_BASES)
def test_no_setting_of_a_text_model_is_passed_over(text_references, tmp_path, name):
    found = try_all(text_references / name, tmp_path / "cases", every=3)
    assert not found.wrong, found.wrong
    assert found.counts["equal"] > 20 and found.counts["refused"] > 4


def test_the_table_is_that_of_the_code():
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    assert keys.table() in page, "python -m vlc.interop.keys"
