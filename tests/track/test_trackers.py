"""What each tool keeps of a run, read back from its own files, without any network; resumed runs go on in it."""

import io
import json
import os
import subprocess
import sys
import threading
import time
import types

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from vlc.errors import ConfigError
from vlc.track import Background, TrackedRun, Tracker, background, check_trackers, known_to, open_trackers
from vlc.track.code_state import code_state
from vlc.train.logging import MetricLog

CONFIG = {"steps": 4, "optimizer": {"lr": 0.001, "name": "adamw"}, "objectives": {"clip": {"weight": 1.0}}}


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 12, 3), 200, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def a_run_in_two_parts(workdir, tool):
    """Steps 1 to 3, killed; resumed from step 2, to step 4."""
    log = MetricLog(workdir, 0, [tool], CONFIG)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0 / step, "loss/clip": 2.0})
        if step == 2:
            log.pictures(step, {"dev/samples": png()})
    log.close()
    time.sleep(1.1)  # TensorBoard's files are named by the second
    log = MetricLog(workdir, 2, [tool], CONFIG)
    for step in (3, 4):
        log.write(step, {"loss": 1.0 / step, "loss/clip": 2.0})
    log.write(4, {"dev/score": 0.5})
    log.close()


WANTED = [(1, 1.0), (2, 1 / 2), (3, 1 / 3), (4, 1 / 4)]


def test_tensorboard(tmp_path):
    from tensorboardX.proto import event_pb2

    a_run_in_two_parts(tmp_path, "tensorboard")
    seen, pictures = {}, []
    for file in sorted((tmp_path / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        for event in _events(file.read_bytes(), event_pb2.Event):
            if event.HasField("session_log"):
                seen = {step: value for step, value in seen.items() if step <= event.step}
            for value in event.summary.value:
                if value.tag == "loss":
                    seen[event.step] = value.simple_value
                if value.HasField("image"):
                    pictures.append((event.step, value.tag, value.image.encoded_image_string, value.image.width))
    assert sorted(seen.items()) == [(step, pytest.approx(loss)) for step, loss in WANTED]
    assert pictures == [(2, "dev/samples", png(), 12)]


def _events(data, kind):
    """Of a file of records: length, checksum, content, checksum."""
    while data:
        size = int.from_bytes(data[:8], "little")
        event = kind()
        event.ParseFromString(data[12 : 12 + size])
        data = data[16 + size :]
        yield event


def test_mlflow(tmp_path, monkeypatch, caplog):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/server")
    a_run_in_two_parts(tmp_path / "clip", "mlflow")
    assert not caplog.text
    client = MlflowClient()
    experiment = client.get_experiment_by_name("vlc")
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((entry.step, entry.value) for entry in history) == WANTED
    assert run.info.run_name == "clip" and run.info.status == "FINISHED"
    assert run.data.params["optimizer.lr"] == "0.001" and run.data.tags["code.vlc"]
    assert run.data.metrics["dev/score"] == 0.5
    names = {file.path for file in client.list_artifacts(run.info.run_id, "dev/samples")}
    assert names == {"dev/samples/000000002.png"}


def test_trackio(tmp_path):
    """In a process of its own, which knows its folder from the start."""
    code = (
        "import json, sys\n"
        "from tests.track.test_trackers import a_run_in_two_parts\n"
        "from vlc.storage import place\n"
        "a_run_in_two_parts(place(sys.argv[1]), 'trackio')\n"
        "from trackio.sqlite_storage import SQLiteStorage as Kept\n"
        "runs = Kept.get_runs('vlc')\n"
        "print(json.dumps([runs, Kept.get_logs('vlc', runs[0]), Kept.get_run_config('vlc', runs[0])]))\n"
    )
    env = os.environ | {"TRACKIO_DIR": str(tmp_path / "board"), "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", code, str(tmp_path / "clip")]
    done = subprocess.run(run, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and "training goes on without" not in done.stderr, done.stderr
    runs, rows, config = json.loads(done.stdout.splitlines()[-1])
    assert len(runs) == 1 and runs[0].startswith("clip-") and config["optimizer.lr"] == 0.001
    assert [(row["step"], row["loss"]) for row in rows if "loss" in row] == WANTED
    assert [row["step"] for row in rows if "dev/samples" in row] == [2]
    assert [row["step"] for row in rows if "dev/score" in row] == [4]


def test_wandb(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_MODE", "offline")
    a_run_in_two_parts(tmp_path / "clip", "wandb")
    assert "training goes on" not in caplog.text
    records = _written_by_wandb(tmp_path / "clip" / "wandb")
    runs = {(record.run.run_id, record.run.display_name, record.run.project) for record in records if record.run.run_id}
    number = json.loads((tmp_path / "clip" / "track.json").read_text())["wandb"]
    assert runs == {(number, "clip", "vlc")}
    rows = [_wandb_row(record) for record in records if record.WhichOneof("record_type") == "history"]
    assert [(row["_step"], row["loss"]) for row in rows if "loss" in row] == WANTED
    assert [row["_step"] for row in rows if "dev/samples.path" in row] == [2]
    assert [row["_step"] for row in rows if "dev/score" in row] == [4]
    config = {item.key: json.loads(item.value_json) for record in records for item in record.run.config.update}
    assert config["optimizer"]["lr"] == 0.001 and config["code"]["vlc"]


def _written_by_wandb(folder):
    """Of both parts of the run, as soon as its service has written their ends."""
    for _ in range(100):
        files = sorted(folder.glob("offline-run-*/*.wandb"))
        records = [record for file in files for record in _wandb_records(file.read_bytes())]
        if sum(record.WhichOneof("record_type") == "exit" for record in records) == 2:
            return records
        time.sleep(0.1)
    raise AssertionError("the end of a run is missing")


def _wandb_records(data):
    """Of a log in LevelDB's format: blocks of 32 KiB, each part with checksum, length and kind before it."""
    from wandb.proto import wandb_internal_pb2

    at, part = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            part = b""
            yield record


def _wandb_row(record):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}


def test_a_tool_that_comes_later_is_told_all(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/server")
    log = MetricLog(tmp_path / "run", 0, [], CONFIG)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1.0 / step})
    log.close()
    log = MetricLog(tmp_path / "run", 2, ["mlflow"], CONFIG)
    for step in (3, 4):
        log.write(step, {"loss": 1.0 / step})
    log.close()
    from mlflow import MlflowClient

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("vlc").experiment_id])
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((entry.step, entry.value) for entry in history) == WANTED


# -- tools that fail


class Failing(Tracker):
    name = "failing"

    def __init__(self, fails=(), hangs=None):
        self.fails, self.hangs, self.calls = fails, hangs, []

    def _called(self, what):
        self.calls.append(what)
        if self.hangs is not None:
            self.hangs.wait(60)
        if what in self.fails:
            raise RuntimeError(f"no {what}\nand more")

    def start(self, run):
        self._called("start")

    def write(self, step, metrics):
        self._called("write")

    def picture(self, step, name, png):
        self._called("picture")

    def close(self):
        self._called("close")


@pytest.mark.parametrize("fails", ["start", "write", "picture", "close"])
def test_a_tool_that_fails_is_said_once(fails, tmp_path, caplog):
    tool = Failing(fails=(fails,))
    running = Background(tool, TrackedRun(tmp_path, CONFIG))
    for step in range(3):
        running.write(step, {"loss": 1.0})
        running.picture(step, "x", png())
    running.close()
    assert caplog.text.count("training goes on without") == 1 and f"no {fails}" in caplog.text
    assert tool.calls == (["start"] if fails == "start" else ["start", *3 * ["write", "picture"], "close"])


def test_a_tool_that_hangs_makes_nobody_wait(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(background, "_PATIENCE", 0.05)
    monkeypatch.setattr(background, "_WAITING", 5)
    released = threading.Event()
    running = Background(Failing(hangs=released), TrackedRun(tmp_path, CONFIG))
    for step in range(50):
        running.write(step, {"loss": 1.0})
    running.close()
    released.set()
    assert "does not keep up" in caplog.text


def test_what_waits_when_a_run_ends_is_told(tmp_path, monkeypatch, caplog):
    """The queue is full, but the tool only slow: it is told all of it, and closed."""
    monkeypatch.setattr(background, "_WAITING", 3)
    released = threading.Event()
    tool = Failing(hangs=released)
    running = Background(tool, TrackedRun(tmp_path, CONFIG))
    for step in range(10):
        running.write(step, {"loss": 1.0})
    threading.Timer(0.2, released.set).start()
    running.close()
    assert tool.calls[-1] == "close" and tool.calls.count("write") >= 3 and "does not keep up" in caplog.text


def test_names_of_runs_are_all_kept(tmp_path):
    """Each tool keeps its own from a thread of its own."""
    together = threading.Barrier(16)

    class Named(Failing):
        def __init__(self, number):
            super().__init__()
            self.number = number

        def start(self, run):
            together.wait(60)
            run.remember(f"tool-{self.number}", str(self.number))

    tools = iter(Named(number) for number in range(16))
    module = types.SimpleNamespace(Tool=lambda: next(tools))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vlc.track.open.importlib.import_module", lambda name: module)
        for running in open_trackers(["x"] * 16, tmp_path, CONFIG, 0):
            running.close()
    assert len(known_to(tmp_path)) == 16


def test_tools_that_are_not_there_are_named():
    with pytest.raises(ConfigError, match="twice"):
        check_trackers(["mlflow", "mlflow"])
    with pytest.raises(ConfigError, match=r'names "wanbd".*Did you mean "wandb"'):
        check_trackers(["wanbd"])


def test_tools_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'vlc-jax\[mlflow\]'"):
        check_trackers(["mlflow"])


def test_the_commit_that_runs_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert set(code_state()) == {"vlc"}
    for words in (
        ["init", "-q"],
        ["-c", "user.name=n", "-c", "user.email=e", "commit", "-q", "--allow-empty", "-m", "m"],
    ):
        subprocess.run(["git", *words], check=True)
    (tmp_path / "file").write_text("x")
    found = code_state()
    assert len(found["commit"]) == 40 and found["branch"] and found["changed"] == 1


def test_a_damaged_list_of_runs_is_begun_anew(tmp_path):
    (tmp_path / "track.json").write_text("[")
    for tool in open_trackers(["tensorboard"], tmp_path, CONFIG, 0):
        tool.close()
