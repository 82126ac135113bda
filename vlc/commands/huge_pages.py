"""Huge pages for computation on a CPU: a fifth of the time of a train step goes into small ones.

Each step asks for gigabytes of new memory. In pages of 4 KiB that is a fault each, and the processor's table of pages
overflows. glibc asks for huge pages only where a variable says so when a process starts, so the command starts itself
again with it set.
"""

import os
import sys
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb"
TUNABLES = f"{_TUNABLE}=1"


def use_huge_pages() -> None:
    """Starts this process again with huge pages, where that helps: Linux with glibc, no accelerator, pages allowed.

    `VLC_HUGE_PAGES=off` leaves it as it is, and so does a `GLIBC_TUNABLES` that mentions them.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if os.environ.get("VLC_HUGE_PAGES") == "off" or _TUNABLE in tunables or not sys.orig_argv:
        return
    if not _is_offered() or _has_accelerator():
        return
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, TUNABLES)))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _is_offered() -> bool:
    """Whether the kernel gives huge pages to those who ask for them."""
    try:
        glibc = "glibc" in os.confstr("CS_GNU_LIBC_VERSION")  # pyright: ignore[reportOperatorIssue]
        return glibc and "[madvise]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _has_accelerator() -> bool:
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(Path(device).exists() for device in ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd"))
