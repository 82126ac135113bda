"""What one chip can do at best, by the vendors' data sheets (Google Cloud's TPU pages; NVIDIA's H100 SXM)."""

from dataclasses import dataclass

_G = 1e9


@dataclass(frozen=True)
class Chip:
    """Figures of one chip, as JAX counts devices.

    Attributes:
        name: As topologies call it.
        kinds: What JAX's `device_kind` begins with.
        memory: Bytes of HBM.
        flops: Dense bf16 FLOP/s.
        bandwidth: HBM, bytes/s.
        links: What all links to other chips send at once, bytes/s: half of what data sheets give for both ways.
        network: The chip's part of its host's data-centre network, bytes/s; an assumption (100 Gbit/s for four TPU
            chips, 400 for each GPU), as it depends on what is rented.
    """

    name: str
    kinds: tuple[str, ...]
    memory: float
    flops: float
    bandwidth: float
    links: float
    network: float


CHIPS = (
    Chip("v4", ("TPU v4",), 32 * 2**30, 275e12, 1228 * _G, 150 * _G, 3.125 * _G),
    Chip("v5e", ("TPU v5 lite", "TPU v5e"), 16 * 2**30, 197e12, 819 * _G, 100 * _G, 3.125 * _G),
    Chip("v5p", ("TPU v5", "TPU v5p"), 95 * 2**30, 459e12, 2765 * _G, 300 * _G, 3.125 * _G),
    Chip("v6e", ("TPU v6 lite", "TPU v6e"), 32 * 2**30, 918e12, 1640 * _G, 224 * _G, 3.125 * _G),
    Chip("a100", ("NVIDIA A100",), 80 * 2**30, 312e12, 2039 * _G, 300 * _G, 25 * _G),
    Chip("h100", ("NVIDIA H100",), 79.1 * 2**30, 989e12, 3352 * _G, 450 * _G, 50 * _G),
    Chip("h200", ("NVIDIA H200",), 140 * 2**30, 989e12, 4800 * _G, 450 * _G, 50 * _G),
)


def chip_of(device_kind: str) -> Chip | None:
    """The chip by its longest matching name; `None` for a CPU or an unknown one."""
    found = [(len(kind), chip) for chip in CHIPS for kind in chip.kinds if device_kind.startswith(kind)]
    return max(found, key=lambda pair: pair[0])[1] if found else None
