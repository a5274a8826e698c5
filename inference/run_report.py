"""The report of `separator separate`: JSON for programs, a table for people.

The report, which `--report FILE.json` writes, is

    schema    1
    model     {"path", "digest"}
    songs     [{"song", "outputs": [paths], "seconds": of sound, "model_seconds": of work of the
                model, "speed": seconds / model_seconds, "gain_db": of all its stems, below 0 where
                a format of integers could not hold them}], in the order of their ends
    failures  [{"song", "error"}], songs that could not be separated
    summary   {"songs", "failed", "seconds": of sound, "elapsed": seconds from the first song's
               beginning to the last one's end, "speed": seconds / elapsed, "model_idle_share": of
               the time between the model's first and last work, null without any}

Another suffix than .json gets the table, in Markdown.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separator.atomic import write_text
from separator.errors import SeparatorError, one_line, printable


@dataclass
class RunReport:
    """What became of the songs of a run.

    Attributes:
        model: path and digest of the model.
        songs: the songs that are done, as in the file.
        failures: the line of each song that failed, by its path.
        elapsed: seconds of work.
        busy: seconds of them in which the model worked.
        span: seconds from its first to its last work.
    """

    model: dict[str, str]
    songs: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    elapsed: float = 0.0
    busy: float = 0.0
    span: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return the sums over all songs."""
        seconds = sum(song["seconds"] for song in self.songs)
        return {
            "songs": len(self.songs),
            "failed": len(self.failures),
            "seconds": seconds,
            "elapsed": self.elapsed,
            "speed": seconds / self.elapsed if self.elapsed else None,
            "model_idle_share": 1 - self.busy / self.span if self.span else None,
        }

    def sentence(self) -> str:
        """Return the summary in words."""
        sums = self.summary()
        count, minutes = sums["songs"], sums["elapsed"] / 60
        text = f"{count} song{'' if count == 1 else 's'}, {sums['seconds'] / 3600:.2f} hours"
        if sums["speed"]:
            text += f", in {minutes:.1f} minutes ({sums['speed']:.1f} times real time)"
        return f"{text}, {sums['failed']} failed"

    def write(self, path: str | Path) -> None:
        """Write the report, whole or not at all.

        Args:
            path: the file; JSON where it ends in .json.

        Raises:
            SeparatorError: it cannot be written.
        """
        text = self._json() if Path(path).suffix.lower() == ".json" else self._table()
        try:
            write_text(path, text)
        except OSError as error:
            name = printable(str(path))
            fix = "give --report a path that can be written"
            raise SeparatorError(f"{name}: {one_line(error)}; {fix}") from error

    def _json(self) -> str:
        failures = [{"song": song, "error": line} for song, line in self.failures.items()]
        report = {"schema": 1, "model": self.model, "songs": self.songs, "failures": failures}
        return json.dumps(report | {"summary": self.summary()}, indent=2) + "\n"

    def _table(self) -> str:
        idle = self.summary()["model_idle_share"]
        lines = [self.sentence() + (f"; the model idle {idle:.1%}" if idle is not None else ""), ""]
        if self.songs:
            head = "| song | seconds | times real time, model | gain, dB |"
            lines += [head, "|---|---:|---:|---:|"]
        for song in self.songs:
            name, speed = _in_table(song["song"]), song["speed"]
            shown = f"{speed:.1f}" if speed else "-"
            lines.append(f"| {name} | {song['seconds']:.1f} | {shown} | {song['gain_db']:.2f} |")
        if self.failures:
            lines += ["", "| failed | reason |", "|---|---|"]
        lines += [f"| {_in_table(k)} | {_in_table(v)} |" for k, v in self.failures.items()]
        return "\n".join([*lines, ""])


def _in_table(text: str) -> str:
    return printable(text).replace("|", "\\|")
