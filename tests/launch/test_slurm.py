"""launch/slurm.py: the script it fills, and a real one-node SLURM that runs it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.launch.runs import children, hit, metrics, train_command

DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmctldPort={port}
SlurmdPort={next_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
KillWait=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
"""


def slurm(*flags, command, env=None):
    return subprocess.run(
        [sys.executable, ROOT / "launch" / "slurm.py", *flags, "--", *command], capture_output=True, text=True, env=env
    )


def test_the_script_says_what_was_asked_for():
    flags = ["--nodes", "4", "--gpus-per-node", "8", "--time", "24:00:00", "--sbatch=--partition=gpu", "--print"]
    command = ["vlc", "train", "--config", "x.py", "--workdir", "/shared/runs/big one", "--config.steps=5"]
    script = slurm(*flags, "--folder", "/code", command=command).stdout
    for line in ("--nodes=4", "--gpus-per-node=8", "--ntasks-per-node=1", "--time=24:00:00", "--partition=gpu"):
        assert f"#SBATCH {line}\n" in script
    assert "#SBATCH --job-name=big one" in script and 'cd "/code"' in script
    assert "srun --kill-on-bad-exit=0 --wait=180 vlc train --config x.py --workdir '/shared/runs/big one'" in script
    assert not re.search(r"@[A-Z]+@", script)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_without_a_command_it_says_so():
    answer = slurm("--nodes", "1", "--time", "1", command=[])
    assert answer.returncode == 2 and "name the command" in answer.stderr


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Environment of a SLURM of one node; its daemons end with the test."""
    if not all(shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin") for name in DAEMONS) or os.geteuid():
        pytest.skip("needs root and Debian's slurm-wlm and munge")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host = os.uname().nodename.split(".")[0]
    port = 21_000 + os.getpid() % 5000 * 2
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, port=port, next_port=port + 1))
    env = os.environ | {"SLURM_CONF": str(conf), "PATH": os.environ["PATH"] + ":/usr/sbin"}
    if subprocess.run(["pgrep", "-x", "munged"], capture_output=True).returncode:
        Path("/run/munge").mkdir(exist_ok=True)
        shutil.chown("/run/munge", "munge", "munge")
        subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged"], check=True)
    for daemon in ("slurmctld", "slurmd"):
        subprocess.run([daemon, "-f", str(conf)], check=True, env=env)
    end = time.monotonic() + 20
    while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, env=env).stdout:
        assert time.monotonic() < end, (folder / "slurmctld.log").read_text()
        time.sleep(0.3)
    yield env
    subprocess.run(["scancel", "--signal=KILL", "--full", "--state=running"], env=env)
    until(lambda: not subprocess.run(["squeue", "-h"], capture_output=True, text=True, env=env).stdout.strip(), 30)
    for daemon in ("slurmd", "slurmctld"):
        os.kill(int((folder / f"{daemon}.pid").read_text()), signal.SIGTERM)


def until(found, timeout=150):
    end = time.monotonic() + timeout
    while not found():
        assert time.monotonic() < end
        time.sleep(0.3)


@pytest.mark.slow
def test_a_lost_task_starts_again_and_sigterm_saves(cluster, tmp_path):
    workdir, logs = tmp_path / "run", tmp_path / "logs"
    command = train_command(workdir, 100_000, "--config.log_every=1", "--heartbeat-timeout", "20")
    flags = ["--nodes", "1", "--tasks-per-node", "2", "--time", "0:20:00", "--logs", str(logs), "--no-requeue"]
    submitted = slurm(*flags, "--folder", str(ROOT), command=command, env=cluster | {"JAX_PLATFORMS": "cpu"})
    job = re.search(r"Submitted batch job (\d+)", submitted.stdout)[1]

    def said():
        return "".join(path.read_text() for path in logs.glob("*.log"))

    until((workdir / "checkpoints" / "5").is_dir)
    hit(workdir, 1)
    until(lambda: "Resuming from step" in said())
    until(lambda: len(children(workdir)) == 2 and said().count("The first captions") == 2)
    subprocess.run(["scancel", "--signal=TERM", job], check=True, env=cluster)
    until(lambda: "srun ended with 75" in said())
    assert "of 2 processes" in said() and "Asked to stop: saved at step" in said()
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    assert steps[-1] == max(metrics(workdir))


MOUNTS = """/dev/sda1 / ext4 rw 0 0
tmpfs /scratch tmpfs rw 0 0
server:/export /shared nfs4 rw 0 0
/dev/sdb /shared/local xfs rw 0 0
"""


@pytest.mark.parametrize(
    ("workdir", "refused"),
    [("/scratch/run", True), ("/runs/clip", True), ("/shared/run", False), ("/shared/local/run", True),
     ("/sharedrun/x", False), ("gs://bucket/run", False), ("", False)],
)  # fmt: skip
def test_a_workdir_of_one_machine_is_refused(workdir, refused, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "launch")
    import slurm as launcher

    said = launcher.check_workdir(workdir, MOUNTS, lambda folder: str(folder) != "/sharedrun")
    assert bool(said) == refused and (not refused or "--shared-disk" in said)


def test_it_is_refused_before_anything_is_submitted():
    command = ["vlc", "train", "--config", "x.py", "--workdir", "/dev/shm/run"]
    answer = slurm("--nodes", "2", "--time", "1", "--print", command=command)
    assert answer.returncode == 2 and "on a disk of this machine alone (tmpfs at /dev/shm)" in answer.stderr
    for flags in (["--nodes", "1"], ["--nodes", "2", "--shared-disk"]):
        assert slurm(*flags, "--time", "1", "--print", command=command).returncode == 0
