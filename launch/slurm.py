"""Fills launch/slurm.sh for a run, and hands it to SLURM.

    python launch/slurm.py --nodes 4 --gpus-per-node 8 --time 24:00:00 -- \\
        vlc train --config configs/clip_b16.py --workdir /shared/runs/clip
    python launch/slurm.py ... --print -- vlc train ...          # shows the script and submits nothing

One task a node drives all of its GPUs, or --tasks-per-node 8 one each. When a process is lost, all start again within
the same allocation; when the time limit is near, all save and the job is queued again. The workdir must be on a disk
that all nodes share, or in a bucket; one on a disk of this machine alone is refused, unless --shared-disk says that the
nodes have it too.
"""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

TEMPLATE = Path(__file__).with_name("slurm.sh")


def fill(options: argparse.Namespace, command: list[str]) -> str:
    """The batch script."""
    more = [f"#SBATCH {line}" for line in options.sbatch]
    if options.gpus_per_node:
        more.append(f"#SBATCH --gpus-per-node={options.gpus_per_node}")
    if options.cpus_per_task:
        more.append(f"#SBATCH --cpus-per-task={options.cpus_per_task}")
    values = {
        "NAME": options.name or Path(_after(command, "--workdir") or "vlc").name,
        "NODES": options.nodes,
        "TASKS": options.tasks_per_node,
        "TIME": options.time,
        "LOGS": options.logs,
        "MORE": "\n".join(more),
        "FOLDER": options.folder,
        "RESTARTS": options.restarts,
        "REQUEUE": "yes" if options.requeue else "no",
        "COMMAND": shlex.join(command),
    }
    script = TEMPLATE.read_text()
    for name, value in values.items():
        script = script.replace(f"@{name}@", str(value))
    return script


# How Linux calls file systems that are of one machine; what it shares with others is nfs, lustre, gpfs, beegfs, ceph...
LOCAL = {"btrfs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "rootfs", "tmpfs", "xfs", "zfs"}


def check_workdir(workdir: str, mounts: str, exists: Callable[[Path], bool] = Path.exists) -> str:
    """What is wrong with a workdir of several nodes; empty where nothing is known to be.

    Args:
        workdir: A path or a URL.
        mounts: As in /proc/mounts.
        exists: Whether a folder is there on this machine; of one whose first part is not, nothing is known.
    """
    if not workdir or "://" in workdir:
        return ""
    path = Path(workdir).absolute()
    if not exists(Path(*path.parts[:2])):
        return ""
    rows = [line.split()[:3] for line in mounts.splitlines()]
    above = [(folder, kind) for _, folder, kind in rows if f"{path}/".startswith(folder.rstrip("/") + "/")]
    folder, kind = max(above, key=lambda row: len(row[0]), default=("", ""))
    if kind not in LOCAL:
        return ""
    return (
        f"--workdir {workdir} is on a disk of this machine alone ({kind} at {folder}), and the nodes must share it. "
        "Name a shared folder or a bucket (gs://, s3://), or say --shared-disk where the nodes see this one too."
    )


def _after(command: list[str], flag: str) -> str:
    for index, word in enumerate(command):
        if word == flag and index + 1 < len(command):
            return command[index + 1]
        if word.startswith(flag + "="):
            return word.partition("=")[2]
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--tasks-per-node", type=int, default=1, help="processes of a node (1: it drives all GPUs)")
    parser.add_argument("--gpus-per-node", type=int, default=0)
    parser.add_argument("--cpus-per-task", type=int, default=0)
    parser.add_argument("--time", required=True, help="limit of one turn, as in 24:00:00")
    parser.add_argument("--name", default="", help="of the job (the workdir's)")
    parser.add_argument("--logs", default=".", help="folder of the job's log")
    parser.add_argument("--folder", default=str(Path.cwd()), help="where the command is run (here)")
    parser.add_argument("--restarts", type=int, default=20, help="how often all start again in one allocation")
    parser.add_argument("--requeue", action=argparse.BooleanOptionalAction, default=True,
                        help="queue the job again when its time is over before the run's end")  # fmt: skip
    parser.add_argument("--shared-disk", action="store_true", help="the nodes have the workdir's disk too")
    parser.add_argument("--sbatch", action="append", default=[], metavar="'--partition=gpu'", help="any more of sbatch")
    parser.add_argument("--print", action="store_true", help="show the script instead of submitting it")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("name the command: launch/slurm.py --nodes 2 --time 1:00:00 -- vlc train ...")
    mounts = Path("/proc/mounts")
    if options.nodes > 1 and not options.shared_disk and mounts.exists():
        wrong = check_workdir(_after(command, "--workdir"), mounts.read_text())
        if wrong:
            parser.error(wrong)
    script = fill(options, command)
    if options.print:
        print(script, end="")
        return 0
    Path(options.logs).mkdir(parents=True, exist_ok=True)
    return subprocess.run(["sbatch"], input=script, text=True).returncode


if __name__ == "__main__":
    sys.exit(main())
