"""One setting of one file changed, dropped or added: what the other library gives, or refused; never another thing."""

import pytest

from tests.conftest import ROOT
from tests.interop.fuzz import BASES, TEXT_BASES, try_all
from tests.peers.environment import needs_peers
from vlc.interop import keys

FEW = ("siglip", "open_clip_gelu_32", "open_clip_siglip", "open_clip_coca")


@pytest.mark.slow
@needs_peers
@pytest.mark.parametrize(
    ("made_by", "name"),
    [*(("references", name) for name in BASES), *(("text_references", name) for name in TEXT_BASES)],
)
def test_no_setting_is_passed_over(request, tmp_path, made_by, name):
    """Every fifth case, and of folders with few every third; `benchmarks/folder_fuzz.py` tries all."""
    found = try_all(request.getfixturevalue(made_by) / name, tmp_path / "cases", every=3 if name in FEW else 5)
    assert not found.wrong, found.wrong
    assert found.counts["equal"] > 20 and found.counts["refused"] > 4


def test_the_table_is_that_of_the_code():
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    assert keys.table() in page, "python -m vlc.interop.keys"
