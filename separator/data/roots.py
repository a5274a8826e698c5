"""The notation of `data.roots`: KIND:PATH@WEIGHT."""

from pathlib import Path

from separator.data.layouts import LAYOUTS
from separator.errors import SeparatorError, printable


def parse_root(text: str) -> tuple[str, str, float]:
    """Split "KIND:PATH@WEIGHT" into path, kind ("auto" when left out) and weight (1.0).

    Raises:
        SeparatorError: a weight that is not above 0, or an unknown kind before what is no folder.
    """
    named, colon, rest = text.partition(":")
    kind, path = (named, rest) if colon and named in LAYOUTS else ("auto", text)
    path, weight = _weighted(path, text)
    drive = len(named) == 1  # C:\Music
    if kind == "auto" and colon and named.isalpha() and not drive and not _exists(path):
        raise SeparatorError(
            f"data.roots: {printable(text)}: no such folder, and {named!r} is none of "
            f"{', '.join(LAYOUTS)}"
        )
    return path, kind, weight


def _weighted(path: str, text: str) -> tuple[str, float]:
    """Split "PATH@WEIGHT"; what is a folder as it stands has no weight."""
    before, at, weight = path.rpartition("@")
    if not at or _exists(path):
        return path, 1.0
    try:
        share = float(weight)
    except ValueError:
        return path, 1.0
    if not 0 < share < float("inf"):
        raise SeparatorError(f"data.roots: {printable(text)}: the weight after @ must be above 0")
    return before, share


def _exists(path: str) -> bool:
    return Path(path).expanduser().exists()
