"""The folders of temporary files, one for each server, and those that killed servers left."""

import logging
import os
import platform
import shutil
import tempfile
import zlib
from pathlib import Path

log = logging.getLogger(__name__)

PREFIX = f"separator-serve-{zlib.crc32(platform.node().encode()):08x}-"  # of this machine


def new_folder() -> Path:
    """Make a folder for this process that only this user may read."""
    return Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))


def remove_abandoned(folder: Path) -> None:
    """Remove the files of servers that were killed.

    Args:
        folder: of temporary files.
    """
    for path in folder.glob(f"{PREFIX}*"):
        number = path.name.removeprefix(PREFIX).partition("-")[0]
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (ValueError, OSError):  # not ours, or another user's
            log.debug("%s stays", path)
