"""Do the missing runs of a comparison, several at a time."""

import logging
import signal
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from types import FrameType

from separator.cli.compare import comparison_report
from separator.cli.compare.children import Children
from separator.cli.compare.config import CompareConfig
from separator.cli.compare.runs import Run
from separator.errors import one_line
from separator.signals import STOP_SIGNALS, handling

log = logging.getLogger(__name__)


def run_all(config: CompareConfig, runs: list[Run]) -> list[dict]:
    """Do the runs that have no scores yet, and write the report after each.

    Args:
        config: the comparison.
        runs: all of its runs.

    Returns:
        {"arm", "seed", "error"} of each run that failed.
    """
    todo = [run for run in runs if run.scores() is None]
    todo.sort(key=lambda run: (_waits(run), _shares_pretraining(run)))
    numbers = [n for n in STOP_SIGNALS if signal.getsignal(n) == signal.SIG_DFL]
    log.info("%s: %d of %d runs to do", config.run, len(todo), len(runs))
    children, failures = Children(config.jobs), []
    with handling(_interrupt, numbers), ThreadPoolExecutor(config.jobs) as pool:
        futures = {pool.submit(run.finish, children): run for run in todo}
        try:
            for count, future in enumerate(as_completed(futures), 1):
                run = futures[future]
                outcome, failed = _outcome(future)
                if failed:
                    failures.append({"arm": run.arm, "seed": run.seed, "error": outcome})
                result = f"failed: {outcome}" if failed else outcome
                log.info("%d of %d: %s: %s", count, len(todo), run, result)
                comparison_report.write(config, runs, failures)
        except BaseException:  # Ctrl-C, but a full disk too: no child outlives its parent
            log.info("stopping after this step (again: at once); the same command goes on")
            children.stop(signal.SIGTERM)
            try:
                pool.shutdown(cancel_futures=True)  # waits for what runs
            except KeyboardInterrupt:
                children.stop(signal.SIGKILL)
            raise
    return failures


def _waits(run: Run) -> int:
    """Return after how many others, one after another, a run can begin."""
    needed = [other for others in run.needs.values() for other in others if not other.scores()]
    return max((1 + _waits(other) for other in needed), default=0)


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


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM and SIGHUP as Ctrl-C, so that no child process is left behind."""
    raise KeyboardInterrupt(number)  # the command's exit status is that of the signal
