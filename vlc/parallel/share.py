"""This process's share of the global batches: which rows it reads, and how they become one array on all devices."""

import jax
import numpy as np
from jax.sharding import Mesh

from vlc.parallel.sharding import batch_sharding


class Share:
    """The rows of a global batch that the devices of this process hold.

    A mesh may spread rows over hosts in any order, and with a tensor axis across hosts several processes hold the same
    ones; each reads those that its own devices need.

    Attributes:
        rows: Their numbers, in order.
        counted: For each of them whether it counts here: one that several processes hold counts with the first.
    """

    def __init__(self, mesh: Mesh, batch_size: int):
        self._sharding, self._size = batch_sharding(mesh), batch_size
        here, owner = jax.process_index(), {}
        for device, place in self._sharding.devices_indices_map((batch_size,)).items():
            for row in range(*place[0].indices(batch_size)):
                owner.setdefault(row, set()).add(device.process_index)
        self.rows = np.array([row for row in sorted(owner) if here in owner[row]])
        self.counted = np.array([min(owner[row]) == here for row in self.rows])

    def to_devices(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """Arrays `[rows, ...]` of this process to its devices, as parts of global arrays `[batch_size, ...]`."""
        return {name: self._to_devices(array) for name, array in batch.items()}

    def _to_devices(self, array: np.ndarray) -> jax.Array:
        shape = (self._size, *array.shape[1:])
        places = self._sharding.addressable_devices_indices_map(shape)
        parts = [jax.device_put(array[self._here(place[0])], device) for device, place in places.items() if place]
        return jax.make_array_from_single_device_arrays(shape, self._sharding, parts)

    def _here(self, wanted: slice) -> slice:
        """Where rows of the global batch stand among those of this process."""
        first, last, _ = wanted.indices(self._size)
        start = int(np.searchsorted(self.rows, first))
        return slice(start, start + last - first)
