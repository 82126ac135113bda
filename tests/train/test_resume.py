"""What may change when a run is resumed is said; what may not is refused; two runs never share a workdir."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image
from tensorboardX.record_writer import RecordWriter

from tests.conftest import ROOT
from tests.train.test_loop import PLAIN, _meta, config
from vlc.errors import CheckpointError, StartError
from vlc.train import data_identity, train
from vlc.train.checkpoint import Checkpoints
from vlc.train.logging import MetricLog
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
    assert any(line.startswith("config.optimizer.lr was 0.004 and is now 0.0005") for line in lines)
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
        ({"optimizer__name": "lamb"}, "config.optimizer.name was 'muon' and is now 'lamb'"),
        ({"optimizer__ema": 0.9}, "config.optimizer.ema was 0.0 and is now 0.9"),
        ({"model__embed_dim": 64}, "config.model.embed_dim was 32 and is now 64"),
    ):
        with pytest.raises(CheckpointError, match=said):
            train(config(steps=6, **PLAIN, **changes), stopped)
    assert (stopped / "config.json").read_text() == before


@pytest.mark.slow
def test_clipping_can_be_turned_off_in_the_middle(tmp_path):
    assert train(config(steps=1, **PLAIN), tmp_path) == 0
    assert train(config(steps=2, optimizer__clip_norm=0.0, **PLAIN), tmp_path) == 0


@pytest.mark.slow
def test_the_best_is_kept_whenever_it_was_evaluated(tmp_path):
    """Evaluated at steps 3, 6, 9 and 12, saved every 4: the best of them is on disk all the same."""
    scores = iter((0.9, 0.8, 0.7, 0.1))
    made = config(steps=12, **PLAIN)
    made.eval.every, made.checkpoint.every, made.checkpoint.keep_last = 3, 4, 1
    evaluation = lambda config: lambda *_: {"score": next(scores)}  # noqa: E731
    assert train(made, tmp_path, make_evaluation=evaluation) == 0
    checkpoints = Checkpoints(tmp_path, read_only=True)
    assert checkpoints.steps() == [3, 12] and checkpoints.best_step() == 3 and checkpoints.best_score() == 0.9
    checkpoints.close()
    made.steps, scores = 15, iter((0.85,))  # the best so far is remembered
    assert train(made, tmp_path, make_evaluation=lambda config: lambda *_: {"score": next(scores)}) == 0
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").glob("[0-9]*")) == [3, 15]


def test_the_tokenizers_file_is_not_needed_any_more(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "words.model")
    made = config(steps=1, data__tokenizer=str(tmp_path / "words.model"), **PLAIN)
    assert train(made, tmp_path / "run") == 0
    (tmp_path / "words.model").unlink()
    made.steps = 2
    assert train(made, tmp_path / "run") == 0


def test_another_data_set_is_said(tmp_path, capsys):
    for count in (40, 17):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
            (folder / f"{number}.txt").write_text(f"picture number {number} of {count}")
        made = config(steps=41 - count, data__train=str(folder), data__vocab_size=64, **PLAIN)
        made.steps = 1 if count == 40 else 2
        assert train(made, tmp_path / "run") == 0
    assert "the training data were 40 records (" in (said := capsys.readouterr().out) and "are now 17 records (" in said


def test_hosts_with_other_data_do_not_train_together(monkeypatch):
    everywhere = [{"records": 40, "digest": "aa"}, {"records": 40, "digest": "aa"}, {"records": 39, "digest": "bb"}]
    monkeypatch.setattr(data_identity, "allgather_objects", lambda value: everywhere)
    with pytest.raises(StartError, match=r"Process 2 reads other data than process 0: 39 records \(bb\) instead of 40"):
        data_identity.check_same_data(everywhere[0])


def test_a_disk_that_takes_no_logs_does_not_stop_a_run(tmp_path, caplog):
    """Full, or gone: here the files' places are taken by things that cannot be written."""
    (tmp_path / "metrics.jsonl").mkdir()
    (tmp_path / "tensorboard").write_text("not a folder")
    assert train(config(steps=3, **PLAIN), tmp_path) == 0
    said = [record.message for record in caplog.records if "training goes on without" in record.message]
    assert len(said) == 2 and any("metrics.jsonl" in line for line in said)


def test_a_full_disk_is_noticed_where_it_happens_and_logs_go_on_later(tmp_path, monkeypatch, caplog):
    log, full = MetricLog(tmp_path, 0, ["tensorboard"]), [True]
    log.write(1, {"loss": 1.0})
    _told(log)
    monkeypatch.setattr(RecordWriter, "write", _unless(full, RecordWriter.write))
    for step in range(2, 60):  # more than any queue holds
        log.write(step, {"loss": 1.0})
    _told(log)
    full.clear()
    log.write(60, {"loss": 2.0})
    log.close()
    assert sum("training goes on without" in record.message for record in caplog.records) == 1
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 61)) and len(list((tmp_path / "tensorboard").iterdir())) >= 1


def _told(log):
    """Waits until the tools know all that was written."""
    done = threading.Event()
    log._tools[0]._put(done.set)
    assert done.wait(60)


def _unless(full, write):
    def writes(self, data):
        if full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    return writes


def test_lines_that_are_no_metrics_are_dropped_at_a_resume(tmp_path):
    good = "".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (1, 2, 3))
    (tmp_path / "metrics.jsonl").write_text(good + '[1]\n{"loss": 3}\n\x00\x00\n{"step": 2, "lo')
    log = MetricLog(tmp_path, 2)
    log.write(3, {"loss": 0.5})
    log.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 1.0), (3, 0.5)]


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
