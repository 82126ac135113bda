"""What may change when a run is resumed is said; what may not is refused; two runs never share a workdir."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.train.test_loop import PLAIN, _meta, config
from vlc.errors import CheckpointError
from vlc.train import train
from vlc.train.resume import changes_of
from vlc.train.workdir_lock import workdir_lock


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of two steps of eight examples."""
    workdir = tmp_path_factory.mktemp("stopped")
    assert train(config(steps=2, **PLAIN), workdir) == 0
    return workdir


def test_each_changed_setting_is_a_line_with_what_it_means():
    before, after = (json.loads(config().to_json_best_effort()) for _ in range(2))
    assert changes_of(before, after, 2, 16) == []
    after["batch_size"], after["seed"], after["optimizer"]["lr"] = 16, 7, 5e-4
    after["objectives"]["filip"]["weight"], after["data"]["captions"]["mix"] = 0.5, "long"
    after["log_every"], after["checkpoint"]["every"] = 99, 99  # of no consequence
    lines = changes_of(before, after, 2, 32)
    assert "config.batch_size was 8 and is now 16: the data continue at example 32" in lines
    assert any(line.startswith("config.seed was 0 and is now 7") for line in lines)
    assert any(line.startswith("config.optimizer.lr was 0.001 and is now 0.0005") for line in lines)
    assert any(line.startswith("config.data.captions.mix was '' and is now 'long'") for line in lines)
    assert any(line.startswith("config.objectives.filip.weight was 1.0 and is now 0.5") for line in lines)
    assert len(lines) == 5


def test_another_batch_size_goes_on_where_the_examples_ended(stopped, capsys):
    assert train(config(steps=3, batch_size=16, **PLAIN), stopped) == 0
    said = capsys.readouterr().out
    assert "config.batch_size was 8 and is now 16: the data continue at example 16" in said
    assert "config.steps was 2 and is now 3" in said
    assert _meta(stopped)["examples"] == 32  # two batches of 8, then one of 16


def test_another_optimizer_is_named_and_nothing_is_written(stopped):
    before = (stopped / "config.json").read_text()
    for changes, said in (
        ({"optimizer__name": "lamb"}, "config.optimizer.name was 'adamw' and is now 'lamb'"),
        ({"optimizer__ema": 0.9}, "config.optimizer.ema was 0.0 and is now 0.9"),
        ({"model__embed_dim": 64}, "config.model.embed_dim was 32 and is now 64"),
    ):
        with pytest.raises(CheckpointError, match=said):
            train(config(steps=6, **PLAIN, **changes), stopped)
    assert (stopped / "config.json").read_text() == before


def test_clipping_can_be_turned_off_in_the_middle(tmp_path):
    assert train(config(steps=1, **PLAIN), tmp_path) == 0
    assert train(config(steps=2, optimizer__clip_norm=0.0, **PLAIN), tmp_path) == 0


HOLD = """
import sys, time
from vlc.train.workdir_lock import workdir_lock
from pathlib import Path
with workdir_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_by_name_and_a_killed_one_leaves_nothing_to_remove(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert first.stdout.readline() == "held\n"
    with pytest.raises(CheckpointError, match=rf"another run is in this workdir, process {first.pid} on .*, since 2"):
        train(config(**PLAIN), tmp_path)
    assert not (tmp_path / "config.json").exists()
    first.send_signal(signal.SIGKILL)
    first.wait()
    with workdir_lock(tmp_path):
        pass
    with workdir_lock(tmp_path):  # and again in the same process
        pass
