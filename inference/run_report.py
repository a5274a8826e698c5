"""The report of `separator separate`: JSON for programs, a table for people.

The report, which `--report FILE.json` writes, is

    schema    2
    model     {"path", "digest"}
    songs     [{"song", "status": "separated" by this run, or "already there": its results were,
                "outputs": [paths], "seconds": of sound, "model_seconds": of work of the model,
                "speed": seconds / model_seconds, "gain_db": of all its stems, below 0 where a
                format of integers could not hold them}]; the last three are null for songs
                already there
    failures  [{"song", "error"}], songs that could not be separated
    summary   {"separated", "already_there", "failed": numbers of songs; "seconds": of sound that
               was separated, again where a song was, "seconds_already_there", "elapsed": seconds
               from the first song's beginning to the last one's end, "speed": seconds / elapsed,
               "model_idle_share": of the time between the model's first and last work, null
               without any}

Another suffix than .json gets the table, in Markdown.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from separator.atomic import write_text
from separator.audio import AudioInfo
from separator.errors import counted, printable, writing

SEPARATED, THERE = "separated", "already there"


@dataclass
class RunReport:
    """What became of the songs of a run.

    Attributes:
        model: path and digest of the model.
        songs: the songs that are done, as in the file, by their paths.
        failures: the line of each song that failed, by its path.
        seconds: of sound that was separated.
        elapsed: seconds of work.
        busy: seconds of them in which the model worked.
        span: seconds from its first to its last work.
    """

    model: dict[str, str]
    songs: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    elapsed: float = 0.0
    busy: float = 0.0
    span: float = 0.0

    def add(
        self,
        info: AudioInfo,
        outputs: Sequence[Path],
        spent: float | None = None,
        gain: float | None = None,
    ) -> None:
        """Note a song that is done.

        Args:
            info: the song.
            outputs: its results.
            spent: seconds of the model's work; None where the results were there already.
            gain: of all stems, in dB.
        """
        name = str(info.path)
        status = SEPARATED if spent is not None else THERE
        if status == THERE and name in self.songs:  # a watched file that was touched
            return
        self.failures.pop(name, None)  # an earlier one of a watched file
        self.seconds += info.seconds if status == SEPARATED else 0
        row = {"song": name, "status": status, "outputs": [str(path) for path in outputs]}
        figures = {"seconds": info.seconds, "model_seconds": spent, "gain_db": gain}
        self.songs[name] = row | figures | {"speed": info.seconds / spent if spent else None}

    def fail(self, song: str, line: str) -> None:
        """Note a song that failed, perhaps after it was done: a watched file that was changed.

        Args:
            song: its path.
            line: why.
        """
        self.songs.pop(song, None)
        self.failures[song] = line

    def summary(self) -> dict[str, Any]:
        """Return the sums over all songs."""
        there = [song["seconds"] for song in self.songs.values() if song["status"] == THERE]
        return {
            "separated": len(self.songs) - len(there),
            "already_there": len(there),
            "failed": len(self.failures),
            "seconds": self.seconds,
            "seconds_already_there": sum(there),
            "elapsed": self.elapsed,
            "speed": self.seconds / self.elapsed if self.elapsed else None,
            "model_idle_share": 1 - self.busy / self.span if self.span else None,
        }

    def sentence(self) -> str:
        """Return the summary in words."""
        sums = self.summary()
        kinds = {"separated": SEPARATED, "already_there": THERE, "failed": "failed"}
        parts = [f"{sums[key]} {words}" for key, words in kinds.items() if sums[key]]
        text = counted(sum(sums[key] for key in kinds), "song")
        text += f": {', '.join(parts)}" if parts else ""  # none of a run stopped before its first
        if sums["speed"]:
            sound, work = _duration(sums["seconds"]), _duration(sums["elapsed"])
            text += f"; {sound} of music in {work}, {sums['speed']:.1f} times real time"
        return text

    def write(self, path: str | Path) -> None:
        """Write the report, whole or not at all.

        Args:
            path: the file; JSON where it ends in .json.

        Raises:
            SeparatorError: it cannot be written.
        """
        text = self._json() if Path(path).suffix.lower() == ".json" else self._table()
        with writing(path, "give --report a path that can be written"):
            write_text(path, text)

    def _json(self) -> str:
        failures = [{"song": song, "error": line} for song, line in self._reasons()]
        songs = [self.songs[name] for name in sorted(self.songs)]
        report = {"schema": 2, "model": self.model, "songs": songs, "failures": failures}
        return json.dumps(report | {"summary": self.summary()}, indent=2) + "\n"

    def _table(self) -> str:
        idle = self.summary()["model_idle_share"]
        lines = [self.sentence() + (f"; the model idle {idle:.1%}" if idle is not None else ""), ""]
        if self.songs:
            head = "| song | status | seconds | times real time, model | gain, dB |"
            lines += [head, "|---|---|---:|---:|---:|"]
        for _, song in sorted(self.songs.items()):
            speed, gain = song["speed"], song["gain_db"]
            fields = [_in_table(song["song"]), song["status"], f"{song['seconds']:.1f}"]
            fields += [f"{speed:.1f}" if speed else "-", "-" if gain is None else f"{gain:.2f}"]
            lines.append(f"| {' | '.join(fields)} |")
        if self.failures:
            lines += ["", "| failed | reason |", "|---|---|"]
        lines += [f"| {_in_table(song)} | {_in_table(line)} |" for song, line in self._reasons()]
        return "\n".join([*lines, ""])

    def _reasons(self) -> Iterator[tuple[str, str]]:
        """Yield each song that failed, and its line without the name."""
        for song, line in self.failures.items():
            yield song, line.removeprefix(f"{printable(song)}: ")


def _duration(seconds: float) -> str:
    """Return a time in the unit that fits it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _in_table(text: str) -> str:
    return printable(text).replace("|", "\\|")
