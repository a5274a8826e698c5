"""`separator train CONFIG.yaml [MORE.yaml] key=value …`."""

from pathlib import Path

from separator.config import parse


def main(argv: list[str]) -> int:
    """Train until done or stopped; the same command goes on where it ended."""
    from separator.engine.command import run
    from separator.train.config import TrainConfig
    from separator.train.step import TrainTask

    config = parse(TrainConfig, argv, "train")
    last = Path(config.run) / "last.pt"
    return run(lambda: TrainTask(config, resumes=last.exists()), config)
