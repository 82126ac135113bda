"""Real processes: they train as one does, return in another number, and outlive the loss of any of them."""

import signal

import pytest

from tests.launch.runs import hit, launch, metrics, read_until, train_command

pytestmark = pytest.mark.slow
STEPS = 12


def finish(job, status=0):
    said = job.stdout.read()
    assert job.wait(120) == status, said
    return said


@pytest.fixture(scope="module")
def alone_in(tmp_path_factory):
    """One process with all eight devices, to the end; its workdir."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(launch(1, 8, train_command(workdir, STEPS, "--config.log_every=1")))
    return workdir


@pytest.fixture(scope="module")
def alone(alone_in):
    return metrics(alone_in)


def same_run(rows, alone):
    assert rows.keys() == alone.keys()
    for step, row in rows.items():
        assert row["seen"] == alone[step]["seen"], step  # the very same examples
        assert row["loss"] == pytest.approx(alone[step]["loss"], rel=2e-5), step


@pytest.mark.slow
def test_two_processes_return_as_one_on_other_devices(tmp_path, alone):
    """2 processes x 2 devices are asked to stop, then 2 devices of one process, then 8 go on: 4 -> 2 -> 8."""
    workdir = tmp_path / "run"
    log = "--config.log_every=1"
    job = launch(2, 2, train_command(workdir, STEPS, log))
    read_until(job, "step 2/")
    hit(workdir, 1, signal.SIGTERM)  # one of them: all save at the same step
    job.send_signal(signal.SIGTERM)
    assert "Asked to stop: saved at step" in finish(job, 75)
    first = max(metrics(workdir))
    assert 2 <= first < STEPS
    job = launch(1, 2, train_command(workdir, STEPS, log))
    said = "".join(read_until(job, f"step {first + 1}/"))
    assert f"Resuming from step {first}" in said
    job.send_signal(signal.SIGTERM)
    finish(job, 75)
    finish(launch(1, 8, train_command(workdir, STEPS, log, "--config.mesh.data=2", "--config.mesh.fsdp=4")))
    same_run(metrics(workdir), alone)


@pytest.mark.slow
def test_a_killed_process_is_named_and_all_start_again(tmp_path, alone):
    workdir = tmp_path / "run"
    job = launch(2, 4, train_command(workdir, STEPS, "--config.log_every=1", "--heartbeat-timeout", "15"))
    read_until(job, "step 6/")
    hit(workdir, 1)
    said = finish(job)
    assert "process 1" in said and "is gone" in said and "attempt 1 of 4" in said
    same_run(metrics(workdir), alone)


@pytest.mark.slow
def test_sigterm_while_the_run_still_starts_is_not_forgotten(tmp_path, alone_in):
    """A run that starts from another one's parameters, which each process reads for itself."""
    workdir = tmp_path / "run"
    job = launch(2, 2, train_command(workdir, 100_000, "--config.log_every=1", f"--config.init={alone_in}"))
    read_until(job, "parameters on 4 cpu")  # the step is not compiled yet
    job.send_signal(signal.SIGTERM)
    assert "Asked to stop: saved at step" in finish(job, 75)
    assert max(metrics(workdir)) < 10


def test_what_fails_on_one_is_said_by_all(tmp_path):
    """A config that cannot be, and processes that are about to run different ones, end at once, without a restart."""
    job = launch(2, 2, train_command(tmp_path / "run", 2, "--config.batch_size=6"))
    said = finish(job, 2)
    assert said.count("divisible by 4") >= 2 and "attempt" not in said
