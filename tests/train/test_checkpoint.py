"""A damaged checkpoint is found and passed over; one that does not fit is refused, name by name."""

import errno

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vlc.data.images import Preprocess
from vlc.errors import CheckpointError
from vlc.train import damage, restoring
from vlc.train.checkpoint import Checkpoints
from vlc.train.restoring import make_meta, read_meta


def state(value: float):
    rng = np.random.default_rng(int(value))
    return {
        "params": {"w": jnp.asarray(rng.normal(size=(300, 40)), jnp.float32), "b": jnp.full((3,), value, jnp.bfloat16)},
        "step": jnp.int32(value),
    }


def abstract(tree):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree)


def saved(path, *steps, **options):
    checkpoints = Checkpoints(path, **options)
    for step in steps:
        checkpoints.save(step, state(step), {"note": step}, score=options.get("scores", {}).get(step))
    checkpoints.wait()
    return checkpoints


def restore(path):
    checkpoints = Checkpoints(path)
    result = checkpoints.restore(lambda meta: abstract(state(0)))
    checkpoints.close()
    return result


def flip(path):
    """Flips one bit in the middle of the largest data file of a checkpoint."""
    files = [f for f in path.rglob("*") if f.is_file() and "/d/" in str(f)]
    largest = max(files, key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(bytes(data))


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_what_is_saved_comes_back(tmp_path):
    saved(tmp_path, 1, 2).close()
    found, meta = restore(tmp_path)
    assert equal(found, state(2)) and meta["note"] == 2 and meta["step"] == 2


def test_a_part_can_be_restored_alone(tmp_path):
    saved(tmp_path, 1).close()
    found, _ = Checkpoints(tmp_path, read_only=True).restore(lambda meta: abstract({"params": state(0)["params"]}))
    assert set(found) == {"params"} and equal(found["params"], state(1)["params"])


@pytest.mark.parametrize("damage", ["bit", "truncated", "missing", "meta", "score"])
def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(tmp_path, damage):
    saved(tmp_path, 1, 2).close()
    newest = tmp_path / "checkpoints" / "2"
    if damage == "bit":
        flip(newest)
    elif damage == "score":
        (newest / "metrics" / "metrics").write_text('{"sco')
    elif damage == "meta":
        file = next(f for f in (newest / "meta").rglob("*") if f.is_file() and "note" in f.read_text())
        file.write_text(file.read_text().replace('"note": 2', '"note": 3').replace('"note":2', '"note":3'))
    else:
        for file in (f for f in (newest / "params").rglob("*") if f.is_file()):
            file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:20])
    found, meta = restore(tmp_path)
    assert equal(found, state(1)) and meta["note"] == 1
    assert (tmp_path / "damaged" / "2").is_dir(), "nothing is thrown away"
    again = saved(tmp_path, 2)
    assert again.steps() == [1, 2]
    again.close()


ERRORS = [
    OSError(errno.EIO, "Input/output error"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ESTALE, "Stale file handle"),
    TimeoutError("timed out"),
    MemoryError(),
    ValueError("RESOURCE_EXHAUSTED: Error reading local file [OS error 24: EMFILE Too many open files]"),
    ValueError("UNKNOWN: Error reading from 'x' [OS error 5: EIO Input/output error]"),
]


def failing(monkeypatch, error, times):
    """Makes the first reads of a checkpoint's parts fail."""
    whole, left = ocp.CheckpointManager.restore, [times]

    def restore(self, *args, **options):
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return whole(self, *args, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    monkeypatch.setattr(damage, "PAUSES", (0.0, 0.01, 0.01, 0.01))


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_an_error_of_the_disk_condemns_nothing(tmp_path, monkeypatch, error):
    saved(tmp_path, 1, 2).close()
    failing(monkeypatch, error, 2)
    found, meta = restore(tmp_path)
    assert equal(found, state(2)) and meta["step"] == 2, "it is tried again"
    failing(monkeypatch, error, 1000)
    with pytest.raises(CheckpointError, match=r"could not be read in 4 attempts.*nothing was moved"):
        restore(tmp_path)
    assert not (tmp_path / "damaged").exists()
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("[0-9]*")) == ["1", "2"]


@pytest.mark.parametrize("times", [2, 1000])
def test_a_short_read_condemns_nothing(tmp_path, monkeypatch, times):
    """What was read does not make sense, but the files are there and have their lengths, or cannot be read again."""
    saved(tmp_path, 1, 2).close()
    failing(monkeypatch, ValueError("DATA_LOSS: not enough bytes"), times)
    monkeypatch.setattr(damage, "_length", lambda path: 3)
    if times == 2:
        assert restore(tmp_path)[1]["step"] == 2
    else:
        with pytest.raises(CheckpointError, match="nothing was moved"):
            restore(tmp_path)
    assert not (tmp_path / "damaged").exists()


def test_one_bad_read_that_gives_other_numbers_condemns_nothing(tmp_path, monkeypatch):
    saved(tmp_path, 1, 2).close()
    sums, calls = restoring.array_checksums, []

    def once_wrong(tree):
        calls.append(1)
        return {path: value + (len(calls) == 1) for path, value in sums(tree).items()}

    monkeypatch.setattr(restoring, "array_checksums", once_wrong)
    assert restore(tmp_path)[1]["step"] == 2 and len(calls) == 2


def test_a_run_whose_checkpoints_were_all_moved_aside_does_not_begin_again(tmp_path):
    saved(tmp_path, 1).close()
    flip(tmp_path / "checkpoints" / "1")
    with pytest.raises(CheckpointError, match="no sound checkpoint"):
        restore(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds what an earlier start found damaged: 1. To begin again"):
        restore(tmp_path)


def test_when_all_are_damaged_each_reason_is_listed(tmp_path):
    saved(tmp_path, 1, 2).close()
    for step in ("1", "2"):
        flip(tmp_path / "checkpoints" / step)
    with pytest.raises(CheckpointError, match=r"(?s)no sound checkpoint.*step 2.*checksum.*step 1.*checksum"):
        restore(tmp_path)


def test_every_difference_to_the_model_is_named(tmp_path):
    saved(tmp_path, 1).close()
    other = state(0)
    other["params"]["w"] = jnp.zeros((300, 41))
    other["params"]["b"] = jnp.zeros((3,), jnp.float32)
    other["params"]["new"] = jnp.zeros((2,))
    with pytest.raises(CheckpointError) as error:
        Checkpoints(tmp_path).restore(lambda meta: abstract(other))
    text = str(error.value)
    assert "params/w: the model needs (300, 41) float32, the checkpoint has (300, 40) float32" in text
    assert "params/b: the model needs (3,) float32, the checkpoint has (3,) bfloat16" in text
    assert "params/new: the model needs (2,) float32, the checkpoint lacks it" in text
    assert (tmp_path / "checkpoints" / "1").is_dir(), "a checkpoint that does not fit is not damaged"


def test_the_best_and_the_last_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2, keep_best=1)
    for step, score in ((1, 0.1), (2, 0.9), (3, 0.3), (4, None), (5, 0.2)):
        checkpoints.save(step, state(step), {}, score=score)
    checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5] and checkpoints.best_step() == 2
    checkpoints.close()


def test_the_checksum_does_not_depend_on_the_mesh(tmp_path):
    from jax.sharding import NamedSharding, PartitionSpec

    from vlc.parallel import make_mesh
    from vlc.train.restoring import array_checksums

    whole = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(16, 8)), jnp.float32)}
    mesh = make_mesh({"data": 2, "fsdp": 4, "tensor": 1})
    split = jax.device_put(whole, NamedSharding(mesh, PartitionSpec("data", "fsdp")))
    assert array_checksums(whole) == array_checksums(split)
    swapped = {"w": whole["w"].at[0, 0].set(whole["w"][0, 1]).at[0, 1].set(whole["w"][0, 0])}
    assert array_checksums(swapped) != array_checksums(whole)


def test_a_missing_run_and_step_are_said_plainly(tmp_path):
    with pytest.raises(CheckpointError, match="Train first"):
        Checkpoints(tmp_path / "none", read_only=True)
    saved(tmp_path, 3).close()
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7. There are: \[3\]"):
        Checkpoints(tmp_path, read_only=True).restore(lambda meta: {}, step=7)


def test_a_checkpoint_without_tokenizer_is_refused(tokenizer):
    meta = make_meta({"steps": 1}, tokenizer, Preprocess(16))
    config, loaded, preprocess = read_meta(meta, "x")
    assert loaded.model == tokenizer.model and preprocess == Preprocess(16) and config == {"steps": 1}
    for part in ("tokenizer", "preprocess", "config"):
        with pytest.raises(CheckpointError, match=f"no {part}"):
            read_meta({k: v for k, v in meta.items() if k != part}, "x")


def test_milestones_stay(tmp_path):
    checkpoints = saved(tmp_path, *range(1, 8), keep_last=1, keep_best=0, keep_every=3)
    assert checkpoints.steps() == [3, 6, 7]
    checkpoints.close()
