"""Checkpoints in a bucket: a commit or nothing, damage found, the rest left alone."""

import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.storage.conftest import gcs, s3  # noqa: F401
from tests.storage.conftest import root as any_root  # noqa: F401
from tests.train.test_checkpoint import abstract, equal, state
from vlc.commands.shared import exit_status
from vlc.errors import CheckpointError, StoreAway
from vlc.parallel import make_mesh
from vlc.storage import Unreachable, place
from vlc.train import bucket_checkpoint, damage
from vlc.train.bucket_checkpoint import BucketCheckpoints
from vlc.train.checkpoint import newest_meta, open_checkpoints
from vlc.train.pieces import Pieces, held_here, write_pieces


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(damage, "PAUSES", (0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def workdir(any_root):  # noqa: F811
    return place(any_root)


@pytest.fixture
def memory(tmp_path):
    return place(f"memory:///{tmp_path.name}-{tmp_path.parent.name}")


def saved(workdir, *steps, scores=None, **options):
    checkpoints = BucketCheckpoints(workdir, **options)
    for step in steps:
        checkpoints.save(step, state(step), {"note": step}, score=(scores or {}).get(step))
        checkpoints.wait()
    return checkpoints


def restored(workdir):
    checkpoints = BucketCheckpoints(workdir)
    found = checkpoints.restore(lambda meta: abstract(state(0)))
    return None if found is None else (found[0], found[1]["step"])


def test_what_is_saved_comes_back(workdir):
    checkpoints = saved(workdir, 1, 2, 3, scores={1: 0.5, 2: 0.9, 3: 0.1}, keep_last=1, keep_best=1)
    assert checkpoints.steps() == [2, 3] and checkpoints.best_step() == 2 and checkpoints.best_score() == 0.9
    found, step = restored(workdir)
    assert step == 3 and equal(found, state(3))
    assert isinstance(workdir, Path) or newest_meta(workdir)["note"] == 3
    part = checkpoints.restore(lambda meta: abstract({"params": state(0)["params"]}), step=2)
    assert equal(part[0]["params"], state(2)["params"])
    with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
        checkpoints.restore(lambda meta: {}, step=7)


def test_milestones_stay(memory):
    assert saved(memory, *range(1, 8), keep_last=1, keep_best=0, keep_every=3).steps() == [3, 6, 7]


def test_where_there_is_none(memory):
    assert restored(memory) is None
    with pytest.raises(CheckpointError, match="Train first"):
        open_checkpoints(memory, read_only=True)


def data_of(workdir, step):
    return next(path for path in (workdir / "checkpoints" / str(step)).rglob("*") if path.name == "data-0000.bin")


def meta_of(workdir, step):
    return next(iter((workdir / "checkpoints" / str(step)).glob("*-meta.json")))


def damaged(workdir, step):
    return [path.name for path in (workdir / "checkpoints" / str(step)).glob("damaged-*.json")]


def flip(workdir):
    data = bytearray(data_of(workdir, 2).read_bytes())
    data[len(data) // 2] ^= 1
    data_of(workdir, 2).write_bytes(bytes(data))


def cut(workdir):
    data_of(workdir, 2).write_bytes(data_of(workdir, 2).read_bytes()[:-5000])


def index_of_another(workdir):
    index = data_of(workdir, 2).with_name("index.json")
    index.write_text(json.dumps(json.loads(index.read_text())[1:]))


DAMAGE = {
    "a flipped bit": flip,
    "an object cut short": cut,
    "a lost object": lambda workdir: data_of(workdir, 2).unlink(),
    "another index": index_of_another,
    "a lost index": lambda workdir: data_of(workdir, 2).with_name("index.json").unlink(),
    "no meta": lambda workdir: meta_of(workdir, 2).unlink(),
    "another meta": lambda workdir: meta_of(workdir, 2).write_text("{}"),
    "a commit that is none": lambda workdir: (workdir / "checkpoints" / "2" / "commit.json").write_text("[1"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_and_the_one_before_is_used(memory, case, caplog):
    saved(memory, 1, 2)
    DAMAGE[case](memory)
    found, step = restored(memory)
    assert step == 1 and equal(found, state(1))
    assert "Checkpoint of step 2 is damaged" in caplog.text and "marked as damaged" in caplog.text
    assert BucketCheckpoints(memory).steps() == [1] and len(damaged(memory, 2)) == 1
    left = {path.name for path in (memory / "checkpoints" / "2").rglob("*")}
    saved(memory, 2)  # the run comes to that step again
    assert restored(memory)[1] == 2 and len(damaged(memory, 2)) == 1
    saved(memory, 3, 4, keep_last=1)
    assert BucketCheckpoints(memory).steps() == [4]
    assert {path.name for path in (memory / "checkpoints" / "2").rglob("*")} == left  # what was damaged stays


def test_nothing_begins_anew_beside_what_was_damaged(memory):
    saved(memory, 2)
    flip(memory)
    for said in ("no sound checkpoint is left", "what an earlier start found damaged: 2"):
        with pytest.raises(CheckpointError, match=said):
            restored(memory)


def test_a_store_that_does_not_answer_proves_nothing(memory, monkeypatch):
    from vlc.train import pieces

    saved(memory, 1, 2)

    def away(*_):
        raise OSError(5, "the store is away", "x")

    monkeypatch.setattr(pieces, "read_range", away)
    with pytest.raises(CheckpointError, match="does not prove it damaged"):
        restored(memory)
    monkeypatch.undo()
    assert restored(memory)[1] == 2


@pytest.mark.parametrize("at", ["pieces", "index", "meta"])
def test_a_kill_before_the_commit_leaves_no_checkpoint(memory, monkeypatch, at):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    saved(memory, 1)
    if at == "pieces":
        monkeypatch.setattr(bucket_checkpoint, "write_pieces", killed)
    elif at == "index":
        monkeypatch.setattr(BucketCheckpoints, "_commit_step", killed)
    else:
        monkeypatch.setattr(BucketCheckpoints, "_check_owner", killed)
    checkpoints = BucketCheckpoints(memory)
    checkpoints.save(2, state(2), {"note": 2})
    with pytest.raises(CheckpointError):
        checkpoints.wait()
    monkeypatch.undo()
    assert restored(memory)[1] == 1 and not damaged(memory, 2)
    (memory / "checkpoints" / "2" / "mine.txt").write_text("kept")
    saved(memory, 2)
    left = {path.name for path in (memory / "checkpoints" / "2").rglob("*")}
    assert restored(memory)[1] == 2 and left - {meta_of(memory, 2).name} == {
        "data-0000.bin", "index.json", "commit.json", "mine.txt"
    }  # fmt: skip
    assert (
        len({path.parent for path in (memory / "checkpoints" / "2").rglob("data-*")}) == 1
    )  # the killed one's is gone


def test_what_another_process_wrote_before_the_first_commit_stays(memory):
    checkpoints = BucketCheckpoints(memory)
    mine = memory / "checkpoints" / "2" / f"{checkpoints._run}-00001-of-00002" / "index.json"
    old = memory / "checkpoints" / "2" / "0123abcd-00001-of-00002" / "index.json"
    for path in (mine, old):
        path.write_text("[]")
    checkpoints.save(1, state(1), {})
    checkpoints.wait()
    assert mine.exists() and not old.exists()


def test_what_is_not_ours_is_never_removed(memory):
    saved(memory, 1)
    for name in ("checkpoints/1/notes.txt", "checkpoints/best/commit.json", "checkpoints/1/0123abcd-x/data-0000.bin"):
        (memory / name).write_text("kept")
    saved(memory, 2, 3, 4, keep_last=1)
    for name in ("checkpoints/1/notes.txt", "checkpoints/best/commit.json", "checkpoints/1/0123abcd-x/data-0000.bin"):
        assert (memory / name).read_text() == "kept"
    assert not (memory / "checkpoints" / "1" / "commit.json").exists()


def test_of_two_runs_in_a_workdir_the_older_ends(memory):
    first = saved(memory, 1)
    second = saved(memory, 2)
    first.save(3, state(3), {})
    with pytest.raises(CheckpointError, match="another start of the run is in this workdir"):
        first.wait()
    assert second.steps() == [1, 2]


def test_a_store_that_is_away_is_told_from_a_full_one(memory, monkeypatch):
    def away(*_):
        raise Unreachable(5, "busy", "x")

    monkeypatch.setattr(bucket_checkpoint, "write_pieces", away)
    checkpoints = BucketCheckpoints(memory)
    checkpoints.save(1, state(1), {})
    with pytest.raises(StoreAway, match="busy") as raised:
        checkpoints.wait()
    assert exit_status(raised.value) == 74  # which launchers start again


def test_a_save_that_fails_is_said_and_the_next_may_succeed(memory, monkeypatch):
    checkpoints = saved(memory, 1)

    def full(*_):
        raise OSError(28, "no room", "x")

    monkeypatch.setattr(bucket_checkpoint, "write_pieces", full)
    checkpoints.save(2, state(2), {})
    with pytest.raises(CheckpointError, match=r"no room.*Kept: \[1\]"):
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.save(3, state(3), {})
    checkpoints.wait()
    assert checkpoints.steps() == [1, 3]


@pytest.mark.parametrize("axes", [("fsdp", None), (None, "fsdp"), (("data", "fsdp"), None), (None, None)])
def test_pieces_fit_any_other_mesh(memory, monkeypatch, axes):
    monkeypatch.setattr("vlc.train.pieces._FILE", 300)
    mesh = make_mesh({"data": 2, "fsdp": 4, "tensor": 1})
    whole = jnp.asarray(np.random.default_rng(0).normal(size=(16, 8)), jnp.bfloat16)
    split = jax.device_put(whole, NamedSharding(mesh, PartitionSpec(*axes)))
    tree = {"w": split, "n": jnp.int32(7), "none": jnp.zeros((0, 3))}
    write_pieces(memory / "part", held_here(tree))
    text = (memory / "part" / "index.json").read_bytes()
    pieces = Pieces({memory / "part": hashlib.sha256(text).hexdigest()})
    for other in (PartitionSpec("data", "fsdp"), PartitionSpec(), PartitionSpec(None, ("data", "fsdp"))):
        like = {"w": jax.ShapeDtypeStruct((16, 8), jnp.bfloat16, sharding=NamedSharding(mesh, other))}
        like |= abstract({"n": tree["n"], "none": tree["none"]})
        found = pieces.read(like)
        assert np.array_equal(found["w"], whole) and found["w"].sharding.is_equivalent_to(like["w"].sharding, 2)
        assert int(found["n"]) == 7 and found["none"].shape == (0, 3)
