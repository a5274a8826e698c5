"""One run of a comparison: its stages, each a process of its own, and whether they are done."""

import contextlib
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from separator import cli
from separator.atomic import write_text
from separator.engine.stop import OUT_OF_TIME
from separator.engine.task import check_config
from separator.errors import SeparatorError
from separator.inference.compare.config import PLACEHOLDER

log = logging.getLogger(__name__)

SCORES, RECORD, OUTPUT = "scores.json", "stage.json", "output.log"
ANYWHERE = {"run", "device", "keep_best", "log_every", "checkpoint_every", "pretrained", "seed"}
LEAST_MINUTES = 1e-3  # 0 would be without limit


class Stopped(Exception):
    """The comparison was asked to stop."""


def settings(stage: str, words: list[str]) -> dict[str, Any]:
    """Ask a trainer what its words mean: all that differs from its defaults and matters.

    Raises:
        SeparatorError: a file that is not there, a key it does not know, a value of a wrong type.
    """
    words = [
        PLACEHOLDER.sub(r"\1\2", word) for word in words
    ]  # arms, whose models are not there yet
    printed, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
        try:
            cli.main([stage, *words, "--print_config=skip_default"])
        except SystemExit:
            values = yaml.safe_load(printed.getvalue())
            values["data"].pop("workers", None)
            return {key: value for key, value in values.items() if key not in ANYWHERE}
    raise SeparatorError(_reason(errors.getvalue()))


class Children:
    """The processes of the runs in progress, to be stopped together.

    Args:
        jobs: how many there are at a time; they share the cores.
    """

    def __init__(self, jobs: int) -> None:
        threads = str(max(1, torch.get_num_threads() // jobs))
        self._environment = {"OMP_NUM_THREADS": threads} | os.environ
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._folders: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)
        self._stopped = False

    def alone(self, folder: Path) -> threading.Lock:
        """Return the lock of a run folder: arms that share a pretraining wait for each other."""
        with self._lock:
            return self._folders[folder]

    def run(self, words: list[str], output: Path, ends: tuple[int, ...] = (0,)) -> None:
        """Run `python -m words` to its end; what it says is added to a file.

        Args:
            words: module and arguments.
            output: the file.
            ends: exit statuses that are no failure.

        Raises:
            SeparatorError: it failed; tells the last thing that it said.
            Stopped: so was the comparison.
        """
        with output.open("ab") as file:
            start = file.tell()
            with self._lock:
                self.check()
                process = subprocess.Popen(
                    [sys.executable, "-m", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    process_group=0,  # Ctrl-C reaches it through `stop`, once
                )
                self._running.add(process)
            code = process.wait()
            with self._lock:
                self._running.discard(process)
        if code not in ends:
            self.check()
            with output.open("rb") as file:
                file.seek(start)
                said = _reason(file.read().decode("utf-8", "replace"))
            killed = f"killed by {signal.Signals(-code).name} after: " if code < 0 else ""
            raise SeparatorError(f"{killed}{said} ({output})")

    def check(self) -> None:
        """Raise `Stopped` once the comparison was stopped."""
        if self._stopped:
            raise Stopped

    def stop(self, number: int) -> None:
        """Send a signal to all that run, and begin no more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.send_signal(number)


@dataclass(frozen=True, eq=False)
class Run:
    """An arm with a seed.

    Attributes:
        arm: its name.
        seed: of both stages.
        folder: where its stages have their run folders.
        stages: for "pretrain" (if it does) and "train", the trainer's words and what they mean.
        pretrained: run folder of the pretraining, which arms that pretrain alike share; by default
            its own.
        needs: the runs whose models this one uses, by arm.
    """

    arm: str
    seed: int
    folder: Path
    stages: dict[str, tuple[list[str], dict[str, Any]]]
    pretrained: Path | None = None
    needs: dict[str, list["Run"]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.arm}, seed {self.seed}"

    def run_folder(self, stage: str) -> Path:
        """Return the run folder of a stage."""
        return self.pretrained if stage == "pretrain" and self.pretrained else self.folder / stage

    def made_by(self, stage: str) -> dict[str, Any]:
        """Return the settings of all that leads to the end of a stage."""
        names = list(self.stages)
        return {name: self.stages[name][1] for name in names[: names.index(stage) + 1]}

    def check(self) -> None:
        """Refuse to mix with what other settings made.

        Raises:
            SeparatorError: names the first key that differs, and the fix.
        """
        for stage in self.stages:
            if record := self.record(stage):
                path = self.run_folder(stage) / RECORD
                check_config(record["made_by"], self.made_by(stage), path)

    def scores(self) -> dict[str, Any] | None:
        """Return the content of scores.json, or None while the run is not done."""
        scores = _read(self.folder / "train" / SCORES)
        return scores if scores.get("made_by") == self.made_by("train") else None

    def record(self, stage: str) -> dict[str, Any]:
        """Return {"made_by", "seconds", "finished"} of a stage; {} before it began."""
        return _read(self.run_folder(stage) / RECORD)

    def finish(self, children: Children) -> str:
        """Do what is missing, and say in a few words how it ended."""
        self.train(children)
        folder = self.folder / "train"
        children.run(["separator.inference.compare.scores", str(folder)], folder / OUTPUT)
        scores = self.scores()
        if scores is None:
            raise SeparatorError(f"{folder / SCORES}: was not written; see {folder / OUTPUT}")
        mean = scores["summary"]["ours"]["accompaniment"]["sdr_global_mean"]
        return f"accompaniment SDR {mean:.2f} dB" if mean is not None else "no song was scored"

    def train(self, children: Children) -> None:
        """Do what is missing of the stages, after those of the runs whose models are used."""
        for runs in self.needs.values():
            for run in runs:
                run.train(children)
        for stage in self.stages:
            with children.alone(self.run_folder(stage)):
                if not self._finished(stage):
                    log.info("%s: %s", self, stage)
                    self._train(stage, children)

    def _finished(self, stage: str) -> bool:
        folder = self.run_folder(stage)
        wanted = folder / ("model.safetensors" if stage == "pretrain" else "last.pt")
        return self.record(stage).get("finished", False) and wanted.exists()

    def _train(self, stage: str, children: Children) -> None:
        """Begin or resume a stage, and note whether it came to its end."""
        folder, (words, _) = self.run_folder(stage), self.stages[stage]
        folder.mkdir(parents=True, exist_ok=True)
        before = self.record(stage).get("seconds", 0.0)
        note = {"made_by": self.made_by(stage), "seconds": before, "finished": False}
        _write(folder / RECORD, note)
        words = [self._with_models(word) for word in words]
        words += [f"seed={self.seed}", f"run={folder}"]
        if "pretrain" in self.stages and stage == "train":
            words.append(f"pretrained={self.run_folder('pretrain') / 'model.safetensors'}")
        minutes = self._minutes(stage)
        left = max(LEAST_MINUTES, minutes - before / 60) if minutes else 0
        start = time.monotonic()
        try:
            words += [f"max_minutes={left}"]
            children.run(["separator", stage, *words], folder / OUTPUT, ends=(0, OUT_OF_TIME))
        finally:
            seconds = time.monotonic() - start
            _write(folder / RECORD, note | {"seconds": before + seconds})
        asked = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["steps"]
        if last_step(folder) < asked and not (minutes and seconds >= 60 * left):
            children.check()
            raise SeparatorError(f"{folder}: was stopped early; the same command goes on")
        _write(folder / RECORD, note | {"seconds": before + seconds, "finished": True})

    def _with_models(self, word: str) -> str:
        """Put the model files of other arms in the place of the arms' names."""

        def fill(match: re.Match) -> str:
            runs = self.needs.get(match[1], [])
            chosen = [run for run in runs if match[2] or run.seed == self.seed]
            models = [json.dumps(str(run.folder / "train" / "last.pt")) for run in chosen]
            return ",".join(models) or match[0]  # last.pt: as it is scored

        return PLACEHOLDER.sub(fill, word)

    def _minutes(self, stage: str) -> float:
        return float(self.stages[stage][1].get("max_minutes", 0.0))


def rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of a run folder's metrics.jsonl; none before it has one."""
    path = folder / "metrics.jsonl"
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.exists() else []
    found = []
    for line in lines:
        with contextlib.suppress(ValueError):  # a kill cut it short
            found.append(json.loads(line))
    return found


def last_step(folder: Path) -> int:
    """Step of a run folder's last validation; a run that comes to its end ends with one."""
    return max((row["step"] for row in rows(folder) if row["kind"] == "validation"), default=0)


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON file that was written whole; {} where there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")


def _reason(said: str) -> str:
    """Return the last line that is not empty of what a process said."""
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1].removeprefix("separator: ") if lines else "it said nothing"
