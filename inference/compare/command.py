"""`separator compare SPEC.yaml [key=value …]`: does pretraining help separation, and which does?

Every arm of the comparison is trained with every seed on the same budget: pretraining (or none),
a short fine-tuning on stems, and the SDR of the validation songs. What is done is never done
again and what was interrupted goes on, so the same command is given until all is there. The report
(`separator.inference.compare.report` describes it) is written after each run: `report.md` and
`report.json` in the run folder, and at the end `report.png`.

    RUN/ARM/seedN/pretrain/   a run folder of `separator pretrain`; arms that pretrain alike share
                              one, in the folder of the arm that began it
    RUN/ARM/seedN/train/      a run folder of `separator train`, and scores.json
"""

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType

from separator.config import parse
from separator.data.roots import parse_root
from separator.errors import SeparatorError, UsageError, one_line
from separator.inference.compare import report as reports
from separator.inference.compare.config import CompareConfig
from separator.inference.compare.runs import Children, Run, settings

log = logging.getLogger(__name__)


def main(argv: list[str]) -> int:
    """Run what is missing and report; the exit status is 1 when a run failed."""
    config = parse(CompareConfig, argv, "compare")
    _check_roots(config)
    runs = plan(config)
    for run in runs:
        run.check()
    failures = _run_all(config, runs)
    report = reports.write(config, runs, failures)
    reports.draw(report, Path(config.run) / "report.png")
    sys.stdout.write(reports.markdown(report))
    return 1 if failures else 0


def plan(config: CompareConfig) -> list[Run]:
    """List the runs of a comparison, all arms with the first seed, then with the next.

    Raises:
        UsageError: an arm's preset is not there, or its trainer does not know one of its keys.
    """
    stages = {}
    for name, arm in config.arms.items():
        needed = ["pretrain", "train"] if arm.pretrain else ["train"]
        words = {stage: config.words(name, stage) for stage in needed}
        try:
            stages[name] = {s: (words[s], settings(s, words[s])) for s in needed}
        except SeparatorError as error:
            raise UsageError(f"arms.{name}: {error}") from error
    folder = Path(config.run)
    runs: dict[tuple[str, int], Run] = {}
    for seed in config.seeds:
        for name in _in_order(config):
            owners = [folder / alike / f"seed{seed}" for alike in _same_pretraining(name, stages)]
            begun = [owner for owner in owners if (owner / "pretrain").exists()]
            pretrained = (begun or owners)[0] / "pretrain"
            place = folder / name / f"seed{seed}"
            runs[name, seed] = Run(name, seed, place, stages[name], pretrained)
    for (name, seed), run in runs.items():
        for other in config.needed_by(name):
            wanted = config.seeds_needed(name, other, seed)
            run.needs[other] = [runs[other, needed] for needed in wanted]
    return list(runs.values())


def _in_order(config: CompareConfig) -> list[str]:
    """Return the arms, each behind those whose models it uses."""
    return sorted(config.arms, key=lambda name: len(config.needed_by(name)))


def _same_pretraining(name: str, stages: dict[str, dict]) -> list[str]:
    """Return the arms that pretrain as this one does: the pretraining of one serves all."""
    settings_of = {other: stages[other].get("pretrain", ([], None))[1] for other in stages}
    return [other for other in stages if settings_of[other] == settings_of[name]]


def _check_roots(config: CompareConfig) -> None:
    """Refuse to begin without music."""
    pretrained = [name for name, arm in config.arms.items() if arm.pretrain]
    if pretrained and not config.library:
        raise UsageError(
            f"library: is empty, but {', '.join(pretrained)} pretrain; give library=[FOLDER]"
        )
    if not config.stems:
        raise UsageError("stems: is empty; give stems=[FOLDER] with songs that have stems")
    lists = {f"songs.{name}": roots for name, roots in config.songs.items()}
    for key, roots in {"library": config.library, "stems": config.stems, **lists}.items():
        for root in roots:
            if not Path(parse_root(root)[0]).expanduser().is_dir():
                raise UsageError(f"{key}: {root}: no such folder; give a folder with music")


def _run_all(config: CompareConfig, runs: list[Run]) -> list[dict]:
    """Do the runs that are missing; return those that failed, and why."""
    todo = [run for run in runs if run.scores() is None]
    todo.sort(key=_shares_pretraining)
    log.info(
        "%s: %s, %d to do",
        config.run,
        "1 run" if len(runs) == 1 else f"{len(runs)} runs",
        len(todo),
    )
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
                reports.write(config, runs, failures)
        except BaseException:  # Ctrl-C, but a full disk too: no child outlives its parent
            log.info("stopping after this step (again: at once); the same command goes on")
            children.stop(signal.SIGTERM)
            try:
                pool.shutdown(cancel_futures=True)  # waits for what runs
            except KeyboardInterrupt:
                children.stop(signal.SIGKILL)
            raise
    return failures


def _shares_pretraining(run: Run) -> bool:
    """Whether a run would wait for another arm's pretraining: such runs come last."""
    return "pretrain" in run.stages and run.run_folder("pretrain") != run.folder / "pretrain"


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
        raise KeyboardInterrupt(number)  # the command's exit status is that of the signal

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, interrupt)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
