"""A thousand damaged inputs: no crash, each counted with its reason, every good one used, memory bounded."""

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.data.damage import expected, write_folder, write_shards
from vlc.curate.build import Plan, build, verify
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import Lengths, MakeExample, count_skipped, train_batches
from vlc.data.sources import open_source

COUNT = 2000  # half of them damaged


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("folder")
    write_folder(path, COUNT)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    path = tmp_path_factory.mktemp("shards")
    write_shards(path, COUNT, 4)
    return path


def of_folder() -> Counter:
    """Reasons in the folder: those of the inputs, and a missing file, half a line and a list."""
    return Counter(expected(COUNT)) + Counter({"file": 1, "row": 2})


def of_shards() -> Counter:
    """Reasons in the shards: those of the inputs, two paths that lead out, a link, and the shard that is cut."""
    return Counter(expected(COUNT)) + Counter(
        {"unsafe path": 2, "not a file": 1, "shard cut short": 1, "without image": 1}
    )


@pytest.mark.parametrize(("where", "wanted"), [("folder", of_folder), ("shards", of_shards)])
def test_a_build_keeps_every_good_one_and_counts_the_others(where, wanted, request, tmp_path):
    source = open_source(str(request.getfixturevalue(where)))
    manifest = build(source, Plan(where, shard_records=300), tmp_path / "out")
    counts = Counter(manifest["left out"]["index"]) + Counter(manifest["left out"]["records"])
    counts["ok"] = manifest["records"]
    assert counts == wanted()
    assert manifest["left out"]["examples"] and verify(tmp_path / "out") == []


@pytest.mark.parametrize("where", ["folder", "shards"])
def test_training_sees_every_good_one_once_an_epoch_and_counts_the_others(where, request, tokenizer):
    source = open_source(str(request.getfixturevalue(where)))
    make = MakeExample(source, Preprocess(16), CaptionChoice(Mix({})), tokenizer, Lengths(8, 8, 8))
    batches = train_batches(make, batch_size=len(source), seed=0)
    batch = next(batches)
    batches.close()
    counts = Counter(count_skipped(batch)) + Counter(source.skipped)
    used = np.unique(batch["index"])
    assert len(used) == expected(COUNT)["ok"]
    wanted = of_folder() if where == "folder" else of_shards()
    del wanted["ok"]
    assert counts == wanted


_SCRIPT = """
import resource, sys
from vlc.data.sources import open_source
from vlc.curate.survey import examine_record
source = open_source(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for index in range(len(source)):
    examine_record(source, index)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_bounded(folder):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder)], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert int(done.stdout) < 100_000  # KiB; one picture of 30,000 x 30,000 would take 900 MB
