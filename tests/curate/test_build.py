"""Builds: the same bytes however often they are killed, and what is said when they cannot be."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.curate.test_filters import make_source, texts
from tests.data.damage import picture
from vlc.curate.build import Plan, build, verify
from vlc.curate.shards import MANIFEST
from vlc.data.sources import Scenes, open_source
from vlc.errors import DataError


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_killed_build_goes_on_to_the_same_bytes(tmp_path):
    source = make_source(tmp_path / "a", texts(*(f"caption {i}" for i in range(400))))
    plan = Plan(str(tmp_path / "a"), filters=("words(min=2)", "unique(distance=2)"), shard_records=4)
    build(source, plan, tmp_path / "whole")
    command = [sys.executable, "-m", "vlc.cli", "data", "build", plan.source, "--out", str(tmp_path / "out")]
    command += ["--shard-records", "4", "--workers", "1", "--filter", plan.filters[0], "--filter", plan.filters[1]]
    counts = []
    for wanted in (2, 9, 20):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "out").glob("*.array_record*"))) < wanted:
            time.sleep(0.001)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(len(list((tmp_path / "out").glob("*.array_record*"))))
        with pytest.raises(DataError, match="was stopped: run the same command again"):
            verify(tmp_path / "out")
    assert counts == sorted(counts) and counts[-1] < 100
    subprocess.run(command, cwd=ROOT, check=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_workers_change_no_byte(tmp_path):
    source = make_source(tmp_path / "a", texts(*map(str, range(30))))
    plan = Plan("a", shard_records=7)
    build(source, plan, tmp_path / "one", workers=1)
    build(source, plan, tmp_path / "two", workers=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert open_source(str(tmp_path / "two")).lengths == (7, 7, 7, 7, 2)


def test_another_plan_in_the_same_folder_is_refused(tmp_path):
    source = make_source(tmp_path / "a", texts("x", "y"))
    build(source, Plan("a"), tmp_path / "out")
    build(source, Plan("a"), tmp_path / "out")
    with pytest.raises(DataError, match=r"shard_records: 4096 there, 1 asked for"):
        build(source, Plan("a", shard_records=1), tmp_path / "out")


def test_what_is_wrong_with_a_dataset_is_found(tmp_path):
    source = make_source(tmp_path / "a", texts(*map(str, range(6))))
    build(source, Plan("a", shard_records=2), tmp_path / "out")
    one, two, three = sorted((tmp_path / "out").glob("*.array_record*"))
    data = bytearray(one.read_bytes())
    data[len(data) // 2] ^= 1
    one.write_bytes(data)
    two.write_bytes(two.read_bytes()[:-10])
    three.rename(three.with_name("other.array_record-00000-of-00001"))
    problems = verify(tmp_path / "out")
    assert [problem.split(": ")[1].split(",")[0] for problem in problems] == [
        "its checksum is wrong", f"has {len(data) - 10} bytes", "is missing", "is not in the manifest"
    ]  # fmt: skip
    (tmp_path / "out" / MANIFEST).write_text("{}")
    with pytest.raises(DataError, match="not a manifest"):
        verify(tmp_path / "out")


def test_nothing_left_is_said_with_the_reasons(tmp_path):
    source = make_source(tmp_path / "a", texts("x", "y"), [picture(0), b"broken"])
    with pytest.raises(DataError, match=r"no record is left.*1 image.*1 dropped by words"):
        build(source, Plan("a", filters=("words(min=9)",)), tmp_path / "out")


def test_a_full_disk_is_said_and_what_is_finished_is_kept(tmp_path, monkeypatch):
    source = make_source(tmp_path / "a", texts(*map(str, range(6))))
    replace, moved = os.replace, []

    def full(source, target):
        if "array_record" in str(target) and len(moved) == 2 and ".json" not in str(target):
            raise OSError(28, "No space left on device")
        if "array_record" in str(target) and ".json" not in str(target):
            moved.append(target)
        replace(source, target)

    monkeypatch.setattr("vlc.curate.shards.os.replace", full)
    with pytest.raises(DataError, match=r"No space left on device.*the same command goes on"):
        build(source, Plan("a", shard_records=2), tmp_path / "out")
    monkeypatch.undo()
    build(source, Plan("a", shard_records=2), tmp_path / "out")
    build(source, Plan("a", shard_records=2), tmp_path / "whole")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # what a full disk is to whoever writes
from vlc.cli import main
sys.exit(main(["data", "build", sys.argv[1], "--out", sys.argv[2], "--workers", "1", "--shard-records", sys.argv[3]]))
"""


def test_a_shard_that_cannot_be_written_is_one_message_and_the_build_goes_on(tmp_path):
    make_source(tmp_path / "a", texts(*map(str, range(400))))
    arguments = [str(tmp_path / "a"), str(tmp_path / "out"), "150"]
    failed = subprocess.run([sys.executable, "-c", _LIMITED, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert failed.returncode == 2 and "Traceback" not in failed.stderr
    assert (
        "array_record-00000-of-00003: cannot be written" in failed.stderr
        and "the same command goes on" in failed.stderr
    )
    source = open_source(arguments[0])
    assert build(source, Plan(arguments[0], shard_records=150), arguments[1])["records"] == 400


def test_generated_pictures_are_kept_as_png_and_large_ones_made_smaller(tmp_path):
    build(Scenes(side=24, length=5), Plan("scenes"), tmp_path / "scenes")
    record = open_source(str(tmp_path / "scenes"))[3]
    assert Image.open(io.BytesIO(record.image)).size == (24, 24) and record.captions == Scenes(side=24)[3].captions
    source = make_source(tmp_path / "a", texts("large", "small"), [picture(0, (400, 200)), picture(1, (50, 30))])
    build(source, Plan("a", shorter_side=100), tmp_path / "out")
    built = open_source(str(tmp_path / "out"))
    assert Image.open(io.BytesIO(built[0].image)).size == (200, 100) and built[1].image == picture(1, (50, 30))


def test_the_manifest_tells_what_was_joined_and_left_out(tmp_path):
    source = make_source(tmp_path / "a", texts("x", "y"))
    (tmp_path / "more.csv").write_text("image,long\n0.jpg,A. B.\nq.jpg,C.\n")
    manifest = build(source, Plan("a", join=str(tmp_path / "more.csv"), filters=("words(min=2)",)), tmp_path / "out")
    assert manifest["records"] == 1 and manifest["joined"]["rows without image"] == 1
    assert manifest["left out"]["filters"] == [{"step": "words(min=2)", "images": 1, "captions": 2}]
    assert json.loads((tmp_path / "out" / MANIFEST).read_text()) == manifest
    assert open_source(str(tmp_path / "out"))[0].captions == {"long": ("A. B.",)}
