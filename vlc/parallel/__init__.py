"""Meshes, sharding rules, and several processes as one run."""

from vlc.parallel.chips import Chip, chip_of
from vlc.parallel.flags import set_flags
from vlc.parallel.mesh import check_batch, data_shares, describe_mesh, local_mesh, make_mesh
from vlc.parallel.place import Place, find_place
from vlc.parallel.roll_call import EXIT_LOST, Watch
from vlc.parallel.sharding import batch_sharding, replicated, state_sharding
from vlc.parallel.share import Share
from vlc.parallel.stop import EXIT_PREEMPTED
from vlc.parallel.together import (
    agreed_stop,
    all_of_us,
    check_shared,
    everyones,
    fetch,
    first_before_others,
    is_first,
    meet,
    own_share,
    say,
    shared_out,
    start_together,
    sums_of_us,
)
from vlc.parallel.topology import topology_devices

__all__ = [
    "EXIT_LOST",
    "EXIT_PREEMPTED",
    "Chip",
    "Place",
    "Share",
    "Watch",
    "agreed_stop",
    "all_of_us",
    "batch_sharding",
    "check_batch",
    "check_shared",
    "chip_of",
    "data_shares",
    "describe_mesh",
    "everyones",
    "fetch",
    "find_place",
    "first_before_others",
    "is_first",
    "local_mesh",
    "make_mesh",
    "meet",
    "own_share",
    "replicated",
    "say",
    "set_flags",
    "shared_out",
    "start_together",
    "state_sharding",
    "sums_of_us",
    "topology_devices",
]
