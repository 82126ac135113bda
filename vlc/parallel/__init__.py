"""Meshes and sharding rules."""

from vlc.parallel.mesh import check_batch, make_mesh
from vlc.parallel.sharding import batch_sharding, put_batch, replicated, state_sharding
from vlc.parallel.topology import topology_devices

__all__ = [
    "batch_sharding",
    "check_batch",
    "make_mesh",
    "put_batch",
    "replicated",
    "state_sharding",
    "topology_devices",
]
