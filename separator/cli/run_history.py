"""What run folders tell of their trainings; they are read only."""

import json
import os
import statistics
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from separator.engine.cadence import next_validation, validations_left
from separator.errors import SeparatorError, printable

METRICS = "metrics.jsonl"
MAX_POINTS = 1000  # of a curve
SPEED_ROWS = 20  # rows whose median is the present speed
KEPT_STEPS = {"images": 50, "audio": 10}  # of each tag, the number of steps that are kept in memory
MEDIA_TYPES = {"images": "image/png", "audio": "audio/wav"}


class Run:
    """The history of one run.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._version = ""
        self._rows: list[dict[str, Any]] = []
        self._events: Any = None

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the metrics file; a last one that is being written is left out."""
        with self._lock:
            version = self.version()
            if version != self._version:
                self._rows, self._version = read_rows(self.folder), version
            return self._rows

    def version(self) -> str:
        """Return a text that changes with the metrics file, and with the pictures and sounds."""
        try:
            about = (self.folder / METRICS).stat()
            media = sum(path.stat().st_size for path in self.folder.glob("events.out.*"))
        except OSError:
            return "none"
        return f"{about.st_mtime_ns}-{about.st_size}-{media}"

    def summary(self) -> dict[str, Any]:
        """Return where the run is, and the seconds that the rest and the next validation take."""
        rows, version = self.rows(), self.version()
        config = _config(self.folder / "config.yaml")
        step, steps = max((row["step"] for row in rows), default=0), config.get("steps", 0)
        scores = [(row["score"], row["step"]) for row in rows if row.get("score") is not None]
        about = {"name": printable(str(self.folder)), "version": version, "step": step}
        about |= {"steps": steps, "score": scores[-1][0] if scores else None}
        about |= {"best": max(scores, default=None), "age": _age(version)}
        about |= {"left": None, "validation": None}
        speed = _median(rows, "speed/steps_per_second")
        if not speed or step >= steps:
            return about
        every = config.get("validate_every", "auto")
        cost = _median(rows, "speed/validation_seconds")
        due = next_validation(step, every, steps)
        wait = (due - step) / speed
        about["validation"] = {"step": due, "wait": wait, "seconds": cost}
        about["left"] = (steps - step) / speed + (cost or 0) * validations_left(step, every, steps)
        return about

    def curves(self) -> dict[str, dict[str, list[tuple[int, float | None]]]]:
        """Return the points of each number by kind of row and name; a gap is None."""
        kinds: dict[str, dict[str, list[tuple[int, float | None]]]] = {}
        for row in self.rows():
            curves = kinds.setdefault(row["kind"], {})
            for name, value in row.items():
                if name not in ("step", "kind"):
                    curves.setdefault(name, []).append((row["step"], value))
        return {
            kind: {name: _thinned(points) for name, points in curves.items()}
            for kind, curves in kinds.items()
        }

    def media(self) -> list[dict[str, Any]]:
        """Return kind, tag and steps of the pictures and sounds."""
        with self._lock:
            events = self._read_events()
            return [
                {"kind": kind, "tag": tag, "steps": [one.step for one in _items(events, kind, tag)]}
                for kind in KEPT_STEPS
                for tag in events.Tags()[kind]
            ]

    def medium(self, kind: str, tag: str, step: int) -> bytes | None:
        """Return a picture as PNG or a sound as WAV, None if there is none.

        Args:
            kind: one of KEPT_STEPS.
            tag: its name in TensorBoard.
            step: after which it was made.
        """
        with self._lock:
            tags = self._events.Tags()[kind] if self._events and kind in KEPT_STEPS else ()
            for one in _items(self._events, kind, tag) if tag in tags else ():
                if one.step == step:
                    return getattr(one, f"encoded_{kind.removesuffix('s')}_string")
        return None

    def _read_events(self) -> Any:
        """Read what TensorBoard's files got since the last time."""
        if self._events is None:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            self._events = EventAccumulator(str(self.folder), {**KEPT_STEPS, "scalars": 1})
        return self._events.Reload()


class Runs:
    """The runs in folders.

    Args:
        roots: run folders, or folders that hold some at any depth.

    Raises:
        SeparatorError: a folder does not exist, or there is no run in it.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self._roots = [Path(root) for root in roots]
        self._runs: dict[str, Run] = {}
        for root in self._roots:
            if not root.is_dir():
                raise SeparatorError(f"{root}: no such folder; give a run's, such as runs/vocals")
            if not _run_folders(root):
                raise SeparatorError(f"{root}: holds no run; give the folder that run= names")

    def find(self) -> list[Run]:
        """Return the runs, new ones included, in the order of their folders."""
        folders = [folder for root in self._roots for folder in _run_folders(root)]
        return [self._runs.setdefault(printable(str(folder)), Run(folder)) for folder in folders]

    def get(self, name: str) -> Run:
        """Return a run by its name in a summary.

        Raises:
            SeparatorError: there is none of this name.
        """
        if name not in self._runs:
            self.find()
        if name not in self._runs:
            raise SeparatorError(f"{name}: not a run of this page; reload it")
        return self._runs[name]


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run folder's metrics.jsonl, without one that a kill cut short.

    Args:
        folder: of the run.

    Returns:
        The rows, none before the file exists.
    """
    return [row for row in map(_row, _text(folder / METRICS).splitlines()) if row]


def _run_folders(root: Path) -> list[Path]:
    """Return a run folder itself, else those below a folder."""
    if any((root / name).exists() for name in (METRICS, "config.yaml")):
        return [root]
    return sorted(Path(f) for f, _, names in os.walk(root) if {METRICS, "last.pt"} & {*names})


def _items(events: Any, kind: str, tag: str) -> list[Any]:
    return (events.Images if kind == "images" else events.Audio)(tag)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except OSError:  # a run that has just begun
        return ""


def _config(path: Path) -> dict[str, Any]:
    try:
        return dict(yaml.safe_load(_text(path)) or {})
    except (yaml.YAMLError, ValueError, TypeError):  # not of a run
        return {}


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        return row if isinstance(row["step"], int) and isinstance(row["kind"], str) else None
    except (ValueError, KeyError, TypeError):
        return None


def _age(version: str) -> float | None:
    """Return the seconds since the last row."""
    written = version.partition("-")[0]
    return max(0.0, time.time() - int(written) / 1e9) if written.isdigit() else None


def _median(rows: list[dict[str, Any]], name: str) -> float | None:
    values = [row[name] for row in rows[-10 * SPEED_ROWS :] if row.get(name) is not None]
    return statistics.median(values[-SPEED_ROWS:]) if values else None


def _thinned(points: list[tuple[int, float | None]]) -> list[tuple[int, float | None]]:
    """Average neighbouring points of a long curve; the last stays as it is."""
    size = -(-len(points) // MAX_POINTS)
    if size == 1:
        return points
    *others, last = points
    groups = [others[at : at + size] for at in range(0, len(others), size)]
    means = [(group[-1][0], _mean(value for _, value in group)) for group in groups]
    return [*means, last]


def _mean(values: Iterable[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return statistics.fmean(finite) if finite else None
