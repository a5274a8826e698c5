"""`separator pretrain CONFIG.yaml [MORE.yaml] key=value …`."""

from separator.config import parse


def main(argv: list[str]) -> int:
    """Pretrain until done or stopped; the same command goes on where it ended."""
    from separator.engine.command import run
    from separator.pretrain.config import PretrainConfig
    from separator.pretrain.step import PretrainTask

    config = parse(PretrainConfig, argv, "pretrain")
    return run(lambda: PretrainTask(config), config)
