"""Evaluating and captioning by several processes: the same results as by one."""

import json
import signal
import subprocess
import sys
import time

import pytest

from launch.local import free_port
from tests.inference.test_captioning import captioner
from tests.inference.test_recaption import files
from tests.launch.runs import VLC, launch, read_until
from vlc.interop import write_native

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("captioner") / "model"
    write_native(captioner(tokenizer, data__train="scenes").as_imported(), path)
    return path


def run(count, command):
    job = launch(count, 1, command)
    said, _ = job.communicate(timeout=300)
    return said, job.returncode


@pytest.mark.slow
def test_two_processes_evaluate_as_one(model, tmp_path):
    """140 images have 560 captions, which are two parts of embeddings; the images' own are one, of one process."""
    found = {}
    for count in (1, 2):
        out, cache = tmp_path / f"out{count}", tmp_path / f"cache{count}"
        said, status = run(count, [
            "env", "PATH=",  # without Java, which takes half of the time
            *VLC, "eval", str(model), "--task", "retrieval,caption", "--data", "scenes", "--examples", "140",
            "--references", "reference", "--max-new-tokens", "4", "--out", str(out), "--cache", str(cache),
            "--guidance-scale", "1,2",
        ])  # fmt: skip
        assert status == 0 and said.count("Written:") == 1, said
        found[count] = json.loads((out / "eval.json").read_text())["tasks"]
        for task in found[count].values():
            del task["seconds"]
    assert found[1] == found[2]


@pytest.mark.slow
def test_two_processes_write_one_data_set(model, tmp_path):
    wanted = [
        "--data",
        "scenes",
        "--records",
        "10",
        "--shard-records",
        "3",
        "--num-return-sequences",
        "2",
        "--max-new-tokens",
        "5",
    ]
    for count in (1, 2):
        said, status = run(
            count, [*VLC, "caption", "--workdir", str(model), *wanted, "--out", str(tmp_path / str(count))]
        )
        assert status == 0 and said.count("10 images") == 1, said
    assert files(tmp_path / "1") == files(tmp_path / "2")


@pytest.mark.slow
def test_a_cache_of_its_own_is_refused(model, tmp_path):
    """Each process has another home, as the hosts of a pod have."""
    shell = 'HOME=$0/$VLC_PROCESS VLC_CACHE= exec "$@"'
    command = [*VLC, "eval", str(model), "--task", "retrieval", "--data", "scenes", "--examples", "2"]
    said, status = run(2, ["sh", "-c", shell, str(tmp_path), *command, "--out", str(tmp_path / "out")])
    assert status == 2 and "--cache must be on a disk that all processes share" in said and "process 1" in said


@pytest.mark.slow
def test_sigterm_ends_an_evaluation(model, tmp_path):
    job = launch(2, 1, [
        *VLC, "eval", str(model), "--task", "retrieval", "--data", "scenes", "--examples", "100000",
        "--out", str(tmp_path), "--cache", str(tmp_path),
    ])  # fmt: skip
    read_until(job, "connected to 1 peer")  # by JAX: the processes have met, and have hours before them
    job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=60)
    assert job.returncode == 75 and "The same command goes on" in said, said


WAITS = """
import sys, time
from vlc.parallel import ProcessInfo, barrier, start_processes
index = int(sys.argv[1])
start_processes(ProcessInfo(index, 2, sys.argv[2]), {}, stops=False)
print("started", flush=True)
barrier("never") if index == 1 else time.sleep(600)
"""


@pytest.mark.slow
def test_sigterm_ends_one_that_waits_and_the_others():
    process = f"localhost:{free_port()}"
    crew = [
        subprocess.Popen([sys.executable, "-c", WAITS, str(index), process], stdout=subprocess.PIPE, text=True)
        for index in range(2)
    ]
    for process in crew:
        read_until(process, "started")
    time.sleep(2)  # until it waits, inside of JAX, where no Python runs
    crew[1].send_signal(signal.SIGTERM)
    assert [process.wait(15) for process in crew] == [75, 75]
