"""One run of a comparison: its stages, each in a child process, and whether they are done."""

import json
import logging
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from separator.atomic import write_text
from separator.cli.compare.children import Children
from separator.cli.compare.config import PLACEHOLDER
from separator.cli.run_history import read_rows
from separator.engine.stop import OUT_OF_TIME
from separator.engine.task import check_config
from separator.errors import SeparatorError
from separator.stems import ACCOMPANIMENT, TWO_STEMS, StemSet

log = logging.getLogger(__name__)

SCORES, RECORD, OUTPUT = "scores.json", "stage.json", "output.log"
MIN_MINUTES = 1e-3  # 0 would be without limit


@dataclass(frozen=True, eq=False)
class Run:
    """An arm with a seed.

    Attributes:
        arm: its name.
        seed: of both stages.
        folder: where its stages have their run folders.
        stages: for "train", and for "pretrain" if the arm has it: the words of the trainer's
            command, and the settings that these change.
        pretrained: run folder of the pretraining, which arms with the same one share; by default
            the run's own.
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

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that its model is scored in, the accompaniment first."""
        names = self.stages["train"][1].get("model", {}).get("stems", TWO_STEMS.names)
        return tuple(sorted(StemSet(tuple(names)).scored, key=lambda stem: stem != ACCOMPANIMENT))

    def run_folder(self, stage: str) -> Path:
        """Return the run folder of a stage, "pretrain" or "train"."""
        return self.pretrained if stage == "pretrain" and self.pretrained else self.folder / stage

    def made_by(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage and of those before it."""
        names = list(self.stages)
        return {name: self.stages[name][1] for name in names[: names.index(stage) + 1]}

    def check(self) -> None:
        """Refuse a folder in which other settings were used.

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
        """Do the missing stages, and score the model.

        Args:
            children: runs the processes.

        Returns:
            The result in a few words.

        Raises:
            SeparatorError: a stage failed.
            Stopped: the comparison was stopped.
        """
        self.train(children)
        folder = self.folder / "train"
        children.run(["separator.cli.compare.scores", str(folder)], folder / OUTPUT)
        scores = self.scores()
        if scores is None:
            raise SeparatorError(f"{folder / SCORES}: was not written; see {folder / OUTPUT}")
        stem = self.stems[0]
        mean = scores["summary"]["ours"][stem]["sdr_global_mean"]
        return f"{stem} SDR {mean:.2f} dB" if mean is not None else "no song was scored"

    def train(self, children: Children) -> None:
        """Do the missing stages, after those of the runs whose models are used.

        Args:
            children: runs the processes.
        """
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
        """Start or resume a stage, and record whether it was completed."""
        folder, (words, _) = self.run_folder(stage), self.stages[stage]
        folder.mkdir(parents=True, exist_ok=True)
        before = self.record(stage).get("seconds", 0.0)
        note = {"made_by": self.made_by(stage), "seconds": before, "finished": False}
        _write(folder / RECORD, note)
        words = [self._with_models(word) for word in words]
        words += [f"seed={self.seed}", f"run={folder}"]
        if "pretrain" in self.stages and stage == "train":
            words.append(f"pretrained={self.run_folder('pretrain') / 'model.safetensors'}")
        minutes = float(self.stages[stage][1].get("max_minutes", 0.0))
        remaining = max(MIN_MINUTES, minutes - before / 60) if minutes else 0
        start = time.monotonic()
        try:
            words += [f"max_minutes={remaining}"]
            children.run(["separator", stage, *words], folder / OUTPUT, ends=(0, OUT_OF_TIME))
        finally:
            seconds = time.monotonic() - start
            _write(folder / RECORD, note | {"seconds": before + seconds})
        asked = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))["steps"]
        if last_step(folder) < asked and not (minutes and seconds >= 60 * remaining):
            children.check()
            raise SeparatorError(f"{folder}: was stopped early; the same command goes on")
        _write(folder / RECORD, note | {"seconds": before + seconds, "finished": True})

    def _with_models(self, word: str) -> str:
        """Replace the names of other arms by their model files."""

        def fill(match: re.Match) -> str:
            runs = self.needs.get(match[1], [])
            chosen = [run for run in runs if match[2] or run.seed == self.seed]
            models = [json.dumps(str(run.folder / "train" / "last.pt")) for run in chosen]
            return ",".join(models) or match[0]  # last.pt: as it is scored

        return PLACEHOLDER.sub(fill, word)


def last_step(folder: Path) -> int:
    """Return the step of a run folder's last validation; a complete run ends with one."""
    steps = (row["step"] for row in read_rows(folder) if row["kind"] == "validation")
    return max(steps, default=0)


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON file; {} where there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")
