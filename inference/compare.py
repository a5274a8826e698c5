"""`separator compare SPEC.yaml [key=value …]`: does pretraining help separation, and which does?

Every arm of the comparison is trained with every seed on the same budget: pretraining (or none),
a short fine-tuning on stems, and the SDR of the validation songs. What is done is never done
again and what was interrupted goes on, so the same command is given until all is there. The report
(`separator.inference.compare_report` describes it) is written after each run: `report.md` and
`report.json` in the run folder, and at the end `report.png`.

    RUN/ARM/seedN/pretrain/   a run folder of `separator pretrain`
    RUN/ARM/seedN/train/      a run folder of `separator train`, and scores.json
"""

import contextlib
import json
import logging
import re
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from separator.config import parse
from separator.data.sources import parse_root
from separator.errors import SeparatorError, one_line
from separator.inference import compare_report
from separator.inference.compare_runs import Children, Run, settings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arm:
    """One of the trainings that are compared.

    Attributes:
        pretrain: preset files and key=value of `separator pretrain`; empty starts from scratch.
        train: files and key=value for this arm's fine-tuning alone, such as `steps=900`.
    """

    pretrain: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CompareConfig:
    """Pretrain, fine-tune and score several recipes on the same budget with several seeds.

    A budget is steps, minutes, or both, whichever ends first. The learning rate falls with the
    steps: with minutes, set the steps to about what fits in them.

    Attributes:
        run: folder of everything that is made; the same folder again goes on.
        library: songs to pretrain on, as `data.roots` of `separator pretrain`.
        stems: songs with stems to fine-tune on and to score, as `data.roots` of `separator train`.
        arms: for each name, `pretrain` and `train`: lists of files and key=value.
        baseline: the arm that the others are compared with.
        seeds: each arm is trained with each of them.
        common: files and key=value laid over both stages of all arms.
        pretrain: further ones for all pretraining; an arm's own key=value win.
        train: the preset of all fine-tuning, and key=value.
        pretrain_steps: steps of each pretraining.
        train_steps: steps of each fine-tuning.
        pretrain_minutes: most minutes of each pretraining (0: no limit).
        train_minutes: most minutes of each fine-tuning (0: no limit).
        jobs: runs at a time.
    """

    run: str = "runs/compare"
    library: list[str] = field(default_factory=list)
    stems: list[str] = field(default_factory=list)
    arms: dict[str, Arm] = field(default_factory=dict)
    baseline: str = "none"
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    common: list[str] = field(default_factory=list)
    pretrain: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=lambda: ["train/finetune.yaml"])
    pretrain_steps: int = 1000
    train_steps: int = 300
    pretrain_minutes: float = 0.0
    train_minutes: float = 0.0
    jobs: int = 1

    def __post_init__(self) -> None:
        if not self.arms:
            raise SeparatorError("arms: there are none; give a file such as compare/masks.yaml")
        for name in self.arms:
            if not re.fullmatch(r"\w[\w.+-]*", name):
                raise SeparatorError(f"arms: {name!r} is no name for a folder; use letters, -, _")
        if self.baseline not in self.arms:
            raise SeparatorError(
                f"baseline: {self.baseline!r} is not one of {', '.join(self.arms)}"
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise SeparatorError(f"seeds: {self.seeds}; give at least one, and each only once")
        for key in ("pretrain_steps", "train_steps", "jobs"):
            if getattr(self, key) < 1:
                raise SeparatorError(f"{key}: {getattr(self, key)} is not at least 1")
        for key in ("pretrain_minutes", "train_minutes"):
            if getattr(self, key) < 0:
                raise SeparatorError(f"{key}: {getattr(self, key)} is negative; 0 is no limit")
        for word in [*self.common, *self.pretrain, *self.train, *self._own_words()]:
            if word.startswith("-"):
                raise SeparatorError(f"{word}: give a YAML file or key=value, without dashes")

    def _own_words(self) -> list[str]:
        return [word for arm in self.arms.values() for word in (*arm.pretrain, *arm.train)]

    def words(self, name: str, stage: str) -> list[str]:
        """Return what the trainer of an arm's stage is told, but for seed and folders.

        Files come first (the stage's, the arm's, the common ones), then key=value (the common
        ones, the stage's, the arm's); what comes later wins.
        """
        stage_words, own = getattr(self, stage), getattr(self.arms[name], stage)
        files = [word for word in (*stage_words, *own, *self.common) if "=" not in word]
        keys = [word for word in (*self.common, *stage_words, *own) if "=" in word]
        steps, minutes = getattr(self, f"{stage}_steps"), getattr(self, f"{stage}_minutes")
        roots = self.library if stage == "pretrain" else self.stems
        songs = f"data.roots={json.dumps(roots)}"  # any path survives that
        return [*files, f"steps={steps}", f"max_minutes={minutes}", *keys, songs]


def main(argv: list[str]) -> int:
    """Run what is missing and report; the exit status is 1 when a run failed."""
    config = parse(CompareConfig, argv, "compare")
    _check_roots(config)
    runs = plan(config)
    for run in runs:
        run.check()
    failures = _run_all(config, runs)
    report = compare_report.write(config, runs, failures)
    compare_report.draw(report, Path(config.run) / "report.png")
    sys.stdout.write(compare_report.markdown(report))
    return 1 if failures else 0


def plan(config: CompareConfig) -> list[Run]:
    """List the runs of a comparison, all arms with the first seed, then with the next.

    Raises:
        SeparatorError: an arm's preset is not there, or its trainer does not know one of its keys.
    """
    stages = {}
    for name, arm in config.arms.items():
        needed = ["pretrain", "train"] if arm.pretrain else ["train"]
        words = {stage: config.words(name, stage) for stage in needed}
        try:
            stages[name] = {s: (words[s], settings(s, words[s])) for s in needed}
        except SeparatorError as error:
            raise SeparatorError(f"arms.{name}: {error}") from error
    folder = Path(config.run)
    return [
        Run(name, seed, folder / name / f"seed{seed}", stages[name])
        for seed in config.seeds
        for name in config.arms
    ]


def _check_roots(config: CompareConfig) -> None:
    """Refuse to begin without music."""
    pretrained = [name for name, arm in config.arms.items() if arm.pretrain]
    if pretrained and not config.library:
        raise SeparatorError(
            f"library: is empty, but {', '.join(pretrained)} pretrain; give library=[FOLDER]"
        )
    if not config.stems:
        raise SeparatorError("stems: is empty; give stems=[FOLDER] with songs that have stems")
    for key in ("library", "stems"):
        for root in getattr(config, key):
            if not Path(parse_root(root)[0]).expanduser().is_dir():
                raise SeparatorError(f"{key}: {root}: no such folder; give a folder with music")


def _run_all(config: CompareConfig, runs: list[Run]) -> list[dict]:
    """Do the runs that are missing; return those that failed, and why."""
    todo = [run for run in runs if run.scores() is None]
    log.info("%s: %d runs, %d of them to do", config.run, len(runs), len(todo))
    children, failures = Children(config.jobs), []
    with _signals(), ThreadPoolExecutor(config.jobs) as pool:
        futures = {pool.submit(run.finish, children): run for run in todo}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                run = futures[future]
                outcome, failed = _outcome(future)
                if failed:
                    failures.append({"arm": run.arm, "seed": run.seed, "error": outcome})
                told = f"failed: {outcome}" if failed else outcome
                log.info("%d of %d: %s: %s", count, len(todo), run, told)
                compare_report.write(config, runs, failures)
        except BaseException:  # Ctrl-C, but a full disk too: no child outlives its parent
            log.info("stopping after this step (again: at once); the same command goes on")
            children.stop(signal.SIGTERM)
            try:
                pool.shutdown(cancel_futures=True)  # waits for what runs
            except KeyboardInterrupt:
                children.stop(signal.SIGKILL)
            raise
    return failures


def _outcome(future: Future[str]) -> tuple[str, bool]:
    """Return how a run ended in a line, and whether it failed: the other runs are still wanted."""
    try:
        return future.result(), False
    except Exception as error:
        log.debug("a run failed", exc_info=True)
        return one_line(error), True


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP as Ctrl-C, so that no run is left behind without its parent."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, interrupt)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
