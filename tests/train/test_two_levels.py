"""Copies on the hosts' disks: the run goes on from the newest state that can be put together, and past an outage."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.kills import ending, shards_in
from launch.local import free_port
from tests import buckets
from tests.conftest import ROOT
from tests.faulty_proxy import Faults, faulty_proxy
from tests.storage.conftest import gcs  # noqa: F401
from tests.train.test_checkpoint import abstract, equal, state
from vlc.commands.shared import EXIT_STORE_AWAY
from vlc.errors import CheckpointError
from vlc.storage import Unreachable, place
from vlc.train import bucket_checkpoint, damage, host_copies
from vlc.train.checkpoint import open_checkpoints
from vlc.train.host_copies import HostCopies, step_of


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(damage, "PAUSES", (0.0, 0.0, 0.0, 0.0))


@pytest.fixture(params=["bucket", "disk"])
def workdir(request, tmp_path):
    if request.param == "disk":
        return tmp_path / "run"
    return place(f"memory:///{tmp_path.parent.name}-{tmp_path.name}/run")


@pytest.fixture
def bucket(tmp_path):
    return place(f"memory:///{tmp_path.parent.name}-{tmp_path.name}/run")


def opened(workdir, tmp_path):
    return open_checkpoints(workdir, copies=str(tmp_path / "copies"))


def restored(workdir, tmp_path):
    checkpoints = opened(workdir, tmp_path)
    found = checkpoints.restore(lambda meta: abstract(state(0)))
    checkpoints.wait()
    checkpoints.close()
    return None if found is None else (found[0], found[1])


def run_of(workdir, tmp_path):
    """A checkpoint of step 2 in the workdir, and copies of 2, 3 and 4, of which the newest two stay."""
    checkpoints = opened(workdir, tmp_path)
    assert checkpoints.restore(lambda meta: abstract(state(0))) is None
    checkpoints.save(2, state(2), {"note": 2}, score=0.5)
    checkpoints.wait()
    for step in (3, 4):
        checkpoints.copy(step, state(step), {"note": step})
        checkpoints._near.wait()
    checkpoints.close()
    return tmp_path / "copies"


def copies_in(folder):
    return sorted(step_of(path.parent.parent.name) for path in folder.rglob("copy.json"))


def test_a_run_goes_on_from_the_newest_copy(workdir, tmp_path):
    folder = run_of(workdir, tmp_path)
    assert copies_in(folder) == [3, 4] and open_checkpoints(workdir, read_only=True).steps() == [2]
    found, meta = restored(workdir, tmp_path)
    assert meta["note"] == 4 and equal(found, state(4))
    # The workdir has it now as well, so that the next host to fail costs nothing.
    assert open_checkpoints(workdir, read_only=True).steps() == [2, 4]
    shutil.rmtree(folder)
    found, meta = restored(workdir, tmp_path)
    assert meta["note"] == 4 and equal(found, state(4))


def test_a_damaged_copy_is_passed_over(workdir, tmp_path, caplog):
    folder = run_of(workdir, tmp_path)
    data = next(path for path in folder.rglob("data-0000.bin") if step_of(path.parent.parent.name) == 4)
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    found, meta = restored(workdir, tmp_path)
    assert meta["note"] == 3 and equal(found, state(3)) and "copies of step 4" in caplog.text
    shutil.rmtree(folder)


@pytest.mark.parametrize("spoil", ["cut", "no index", "no copy.json", "no json", "another config"])
def test_what_a_kill_leaves_is_no_copy(spoil, workdir, tmp_path):
    folder = run_of(workdir, tmp_path)
    newest = next(path.parent for path in folder.rglob("copy.json") if step_of(path.parent.parent.name) == 4)
    if spoil == "cut":
        (newest / "data-0000.bin").write_bytes(b"")
    elif spoil == "no index":
        (newest / "index.json").unlink()
    elif spoil == "no copy.json":
        (newest / "copy.json").unlink()
    elif spoil == "another config":  # valid, and not what was written
        (newest / "copy.json").write_text((newest / "copy.json").read_text().replace('"note": 4', '"note": 5'))
    else:
        (newest / "copy.json").write_text("{")
    found, meta = restored(workdir, tmp_path)
    assert meta["note"] == 3 and equal(found, state(3))


def test_copies_of_an_earlier_run_of_the_workdir_are_not_used(bucket, tmp_path):
    """Whoever empties a workdir begins anew, though the hosts still have copies; those leave at the first save."""
    folder = run_of(bucket, tmp_path)
    for path in list(bucket.rglob("*")):
        path.unlink()
    assert restored(bucket, tmp_path) is None
    assert copies_in(folder) == [3, 4]
    checkpoints = opened(bucket, tmp_path)
    checkpoints.copy(1, state(1), {})
    checkpoints.close()
    assert copies_in(folder) == [1]


def test_the_model_must_fit(workdir, tmp_path):
    run_of(workdir, tmp_path)
    other = abstract(state(0))
    del other["params"]["b"]
    with pytest.raises(CheckpointError, match="x/y"):
        opened(workdir, tmp_path).restore(lambda meta: abstract({"params": {"x": {"y": state(0)["step"]}}}))
    assert copies_in(tmp_path / "copies") == [3, 4]


def test_a_store_that_is_away_does_not_end_a_run(bucket, tmp_path, monkeypatch, caplog):
    checkpoints = opened(bucket, tmp_path)
    checkpoints.restore(lambda meta: abstract(state(0)))
    checkpoints.save(1, state(1), {"note": 1})
    checkpoints.wait()

    def away(*_):
        raise Unreachable(5, "away", "memory://")

    with monkeypatch.context() as outage:
        outage.setattr(bucket_checkpoint, "write_pieces", away)
        for step in (2, 3, 4):
            checkpoints.save(step, state(step), {"note": step})
            checkpoints._far._thread.join()
            checkpoints._near.wait()
    assert "the run goes on, with copies" in caplog.text and copies_in(tmp_path / "copies") == [3, 4]
    for step in (5, 6):
        checkpoints.save(step, state(step), {"note": step})
        checkpoints.wait()
    assert "there again" in caplog.text
    assert checkpoints.steps()[-1] == 6 and open_checkpoints(bucket, read_only=True).steps() == [5, 6]
    checkpoints.close()


def test_a_slow_store_makes_nobody_wait(bucket, tmp_path, monkeypatch):
    """The checkpoint that it has no time for is left out; the last one is made of its copy."""
    checkpoints = opened(bucket, tmp_path)
    checkpoints.restore(lambda meta: abstract(state(0)))
    whole, released = bucket_checkpoint.write_pieces, threading.Event()

    def slow(folder, held):
        assert released.wait(60)
        whole(folder, held)

    with monkeypatch.context() as patched:
        patched.setattr(bucket_checkpoint, "write_pieces", slow)
        checkpoints.save(1, state(1), {"note": 1})
        checkpoints._near.wait()
        checkpoints.save(2, state(2), {"note": 2}, score=0.25)  # comes back, though the first is not written
        released.set()
    checkpoints.wait()
    checkpoints.close()
    far = open_checkpoints(bucket, read_only=True)
    assert far.steps() == [1, 2] and far.best_score() == 0.25
    found, _ = far.restore(lambda meta: abstract(state(0)), step=2)
    assert equal(found, state(2))


def test_a_last_checkpoint_that_cannot_be_made_of_its_copy_is_said(bucket, tmp_path, monkeypatch):
    """The bucket had no time for it, and the copy was damaged meanwhile: the run does not end as if all were well."""
    checkpoints = opened(bucket, tmp_path)
    checkpoints.restore(lambda meta: abstract(state(0)))
    whole, released = bucket_checkpoint.write_pieces, threading.Event()
    monkeypatch.setattr(bucket_checkpoint, "write_pieces", lambda *given: released.wait(60) and whole(*given))
    checkpoints.save(1, state(1), {"note": 1})
    checkpoints._near.wait()
    checkpoints.save(2, state(2), {"note": 2})
    released.set()
    data = next(path for path in (tmp_path / "copies").rglob("data-0000.bin") if step_of(path.parent.parent.name) == 2)
    data.write_bytes(bytes(len(data.read_bytes())))
    with pytest.raises(CheckpointError, match=r"step 2 could not be written .*Kept: \[1\]"):
        checkpoints.wait()
    checkpoints.close()


def test_a_copy_that_takes_long_is_said_once(bucket, tmp_path, monkeypatch, caplog):
    checkpoints = opened(bucket, tmp_path)
    checkpoints.restore(lambda meta: abstract(state(0)))
    whole, released = host_copies.write_pieces, threading.Event()
    monkeypatch.setattr(host_copies, "write_pieces", lambda *given: released.wait(60) and whole(*given))
    for step in (1, 2, 3):
        checkpoints.copy(step, state(step), {"note": step})
    released.set()
    checkpoints.close()
    assert caplog.text.count("still being written") == 1 and copies_in(tmp_path / "copies") == [1]


def test_a_full_disk_of_a_host_is_said_once(bucket, tmp_path, caplog):
    (tmp_path / "copies").write_text("a file is in the way")
    checkpoints = opened(bucket, tmp_path)
    checkpoints.restore(lambda meta: abstract(state(0)))
    for step in (1, 2):
        checkpoints.save(step, state(step), {"note": step})
        checkpoints.wait()
    checkpoints.close()
    assert open_checkpoints(bucket, read_only=True).steps() == [1, 2]
    assert caplog.text.count("no copy could be written") == 1


def test_a_variable_that_is_not_set_is_named(bucket):
    with pytest.raises(CheckpointError, match=r"NO_SUCH_VARIABLE.*not set"):
        open_checkpoints(bucket, copies="$NO_SUCH_VARIABLE/copies")


def test_copies_are_of_their_workdir(tmp_path):
    names = {HostCopies(tmp_path, place(name), "1").folder for name in ("memory:///a", "memory:///b")}
    assert len(names) == 2


# -- two processes, each as if it had a host of its own

STEPS = 24
SMALL = [f"--config.steps={STEPS}", "--config.checkpoint.every=6", "--config.checkpoint.copies=$HOST_DISK",
         "--config.checkpoint.copies_every=1", "--config.eval.every=100000", "--config.log_every=1",
         "--config.data.vocab_size=300", "--config.model.image.layers=1", "--config.model.text.layers=1",
         "--config.model.decoder.layers=1"]  # fmt: skip


def two_processes(workdir, data, disks, *more):
    """Starts a run whose processes have disks of their own."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "vlc.cli", "train", "--config", "configs/quickstart.py:smoke", *SMALL, *more]
    command += [f"--workdir={workdir}", f"--config.data.train={data}", f"--coordinator={address}", "--processes=2"]
    common = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
    runs = []
    for process, disk in enumerate(disks):
        own = {
            "PYTHONPATH": str(ROOT),
            "HOST_DISK": str(disk),
            "VLC_CACHE": f"{disk}-cache",
            "JAX_NUM_CPU_DEVICES": "1",
        }
        runs.append(subprocess.Popen(
            [*command, f"--process={process}"], cwd=ROOT, env=common | own, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        ))  # fmt: skip
    return runs


def ends(runs):
    """What two processes say until they end, and how they end."""
    said = [run.communicate(timeout=300)[0] for run in runs]
    return "\n".join(said), [run.returncode for run in runs]


def kill(runs):
    for run in runs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


def killed_after(reached, workdir, data, disks, *more):
    """Runs until `reached()`, and kills both processes; the newest step that both disks have a copy of."""
    runs = two_processes(workdir, data, disks, *more)
    until(reached, runs)
    kill(runs)
    return min(newest_in(disk) for disk in disks)


def newest_in(disk):
    return max(copies_in(disk), default=0)


def committed(workdir):
    return any(path.name == "commit.json" for path in (place(workdir) / "checkpoints").rglob("*"))


def until(reached, runs):
    end = time.monotonic() + 200
    while not reached():
        assert time.monotonic() < end and all(run.poll() is None for run in runs), ends(runs)
        time.sleep(0.02)


@pytest.fixture
def store(gcs, tmp_path):  # noqa: F811
    with buckets.environment(buckets.gcs_environment(gcs)):
        yield f"gs://{buckets.BUCKET}/{tmp_path.name}"


@pytest.fixture(scope="module")
def wanted(tmp_path_factory):
    """How an undisturbed run ends."""
    folder = tmp_path_factory.mktemp("whole")
    said, codes = ends(two_processes(folder / "run", shards_in(folder / "data"), [folder / "w0", folder / "w1"]))
    assert codes == [0, 0], said
    return ending(folder / "run")


def lost(workdir, data, disks, gone, *more, saved=False):
    """Kills a run, when the workdir has a checkpoint where that is `saved`, and takes disks away; the steps that were
    reached and gone on from, how it ends, and what it says."""

    def ready():
        return all(newest_in(disk) >= 9 for disk in disks) and (not saved or committed(workdir))

    reached = killed_after(ready, workdir, data, disks, *more)
    for disk in gone:
        shutil.rmtree(disk)
    said, codes = ends(two_processes(workdir, data, disks, *more))
    assert codes == [0, 0] and "Resuming from step " in said, said
    for disk in disks:
        shutil.rmtree(disk)
    resumed = int(said.partition("Resuming from step ")[2].partition(" ")[0])
    return reached, resumed, ending(place(workdir)), said


@pytest.mark.slow
def test_hosts_that_have_the_same(store, wanted, tmp_path):
    """Data parallel: processes killed, or a disk of a host lost as well: the same bits, and a step lost at the most."""
    disks, data = [tmp_path / "d0", tmp_path / "d1"], shards_in(place(store) / "data")
    reached, resumed, found, said = lost(f"{store}/disk", data, disks, disks[1:])
    assert resumed >= reached - 1 and found == wanted, said
    assert "the others give theirs" in said or resumed % 6 == 0, said  # of which the bucket has a checkpoint
    reached, resumed, found, said = lost(f"{store}/processes", data, disks, ())
    assert resumed >= reached - 1 and found == wanted and "others" not in said, said


@pytest.mark.slow
def test_hosts_that_have_different_parts(store, tmp_path):
    """fsdp: with a disk the steps since the workdir's checkpoint are lost; without disks the same."""
    disks, data = [tmp_path / "d0", tmp_path / "d1"], shards_in(place(store) / "data")
    mesh = ["--config.mesh.data=1", "--config.mesh.fsdp=2", "--config.steps=48"]
    _, resumed, found, said = lost(f"{store}/disk", data, disks, disks[1:], *mesh, saved=True)
    assert resumed >= 6 and ("no other host has its part" in said or resumed % 6 == 0), said
    reached, resumed, other, said = lost(f"{store}/processes", data, disks, (), *mesh)
    assert resumed >= reached - 1 and other == found and found["step"] == 48, said


@pytest.mark.slow
def test_a_bucket_that_is_away_for_long(gcs, wanted, tmp_path):  # noqa: F811
    """The store is away from a save in the middle to the end of the run, longer than it is waited for."""
    disks, faults = [tmp_path / "d0", tmp_path / "d1"], Faults()
    data = shards_in(tmp_path / "here")
    often = ["--config.checkpoint.every=2"]
    with faulty_proxy(gcs, faults) as proxy, buckets.environment(buckets.gcs_environment(proxy)):
        workdir = f"gs://{buckets.BUCKET}/outage"
        with buckets.environment({"VLC_STORE_PATIENCE": "3"}):
            runs = two_processes(workdir, data, disks, *often)
            until(lambda: all(newest_in(disk) >= 3 for disk in disks), runs)
            faults.busy_until = time.monotonic() + 3600
            said, codes = ends(runs)
        reached = min(newest_in(disk) for disk in disks)
        # It went on to its last step, whose checkpoint found no store: launchers start it again.
        assert EXIT_STORE_AWAY in codes and reached == STEPS, said
        faults.busy_until = 0.0
        said, codes = ends(two_processes(workdir, data, disks, *often))
        assert codes == [0, 0] and f"Resuming from step {STEPS}" in said, said
        assert ending(place(workdir)) == wanted
