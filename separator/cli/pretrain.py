"""`separator pretrain CONFIG.yaml [MORE.yaml] key=value …`."""

from separator.config import parse
from separator.pretrain.config import PretrainConfig


def main(argv: list[str]) -> int:
    """Pretrain until done or stopped; the same command goes on where it ended."""
    config = parse(PretrainConfig, argv, "pretrain")

    from separator.cli.training import run  # torch, for which `--help` does not wait
    from separator.pretrain.mixit import MixitTask
    from separator.pretrain.remix import RemixTask
    from separator.pretrain.task import PretrainTask
    from separator.pretrain.teacher import TeacherTask

    tasks = {
        "restore": PretrainTask,
        "remix": RemixTask,
        "teacher": TeacherTask,
        "mixit": MixitTask,
    }
    return run(lambda: tasks[config.objective](config), config)
