"""Which process of how many this is, as the launcher tells: flags, SLURM, Kubernetes, Cloud TPU."""

import importlib.util
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlc.errors import ConfigError

PORT = 12620  # of the rendezvous; JAX's own coordinator takes the next
_METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"


@dataclass(frozen=True)
class ProcessInfo:
    """One process among those of a run.

    Attributes:
        index: Of this process, from 0.
        count: Of all processes.
        coordinator: `HOST:PORT` of process 0; the port after it must be free as well.
        known_from: Where this was learned from, for messages.
        hosts: The host of each process, where known.
        local_index: Of this process among those of its host.
        local_count: Processes of this host.
    """

    index: int = 0
    count: int = 1
    coordinator: str = ""
    known_from: str = "alone"
    hosts: tuple[str, ...] = ()
    local_index: int = 0
    local_count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ConfigError(
                f"This process is number {self.index} of {self.count} ({self.known_from}); numbers go from 0 to "
                f"{self.count - 1}."
            )
        if self.count > 1 and not re.fullmatch(r".+:\d+", self.coordinator):
            raise ConfigError(
                f'The coordinator is "{self.coordinator}" ({self.known_from}); it must be HOST:PORT, process 0 as the '
                "others reach it."
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the rendezvous."""
        host, port = self.coordinator.rsplit(":", 1)
        return host, int(port)

    def name(self, index: int) -> str:
        """A process in words, `process 3 (node7)`."""
        return f"process {index} ({self.hosts[index]})" if index < len(self.hosts) else f"process {index}"


def find_process_info(
    coordinator: str = "", processes: int = 0, process: int = -1, env: Mapping[str, str] = os.environ
) -> ProcessInfo:
    """Which process this is, by the first of: the arguments, `VLC_COORDINATOR`, SLURM, Cloud TPU; else it is alone.

    Args:
        coordinator: `HOST:PORT` of process 0.
        processes: How many there are.
        process: Which of them this is.
        env: The environment.

    Raises:
        ConfigError: Only a part is given, or it makes no sense.
    """
    if coordinator or processes or process >= 0:
        if not (coordinator and processes > 0 and process >= 0):
            raise ConfigError("--coordinator HOST:PORT, --processes N and --process I belong together: give all three.")
        return ProcessInfo(process, processes, coordinator, "--process")
    finders: tuple[Callable[[Mapping[str, str]], ProcessInfo | None], ...] = (_of_variables, _of_slurm, _of_tpu)
    return next((info for find in finders if (info := find(env))), ProcessInfo())


def _number(env: Mapping[str, str], name: str, because: str = "VLC_COORDINATOR") -> int:
    """The variable's number, which is needed since another is set."""
    try:
        return int(env[name])
    except KeyError:
        raise ConfigError(f"{because} is set, but {name} is not. Set it, or unset {because}.") from None
    except ValueError:
        raise ConfigError(f'{name} is "{env[name]}"; it must be a whole number.') from None


def _of_variables(env: Mapping[str, str]) -> ProcessInfo | None:
    """`VLC_COORDINATOR`, `VLC_PROCESSES`, and `VLC_PROCESS` or an indexed Job's `JOB_COMPLETION_INDEX`.

    With `VLC_GROUP` (number of the Job in a JobSet) and `VLC_GROUP_SIZE` (its pods), processes are counted through.
    Where a host has several processes, with `VLC_LOCAL_PROCESS` and `VLC_LOCAL_PROCESSES` each takes one of its GPUs.
    """
    if not env.get("VLC_COORDINATOR"):
        return None
    name = "VLC_PROCESS" if "VLC_PROCESS" in env else "JOB_COMPLETION_INDEX"
    before = _number(env, "VLC_GROUP") * _number(env, "VLC_GROUP_SIZE") if env.get("VLC_GROUP") else 0
    local = (
        (_number(env, "VLC_LOCAL_PROCESS"), _number(env, "VLC_LOCAL_PROCESSES")) if "VLC_LOCAL_PROCESS" in env else ()
    )
    return ProcessInfo(
        before + _number(env, name), _number(env, "VLC_PROCESSES"), env["VLC_COORDINATOR"], name, (), *local
    )


def _of_slurm(env: Mapping[str, str]) -> ProcessInfo | None:
    """A step that `srun` started with several tasks."""
    count = int(env.get("SLURM_STEP_NUM_TASKS") or 1)
    if count == 1 or "SLURM_PROCID" not in env:
        return None
    nodes = expand_hosts(env["SLURM_STEP_NODELIST"])
    tasks = _tasks_of_nodes(env["SLURM_STEP_TASKS_PER_NODE"])
    hosts = tuple(node for node, number in zip(nodes, tasks, strict=False) for _ in range(number))
    port = 20_000 + 2 * (int(env["SLURM_JOB_ID"]) % 10_000)  # two jobs on a node do not meet
    index = int(env["SLURM_PROCID"])
    return ProcessInfo(
        index, count, f"{nodes[0]}:{port}", "SLURM_PROCID", hosts if len(hosts) == count else (),
        int(env.get("SLURM_LOCALID") or 0), tasks[min(int(env.get("SLURM_NODEID") or 0), len(tasks) - 1)],
    )  # fmt: skip


def expand_hosts(text: str) -> list[str]:
    """`a[01-03,7],b` as SLURM writes it to `a01 a02 a03 a7 b`."""
    found = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        brackets = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
        if not brackets:
            found.append(part)
            continue
        before, ranges, after = brackets.groups()
        for one in ranges.split(","):
            first, _, last = one.partition("-")
            numbers = range(int(first), int(last or first) + 1)
            found += expand_hosts(",".join(f"{before}{n:0{len(first)}}{after}" for n in numbers))
    return found


def _tasks_of_nodes(text: str) -> list[int]:
    """`2(x3),1` as SLURM writes it to `2 2 2 1`."""
    parts = (re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part) for part in text.split(","))
    return [int(part[1]) for part in parts if part for _ in range(int(part[2] or 1))]


def _of_tpu(env: Mapping[str, str]) -> ProcessInfo | None:
    """A host of a TPU slice: what GKE sets, or what the metadata server of a TPU VM tells; several slices count on."""
    if env.get("TPU_WORKER_HOSTNAMES"):
        hosts = env["TPU_WORKER_HOSTNAMES"].split(",")
        # Of a lone host libtpu may have set it to a warning in words.
        index = _number(env, "TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES") if len(hosts) > 1 else 0
    elif has_tpu():
        workers = _metadata("worker-network-endpoints")
        hosts, index = [one.split(":")[2] for one in workers.split(",")], int(_metadata("agent-worker-number"))
    else:
        return None
    slices, slice_index = int(env.get("MEGASCALE_NUM_SLICES") or 1), int(env.get("MEGASCALE_SLICE_ID") or 0)
    if len(hosts) * slices == 1:
        return None
    first = env["MEGASCALE_COORDINATOR_ADDRESS"].split(":")[0] if slices > 1 else hosts[0]
    known = tuple(hosts) if slices == 1 else ()
    return ProcessInfo(
        slice_index * len(hosts) + index, slices * len(hosts), f"{first}:{PORT}", "the TPU's worker number", known
    )


def has_tpu() -> bool:
    """Whether this host has a TPU and what drives it; other devices may be passed on by vfio too."""
    devices = any(Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0"))
    return devices and importlib.util.find_spec("libtpu") is not None


def _metadata(name: str) -> str:
    request = urllib.request.Request(_METADATA + name, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError) as error:
        raise ConfigError(
            f"There is a TPU, but the metadata server does not tell {name} ({error}). Give --coordinator, --processes "
            "and --process; a single host is --coordinator localhost:12620 --processes 1 --process 0."
        ) from error
