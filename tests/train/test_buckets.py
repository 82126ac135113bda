"""A whole run whose workdir and data lie in a bucket ends with the bits of one on the disk."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

import vlc
from benchmarks.kills import ending, shards_in
from tests import buckets
from tests.conftest import ROOT
from tests.faulty_proxy import Faults, faulty_proxy
from tests.storage.conftest import gcs, s3  # noqa: F401
from vlc.storage import local_copy, place, read_bytes, upload

SMALL = ["--config.steps=4", "--config.checkpoint.every=2", "--config.eval.every=2", "--config.log_every=1",
         "--config.data.vocab_size=300", "--config.model.image.layers=1", "--config.model.text.layers=1",
         "--config.model.decoder.layers=1", "--config.eval.examples=16"]  # fmt: skip


def command(*words, status=0):
    """Runs `vlc`; what it says."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")} | {"PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-m", "vlc.cli", *map(str, words)]
    done = subprocess.run(run, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def train(workdir, data, *more, status=0):
    quickstart = ["--config", "configs/quickstart.py:smoke"]
    return command(
        "train", *quickstart, "--workdir", workdir, f"--config.data.train={data}", *SMALL, *more, status=status
    )


@pytest.fixture(params=["gs", pytest.param("s3", marks=pytest.mark.slow)])
def bucket(request):
    gs = request.param == "gs"
    url = request.getfixturevalue("gcs" if gs else "s3")
    with buckets.environment((buckets.gcs_environment if gs else buckets.s3_environment)(url)):
        yield f"{request.param}://{buckets.BUCKET}/whole"


@pytest.mark.slow
def test_a_run_in_a_bucket_is_as_on_the_disk(bucket, tmp_path):
    """Trained, gone on with, evaluated, exported, looked at: results are the same, and credentials are nowhere."""
    here, there = shards_in(tmp_path / "data"), shards_in(place(bucket) / "data")
    train(tmp_path / "run", here)
    first = train(f"{bucket}/run", there, "--config.steps=2", "--profile", "1:1")
    assert "128 records in 2 shards" in first
    assert "Resuming from step 2" in train(f"{bucket}/run", there)
    assert ending(place(f"{bucket}/run")) == ending(tmp_path / "run")
    rows = [json.loads(line) for line in read_bytes(f"{bucket}/run/metrics.jsonl").splitlines()]
    wanted = [json.loads(line) for line in read_bytes(tmp_path / "run" / "metrics.jsonl").splitlines()]
    assert [row["step"] for row in rows] == [row["step"] for row in wanted]
    assert [row.get("loss") for row in rows] == [row.get("loss") for row in wanted]
    assert any(path.name.startswith("events") for path in (place(bucket) / "run" / "tensorboard").glob("*"))
    assert any((place(bucket) / "run" / "profile").rglob("*.pb"))

    one, two = vlc.load(tmp_path / "run"), vlc.load(f"{bucket}/run")
    assert np.array_equal(one.encode_text(["a cat"]).embed, two.encode_text(["a cat"]).embed) and two.step == 4
    for root in (tmp_path, bucket):
        command("eval", f"{root}/run", "--examples", 16, "--data", f"{root}/data", "--out", f"{root}/eval")
        command("export", f"{root}/run", "--format", "safetensors", "--out", f"{root}/exported")
        command("data", "build", f"{root}/data", "--out", f"{root}/built", "--shard-records", 50)
        command("data", "verify", f"{root}/built")
        command("data", "stats", f"{root}/built", "--out", f"{root}/stats.png")
        command("caption", "--workdir", f"{root}/run", "--data", f"{root}/built", "--out", f"{root}/captioned")
        command("data", "tokenizer", f"{root}/built", "--out", f"{root}/words.model", "--vocab-size", 300)
    for name in ("exported/model.safetensors", "stats.json", "words.model"):
        assert read_bytes(f"{bucket}/{name}") == read_bytes(tmp_path / name), name
    for folder in ("built", "captioned"):
        shards = sorted(path.name for path in (tmp_path / folder).glob("*.array_record*"))
        assert shards and shards == sorted(path.name for path in (place(bucket) / folder).glob("*.array_record*"))
        for name in shards:
            assert read_bytes(f"{bucket}/{folder}/{name}") == read_bytes(tmp_path / folder / name)
    again = "there is something already"
    assert again in command(
        "export", f"{bucket}/run", "--format", "safetensors", "--out", f"{bucket}/exported", status=2
    )

    train(tmp_path / "records", tmp_path / "built")
    train(f"{bucket}/records", f"{bucket}/built")
    assert ending(place(f"{bucket}/records")) == ending(tmp_path / "records")
    secrets = [
        os.environ[name].encode() for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID") if name in os.environ
    ]
    copy = local_copy(f"{bucket}/run")
    for file in copy.rglob("*"):
        assert not file.is_file() or not any(secret in file.read_bytes() for secret in secrets), file


@pytest.mark.slow
def test_classes_in_a_bucket_are_those_on_the_disk(gcs, tmp_path):  # noqa: F811
    for number, name in enumerate(("red", "blue", "green")):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for copy in range(2):
            Image.new("RGB", (20, 20), (90 * number, copy, 0)).save(tmp_path / "classes" / name / f"{copy}.png")
    train(tmp_path / "run", "scenes")
    with buckets.environment(buckets.gcs_environment(gcs)):
        there = f"gs://{buckets.BUCKET}/classes"
        upload(tmp_path / "classes", place(there))
        for folder, out in ((tmp_path / "classes", tmp_path / "a"), (there, f"gs://{buckets.BUCKET}/b")):
            command("eval", tmp_path / "run", "--task", "classification", "--data", folder, "--out", out)
        one, two = (json.loads(read_bytes(f"{out}/eval.json")) for out in (tmp_path / "a", f"gs://{buckets.BUCKET}/b"))
        for found in (one, two):
            del found["tasks"]["classification"]["data"], found["tasks"]["classification"]["seconds"]
        assert one["tasks"]["classification"] == two["tasks"]["classification"]


@pytest.mark.slow
def test_a_run_goes_on_over_a_bad_network(gcs, tmp_path):  # noqa: F811
    """503 for half a minute, connections that are reset, replies that are cut short: the same bits."""
    faults = Faults(reset_every=20, cut_every=23, busy_at=120, busy_for=30.0)
    with faulty_proxy(gcs, faults) as proxy, buckets.environment(buckets.gcs_environment(proxy)):
        root = f"gs://{buckets.BUCKET}/bad"
        there = shards_in(place(root) / "data")
        train(f"{root}/run", there)
        found = ending(place(f"{root}/run"))
    train(tmp_path / "run", shards_in(tmp_path / "data"))
    assert found == ending(tmp_path / "run") and 0 < faults.busy_until < time.monotonic()


@pytest.mark.slow
def test_a_bucket_that_cannot_be_used_is_named_before_compilation(gcs):  # noqa: F811
    faults = Faults(forbidden=True)
    with faulty_proxy(gcs, faults) as proxy, buckets.environment(buckets.gcs_environment(proxy)):
        said = train(f"gs://{buckets.BUCKET}/x", "scenes", status=2)
        assert "forbids" in said and "--workdir" in said and "Traceback" not in said
    with buckets.environment(buckets.gcs_environment(gcs)):
        said = train("gs://no-such-bucket/x", "scenes", status=2)
        assert "no such bucket" in said and "Traceback" not in said
        said = train(f"gs://{buckets.BUCKET}/y", f"gs://{buckets.BUCKET}/none/{{0..3}}.tar", status=2)
        assert "none/0.tar" in said and "no such object" in said and "Traceback" not in said
