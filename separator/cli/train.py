"""`separator train CONFIG.yaml [MORE.yaml] key=value …`."""

from separator.config import parse
from separator.train.config import TrainConfig


def main(argv: list[str]) -> int:
    """Train until done or stopped; the same command resumes the run."""
    config = parse(TrainConfig, argv, "train")

    from separator.cli.training import run  # torch, for which `--help` does not wait
    from separator.train.step import TrainTask

    return run(lambda: TrainTask(config), config)
