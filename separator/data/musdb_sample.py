"""MUSDB18's free 7-second excerpts, which musdb fetches once."""

import contextlib
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from separator.errors import SeparatorError

SAMPLE_NAME = "musdb7s"
SAMPLE_FOLDER = "~/MUSDB18/MUSDB18-7"  # musdb's own place, so that other programs find them too


def fetch_sample() -> Path:
    """Return the folder of the excerpts; download them where they are not there yet.

    The folder appears whole or not at all.

    Raises:
        SeparatorError: the ffmpeg program is missing, there is no network, or no room.
    """
    folder = Path(SAMPLE_FOLDER).expanduser()
    if (folder / "train").is_dir():
        return folder
    if not shutil.which("ffmpeg"):
        raise SeparatorError(f"{SAMPLE_NAME}: its files need the ffmpeg program; install ffmpeg")
    part = None
    try:
        import musdb

        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        with contextlib.redirect_stdout(sys.stderr):  # musdb says where it downloads to
            musdb.DB(root=str(part), download=True, subsets=[])
        part.rename(folder)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise SeparatorError(
            f"{SAMPLE_NAME}: cannot be fetched: {error}; where there is no network, copy "
            f"MUSDB18-7-STEMS to {folder}"
        ) from error
    finally:
        if part:
            shutil.rmtree(part, ignore_errors=True)
    return folder
