"""Batches are a function of the seed and the step, whatever the processes, workers and damage."""

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import ROOT
from vlc.data.captions import CaptionChoice, Mix
from vlc.data.images import Preprocess
from vlc.data.pipeline import Lengths, MakeExample, check_source, count_skipped, describe_batch, train_batches
from vlc.data.sources import Scenes
from vlc.errors import DataError


class Damaged(Scenes):
    """Scenes of which every fifth cannot be read."""

    def __getitem__(self, index):
        if index % 5 == 0:
            raise DataError(f"record {index} is damaged", "image")
        return super().__getitem__(index)


@pytest.fixture
def make(tokenizer):
    scenes = Scenes(side=16, length=50)
    return MakeExample(
        scenes, Preprocess(16), CaptionChoice(Mix({"long": 1.0}), sub_captions=2), tokenizer, Lengths(40, 20, 30)
    )


def take(make, count, **options):
    batches = train_batches(make, batch_size=8, seed=3, **options)
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def same(a, b):
    return all(np.array_equal(a[name], b[name]) for name in a if name != "seconds")


def test_shapes(make):
    batch = take(make, 1)[0]
    shapes = {name: (array.shape, array.dtype) for name, array in batch.items()}
    assert shapes == {
        "image": ((8, 16, 16, 3), np.uint8),
        "text": ((8, 40), np.int32),
        "subs": ((8, 2, 20), np.int32),
        "target": ((8, 30), np.int32),
        "index": ((8,), np.int64),
        "seconds": ((8, 3), np.float32),
        "skipped": ((8,), np.int8),
    }


def test_wrong_texts_of_the_main_caption_come_along(tokenizer):
    scenes = Scenes(side=16, length=20, negatives=True)
    choice = CaptionChoice(Mix({"long": 1.0}), negatives=4)
    batch = next(
        train_batches(MakeExample(scenes, Preprocess(16), choice, tokenizer, Lengths(60, 60, 60)), batch_size=8, seed=0)
    )
    assert batch["hard"].shape == (8, 4, 60) and batch["hard"].dtype == np.int32
    for index, text, hard in zip(batch["index"], batch["text"], batch["hard"], strict=True):
        main = tokenizer.decode(text)
        record = scenes[int(index)]
        read = {tokenizer.decode(tokenizer.encode([t], 60)[0]): t for t in record.captions["long"]}
        listed = {tokenizer.decode(tokenizer.encode([t], 60)[0]) for t in record.negatives[read[main]]}
        drawn = {tokenizer.decode(ids) for ids in hard}
        assert len(drawn) == 4 and drawn <= listed and main not in drawn


def test_texts_that_are_not_there_are_pads(tokenizer):
    """Of captions without wrong texts, and of texts that are captions of the image."""
    choice = CaptionChoice(Mix({"long": 1.0}), negatives=3)
    make = MakeExample(Scenes(side=16), Preprocess(16), choice, tokenizer, Lengths(60, 60, 60))
    rng = np.random.default_rng(0)
    record = Scenes(side=16)[0]
    assert (make.make(record, rng)["hard"] == tokenizer.pad_id).all()
    listed = ("wrong", record.captions["short"][0], "wrong")
    negatives = dict.fromkeys(record.captions["long"], listed)
    hard = make.make(dataclasses.replace(record, negatives=negatives), rng)["hard"]
    assert (hard[0] != tokenizer.pad_id).any() and (hard[1:] == tokenizer.pad_id).all()


def test_each_epoch_is_a_permutation(make):
    seen = np.concatenate([batch["index"] for batch in take(make, 25)])
    assert sorted(seen[:50]) == sorted(seen[50:100]) == list(range(50))
    assert not np.array_equal(seen[:50], seen[50:100])


def test_a_resume_goes_on_exactly(make):
    whole = take(make, 12)
    assert all(same(a, b) for a, b in zip(whole[7:], take(make, 5, start_step=7), strict=True))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_same_global_batches(make, processes):
    whole = take(make, 6)
    size = len(whole[0]["index"])
    shares = np.random.default_rng(0).permutation(size).reshape(processes, -1)  # in whatever way a mesh lays them out
    parts = [take(make, 6, rows=rows.tolist()) for rows in shares]
    for step, batch in enumerate(whole):
        for rows, part in zip(shares, parts, strict=True):
            assert same(part[step], {name: array[rows] for name, array in batch.items()})


@pytest.mark.slow
def test_workers_change_nothing(make):
    assert all(same(a, b) for a, b in zip(take(make, 6), take(make, 6, workers=2), strict=True))


def test_damaged_records_are_replaced_and_counted(tokenizer):
    scenes = Damaged(side=16, length=50)
    make = MakeExample(scenes, Preprocess(16), CaptionChoice(Mix({})), tokenizer, Lengths(40, 40, 40))
    batches = take(make, 25)
    assert sum(count_skipped(batch).get("image", 0) for batch in batches) == 40  # a fifth of 200
    assert all((batch["index"] % 5 != 0).all() for batch in batches)
    assert all(same(a, b) for a, b in zip(batches, take(make, 25), strict=True))


def test_a_broken_source_is_found_before_training(tokenizer):
    class Broken(Scenes):
        def __getitem__(self, index):
            raise DataError("nothing works", "file")

    make = MakeExample(Broken(length=20), Preprocess(16), CaptionChoice(Mix({})), tokenizer, Lengths(40, 40, 40))
    with pytest.raises(DataError, match=r"none of the first 20 records is usable.*nothing works"):
        check_source(make, "x")
    empty = MakeExample(Scenes(length=0), Preprocess(16), CaptionChoice(Mix({})), tokenizer, Lengths(40, 40, 40))
    with pytest.raises(DataError, match="empty"):
        check_source(empty, "x")


def test_captions_can_be_read_back(make, tokenizer):
    text = describe_batch(take(make, 1)[0], tokenizer, 2)
    assert text.count("\n") == 1 and "background" in text and "subs" in text


_PARENT = """
import os, sys
from absl import flags
from tests.data.test_pipeline import slow_pipeline
if __name__ == "__main__":
    flags.FLAGS.mark_as_parsed()
    batches = slow_pipeline()
    next(batches)
    print("ready", flush=True)
    while True:
        next(batches)
"""


def slow_pipeline():
    from vlc.data.tokenizers import SentencePiece

    tokenizer = SentencePiece.train(["a picture of shapes", "red circle"] * 10, 60)
    make = MakeExample(
        Scenes(side=16, length=500), Preprocess(16), CaptionChoice(Mix({})), tokenizer, Lengths(40, 40, 40)
    )
    return train_batches(make, batch_size=8, seed=0, workers=1)


@pytest.mark.slow
def test_workers_die_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    )
    assert parent.stdout.readline().strip() == "ready"
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent.pid)], capture_output=True, text=True)
    children = [int(pid) for pid in listing.stdout.split()]
    assert children
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.time() + 20
    while time.time() < deadline and any(_alive(pid) for pid in children):
        time.sleep(0.2)
    workers = [pid for pid in children if _alive(pid) and "spawn_main" in _command(pid)]
    assert not workers


def _alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read()
    except OSError:
        return ""
