"""`separator pretrain CONFIG.yaml [MORE.yaml] key=value …`."""

from separator.config import parse
from separator.pretrain.config import PretrainConfig


def main(argv: list[str]) -> int:
    """Pretrain until done or stopped; the same command resumes the run."""
    config = parse(PretrainConfig, argv, "pretrain")

    from separator.cli.training import run  # torch, for which `--help` does not wait

    return run(lambda: config.primary.task(), config)
