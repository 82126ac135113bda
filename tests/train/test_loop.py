"""The whole command on real input: it trains, resumes to the bit, stops when asked, and refuses what cannot work."""

import copy
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, read_config
from vlc.commands.shared import exit_status
from vlc.data.images import Preprocess
from vlc.errors import CheckpointError, ConfigError, DataError, TrainingDiverged
from vlc.evaluate.dev import make_dev_evaluation
from vlc.inference import load
from vlc.parallel import EXIT_PREEMPTED
from vlc.storage import ObjectPath
from vlc.train import train
from vlc.train.checkpoint import Checkpoints
from vlc.train.logging import MetricLog
from vlc.train.restoring import make_meta
from vlc.train.resume import check_same_model
from vlc.train.trace import Trace, parse_steps

# CLIP alone, which compiles in half the time, where the objectives are not what is tried.
PLAIN = {"objectives__filip__weight": 0.0, "objectives__caption__weight": 0.0, "model__decoder__layers": 0}


def config(steps=4, **changes):
    made = read_config("quickstart", "smoke")
    made.steps, made.checkpoint.every, made.eval.every = steps, 2, steps
    made.mesh.data = 1
    made.mesh.fsdp = -1
    # So that runs of any length have one program, which is compiled once for all tests.
    made.optimizer.update({"schedule": "constant", "warmup_steps": 1})
    for key, value in changes.items():
        *parents, last = key.split("__")
        target = made
        for parent in parents:
            target = target[parent]
        target[last] = value
    return made


def final_checksums(workdir):
    """Checksums of every array of the last checkpoint, and the digest of the examples seen."""
    meta = _meta(workdir)
    return {path: array["checksum"] for path, array in meta["arrays"].items()}, meta["digest"], meta["step"]


def _meta(workdir):
    checkpoints = Checkpoints(workdir, read_only=True)
    _, meta = checkpoints.restore(lambda meta: {})
    checkpoints.close()
    return meta


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    assert train(config(), workdir, make_evaluation=make_dev_evaluation) == 0
    return workdir


def test_a_run_leaves_what_it_should(finished):
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == [1, 2, 3, 4]
    assert {"loss/clip", "loss/filip", "loss/caption", "grad_norm", "images_per_second"} <= rows[0].keys()
    assert {"input_wait", "input/read", "input/image", "input/text", "seen"} <= rows[0].keys()
    shares = {name: value for name, value in rows[-2].items() if name.startswith("time/")}
    assert sum(shares.values()) == pytest.approx(1, abs=0.01) and shares["time/compilation"] > shares["time/input"]
    assert 0 <= rows[-1]["dev/score"] <= 1
    assert (finished / "tokenizer.model").exists() and list((finished / "tensorboard").iterdir())
    meta = _meta(finished)
    assert meta["config"]["steps"] == 4 and meta["preprocess"]["size"] == 32


@pytest.mark.slow
def test_steps_are_traced_with_the_names_of_their_parts(tmp_path, capsys):
    assert train(config(), tmp_path, profile=(2, 3)) == 0
    assert "Profile of steps 2 to 3" in capsys.readouterr().out
    traces = list((tmp_path / "profile").rglob("*.xplane.pb"))
    written = b"".join(path.read_bytes() for path in traces)
    for name in (b"image_tower", b"text_tower", b"late_interaction", b"decoder", b"optimizer"):
        assert name in written, name


def test_steps_to_trace_are_read():
    assert parse_steps("") is None and parse_steps("10:15") == (10, 15)
    for text in ("10", "15:10", "0:3", "a:b"):
        with pytest.raises(ConfigError, match="10:15"):
            parse_steps(text)


def test_a_finished_run_does_nothing_more(finished):
    before = final_checksums(finished)
    assert train(config(), finished) == 0
    assert final_checksums(finished) == before


def test_a_run_that_is_cut_ends_with_the_same_bits(finished, tmp_path):
    """Cut after each part, with other steps in between: parameters, optimizer and examples are those of one run."""
    made = config()
    made.objectives.caption.null_rate = 0.5
    assert train(made, tmp_path / "whole") == 0
    for steps in (2, 4):
        part = made.copy_and_resolve_references()
        part.optimizer.schedule = made.optimizer.schedule
        _train_until(part, tmp_path / "cut", steps)
    assert final_checksums(tmp_path / "cut") == final_checksums(tmp_path / "whole")
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4]


def _train_until(made, workdir, steps):
    """Runs the same config, but is asked to stop at a step, as by SIGTERM."""

    def stop_at(config):
        def evaluate(graph, params, tokenizer):
            os.kill(os.getpid(), signal.SIGTERM)
            return {}

        return evaluate

    made.eval.every = steps
    assert train(made, workdir, make_evaluation=stop_at) == (EXIT_PREEMPTED if steps < made.steps else 0)


def test_another_model_in_the_same_workdir_is_refused(finished):
    with pytest.raises(CheckpointError, match=r"config.model.embed_dim was 32 and is now 64"):
        train(config(steps=6, model__embed_dim=64), finished)
    with pytest.raises(CheckpointError, match=r"config.data.image.mean"):
        train(config(steps=6, data__image__mean=(0.1, 0.1, 0.1)), finished)


def test_another_tokenizer_is_refused(finished, tmp_path, tokenizer):
    tokenizer.save(tmp_path / "other.model")
    with pytest.raises(CheckpointError, match="tokenizer is another one"):
        train(config(steps=6, data__tokenizer=str(tmp_path / "other.model")), finished)


def test_a_checkpoint_from_before_a_setting_existed_fits(tokenizer):
    saved = json.loads(config().to_json_best_effort())
    now = make_meta(saved, tokenizer, Preprocess(32))
    before = copy.deepcopy(now)
    del before["config"]["data"]["image"]["augment"]
    check_same_model(before, now, "x")
    before["config"]["data"]["image"]["size"] = 64
    with pytest.raises(CheckpointError, match=r"config.data.image.size was 64"):
        check_same_model(before, now, "x")


def test_what_cannot_work_stops_before_compilation(tmp_path):
    for changes, said in (
        ({"batch_size": 12}, "divisible by 8"),
        ({"mesh__tensor": 5}, "does not fit 8 devices"),
        ({"data__image__size": 33}, "does not divide"),
        ({"optimizer__name": "adam"}, "adamw"),
        ({"data__captions__mix": "raw"}, "has captions from alt, short, long, reference"),
        ({"model__decoder__layers": 0}, "no captioner"),
        ({"objectives__grouping__weight": 1.0}, "sub_captions"),
    ):
        with pytest.raises(ConfigError, match=said):
            train(config(**changes), tmp_path)


def test_a_loss_that_is_not_finite_stops_with_step_term_and_checkpoint(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"Step \d+: .*loss.*The last good checkpoint is step 2") as error:
        changes = {"optimizer__lr": 1e30, "optimizer__warmup_steps": 3, "optimizer__clip_norm": 0.0}
        train(config(steps=40, **changes, **PLAIN), tmp_path)
    assert "lr" in str(error.value) and error.value.again and exit_status(error.value) == 77
    with pytest.raises(TrainingDiverged) as error:  # the same bits again: it was not the hardware
        train(config(steps=40, **changes, **PLAIN), tmp_path)
    assert not error.value.again and exit_status(error.value) == 3


def test_a_trained_model_can_be_used(finished, tmp_path):
    from PIL import Image

    model = load(finished)
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    image = model.encode_image([tmp_path / "red.png", np.zeros((10, 20, 3), np.uint8)])
    assert image.embed.shape == (2, 32) and image.tokens.shape == (2, 16, 32)
    for by in ("embed", "tokens"):
        assert model.score([tmp_path / "red.png"], ["a red circle", "a star"], by=by).shape == (1, 2)
    assert len(model.caption(tmp_path / "red.png", guidance_scale=2.0)) == 1
    pieces, maps = model.word_maps(tmp_path / "red.png", "a red circle")
    assert len(pieces) == len(maps) and maps.shape[1:] == (4, 4)
    with pytest.raises(ConfigError, match="0 or more"):
        model.caption(tmp_path / "red.png", guidance_scale=-1)


def test_one_device_loads_what_eight_trained(finished):
    model = load(finished)
    assert {d for leaf in jax.tree.leaves(model._params) for d in leaf.devices()} == {jax.devices()[0]}


@pytest.mark.slow
def test_killed_while_saving_it_ends_with_the_same_bits(tmp_path):
    """SIGKILL while checkpoints are written; `benchmarks/kills.py` does this twenty times at random moments."""
    command = [sys.executable, "-m", "vlc.cli", "train", "--config", f"{ROOT}/configs/quickstart.py:smoke"]
    settings = ["--config.steps=12", "--config.checkpoint.every=1", "--config.eval.every=1000"]
    settings += [f"--config.{key.replace('__', '.')}={value}" for key, value in PLAIN.items()]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}

    def start(workdir):
        return subprocess.Popen(
            [*command, "--workdir", str(workdir), *settings], env=environment, cwd=ROOT,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    whole = start(tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr.read()
    run = start(tmp_path / "killed")
    checkpoints, deadline = tmp_path / "killed" / "checkpoints", time.time() + 200
    while time.time() < deadline and run.poll() is None and len(list(checkpoints.glob("[0-9]*"))) < 3:
        time.sleep(0.01)
    run.kill()
    assert run.wait() == -signal.SIGKILL, "it was over before it was killed"
    last = start(tmp_path / "killed")
    assert last.wait() == 0, last.stderr.read()
    assert final_checksums(tmp_path / "killed") == final_checksums(tmp_path / "whole")


def test_the_moving_average_is_what_is_loaded(tmp_path):
    assert train(config(optimizer__ema=0.5, **PLAIN), tmp_path) == 0
    arrays = _meta(tmp_path)["arrays"]
    averaged = {path for path in arrays if path.startswith("ema/")}
    assert averaged and any(arrays[path] != arrays["params" + path.removeprefix("ema")] for path in averaged)
    assert load(tmp_path).step == 4


def test_a_full_disk_is_one_message_and_keeps_what_was_saved(tmp_path, monkeypatch):
    from vlc.train import checkpoint

    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(1, {"step": jax.numpy.int32(1)}, {})
    checkpoints.wait()

    def full(*args, **kwargs):
        raise ValueError("RESOURCE_EXHAUSTED: No space left on device\nand three hundred lines more")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(
        CheckpointError, match=r"step 2, or the one before, could not be written \(RESOURCE_EXHAUSTED.*Kept: \[1\]"
    ):
        checkpoints.save(2, {"step": jax.numpy.int32(2)}, {})


@pytest.mark.parametrize("place", ["a file", "below a file", "nowhere"])
def test_a_workdir_that_cannot_be_one_is_said(tmp_path, place):
    (tmp_path / "file").write_text("x")
    workdir = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "run", "nowhere": Path("/proc/run")}
    with pytest.raises(ConfigError, match=r"cannot be written .*name another place by --workdir"):
        train(config(**PLAIN), workdir[place])


def test_the_clock_saves_as_well(tmp_path, monkeypatch):
    ticks = itertools.count(0, 7)
    monkeypatch.setattr("vlc.train.save_clock.time", types.SimpleNamespace(monotonic=ticks.__next__))
    made = config(steps=6, log_every=1, checkpoint__every=1000, checkpoint__keep_last=9, **PLAIN)
    for minutes, saved in ((0.0, [6]), (0.5, [5, 6])):
        made.checkpoint.every_minutes = minutes
        assert train(made, tmp_path / str(minutes)) == 0
        assert Checkpoints(tmp_path / str(minutes), read_only=True).steps() == saved


def test_the_loggers_of_other_libraries_speak_again(tmp_path):
    logging.getLogger("orbax").setLevel(logging.INFO)
    Checkpoints(tmp_path).close()
    assert logging.getLogger("orbax").level == logging.INFO
    logging.getLogger("orbax").setLevel(logging.NOTSET)


def test_pictures_that_cannot_be_drawn_never_stop_a_run(tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise ValueError("no font")

    monkeypatch.setattr("vlc.evaluate.dev._pictures", broken)
    made = config(steps=2, eval__every=1, **PLAIN)
    assert train(made, tmp_path, make_evaluation=make_dev_evaluation) == 0
    assert "No pictures" in caplog.text and '"dev/score"' in (tmp_path / "metrics.jsonl").read_text()


def test_logs_that_cannot_be_written_never_stop_a_run(tmp_path, monkeypatch, caplog):
    """A store that fails while logs are written, closed, or a profile is uploaded."""

    def away(*_):
        raise OSError(5, "the store is away", "x")

    run = ObjectPath(f"memory:///logs-{tmp_path.name}")
    monkeypatch.setenv("VLC_CACHE", str(tmp_path))
    monkeypatch.setattr("vlc.storage.appended._EVERY", 0.01)
    monkeypatch.setattr(ObjectPath, "write_bytes", away)
    log = MetricLog(run, 0, ["tensorboard"])
    for step in range(3):
        log.write(step, {"loss": 1.0})
        time.sleep(0.6)
    log.close()
    assert "metrics.jsonl cannot be written" in caplog.text and "tensorboard cannot be written" in caplog.text
    monkeypatch.setattr("vlc.train.trace.upload", away)
    trace = Trace(run, (1, 1))
    trace.before(1)
    trace.after(1, ())
    assert "the profile is in" in caplog.text


def test_lost_data_are_named_and_what_was_learnt_is_saved(tmp_path, monkeypatch):
    folder = images_with_texts(tmp_path / "data", 24)
    monkeypatch.setattr("vlc.data.pipeline._SUBSTITUTES", 24)
    made = config(steps=200, data__train=str(folder), data__vocab_size=64, checkpoint__every=1000, **PLAIN)

    def lose(*_):  # after the second step
        for file in folder.glob("*.png"):
            file.unlink()
        return {}

    made.eval.every = 2
    with pytest.raises(DataError, match=r"(?s)24 records in a row.*\.png.*Saved at step \d+; the same command"):
        train(made, tmp_path / "run", make_evaluation=lambda config: lose)
    assert _meta(tmp_path / "run")["step"] >= 2


def images_with_texts(folder, count):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture number {number} of {count}, a red one at the left")
    return folder


def test_captions_that_are_cut_are_said(tmp_path, capsys):
    folder = images_with_texts(tmp_path / "data", 8)
    for length in (8, 48):
        made = config(steps=1, data__train=str(folder), data__vocab_size=64, model__text__length=length, **PLAIN)
        assert train(made, tmp_path / str(length)) == 0
        said = "8 of 8 sampled captions are longer than config.model.text.length=8 tokens" in capsys.readouterr().out
        assert said == (length == 8)


def test_flips_of_captions_with_sides_are_warned_of(tmp_path, capsys):
    folder = images_with_texts(tmp_path / "data", 8)
    for flip in (False, True):
        made = config(steps=1, data__train=str(folder), data__vocab_size=64, data__image__flip=flip, **PLAIN)
        assert train(made, tmp_path / str(flip)) == 0
        said = capsys.readouterr().out
        assert ("the captions of 8 of 8 sampled records say left or right" in said) == flip


STUCK = """
import os, sys, time
from vlc.cli import main
from vlc.data.sources.scenes.source import Scenes

whole = Scenes.__getitem__

def stuck(self, index):
    if os.path.exists(FOLDER + "/stuck"):
        time.sleep(1000)
    return whole(self, index)

Scenes.__getitem__ = stuck
FOLDER = sys.argv[1]
sys.argv = ["vlc", "train", "--config", "configs/clip_b16.py:smoke", "--workdir", FOLDER + "/run"]
sys.argv += ["--config.steps=1000000", "--config.mesh.data=1", "--config.eval.every=1000000"]
sys.exit(main())
"""


@pytest.mark.slow
def test_sigterm_before_the_first_batch_is_a_preemption(tmp_path):
    (tmp_path / "stuck").touch()
    late = STUCK.replace("    if os.path", "    if sys._getframe(1).f_code.co_name == 'random_map' and os.path")
    command = [sys.executable, "-c", late, str(tmp_path)]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not (tmp_path / "run" / "config.json").exists() and run.poll() is None:  # every check has passed
        time.sleep(0.1)
    time.sleep(2)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == EXIT_PREEMPTED, said
    assert "Asked to stop: saved at step 0" in said and _meta(tmp_path / "run")["step"] == 0


def test_an_unshared_workdir_is_named_before_anything_is_read_from_it(tmp_path, monkeypatch):
    def unshared(*_):
        raise ConfigError("not shared")

    def read(*_):
        raise AssertionError("the workdir's checkpoints were read first")

    monkeypatch.setattr("vlc.train.loop.check_shared", unshared)
    monkeypatch.setattr("vlc.train.loop.newest_meta", read)
    with pytest.raises(ConfigError, match="not shared"):
        train(config(**PLAIN), tmp_path)


def test_sigterm_saves_and_leaves_when_data_do_not_come(tmp_path):
    command = [sys.executable, "-c", STUCK, str(tmp_path)]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    for line in run.stdout:
        if line.startswith("step 3/"):
            break
    (tmp_path / "stuck").touch()
    time.sleep(1.5)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=60)[0]
    assert run.returncode == EXIT_PREEMPTED and "Asked to stop: saved at step" in said
