"""This machine: its memory, in all and for sharing, and how its threads wait."""

import os
import shutil
import sys
from pathlib import Path

SHARED = Path("/dev/shm")  # where Linux keeps what processes share; nothing is there elsewhere
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def memory() -> int:
    """Return the bytes of memory that this machine has, or its container, if that has fewer."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in LIMITS:
        try:
            sizes.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # no such control group, or "max"
            continue
    return min(sizes)


def shared_memory() -> float:
    """Return the bytes that processes can still share; infinite where the system sets no limit."""
    if os.uname().sysname != "Linux":
        return float("inf")
    try:
        return shutil.disk_usage(SHARED).free
    except OSError:
        return 0


def wait_passively() -> None:
    """Let the threads of torch leave their cores to others while they wait.

    Torch reads this setting when it is imported: later it stays as it is, and what the user has set
    always does.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
