"""Meshes, sharding rules, and several processes as one run."""

from vlc.parallel.chips import Chip, chip_of
from vlc.parallel.flags import compiler_options, set_flags
from vlc.parallel.mesh import check_batch, data_shares, describe_mesh, local_mesh, make_mesh
from vlc.parallel.process_info import ProcessInfo, find_process_info
from vlc.parallel.processes import (
    agreed_stop,
    all_processes,
    allgather_objects,
    barrier,
    check_shared,
    fetch,
    from_process,
    is_primary,
    local_indices,
    map_over_processes,
    primary_first,
    print_once,
    start_processes,
    sum_over_processes,
)
from vlc.parallel.rendezvous import EXIT_LOST, Watch
from vlc.parallel.sharding import batch_sharding, replicated, state_sharding
from vlc.parallel.share import Share
from vlc.parallel.stop import EXIT_PREEMPTED
from vlc.parallel.topology import topology_devices

__all__ = [
    "EXIT_LOST",
    "EXIT_PREEMPTED",
    "Chip",
    "ProcessInfo",
    "Share",
    "Watch",
    "agreed_stop",
    "all_processes",
    "allgather_objects",
    "barrier",
    "batch_sharding",
    "check_batch",
    "check_shared",
    "chip_of",
    "compiler_options",
    "data_shares",
    "describe_mesh",
    "fetch",
    "find_process_info",
    "from_process",
    "is_primary",
    "local_indices",
    "local_mesh",
    "make_mesh",
    "map_over_processes",
    "primary_first",
    "print_once",
    "replicated",
    "set_flags",
    "start_processes",
    "state_sharding",
    "sum_over_processes",
    "topology_devices",
]
