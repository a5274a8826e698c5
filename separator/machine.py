"""How much memory this machine has, in all and to share between processes."""

import os
import shutil
from pathlib import Path

SHARED = Path("/dev/shm")  # where Linux keeps what processes share; nothing is there elsewhere
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory() -> int:
    """Bytes of memory that this machine, or the container, has."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in LIMITS:
        try:
            sizes.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return min(sizes)


def shared_memory() -> float:
    """Bytes free to share between processes; infinite where the system sets no limit of its own."""
    if os.uname().sysname != "Linux":
        return float("inf")
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return 0
