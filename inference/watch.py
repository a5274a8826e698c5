"""Watching folders: which files are new there, and whole."""

from collections.abc import Iterable
from pathlib import Path

from separator.inference.results import Stamp, stamp_of

WATCH_SECONDS = 2.0  # between two looks
_NEVER = object()


class Watch:
    """Remembers what it has seen from one look at the folders to the next.

    The folders are looked at again and again, which works on network drives too, and tells a file
    that is still being written: it changes.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, Stamp | None] = {}
        self._passed: dict[Path, Stamp | None] = {}
        self._lines: set[str] = set()

    def passes(self, path: Path) -> bool:
        """Whether a file is as it was at the last look, and was not passed as it is.

        Args:
            path: the file.
        """
        stamp = stamp_of(path)
        settled = path in self._seen and self._seen[path] == stamp
        self._seen[path] = stamp
        if not settled or self._passed.get(path, _NEVER) == stamp:
            return False
        self._passed[path] = stamp
        return True

    def news(self, lines: Iterable[str]) -> list[str]:
        """Return the lines that were not among those of earlier calls.

        Args:
            lines: such as errors.
        """
        fresh = [line for line in lines if line not in self._lines]
        self._lines.update(fresh)
        return fresh
