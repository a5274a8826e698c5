"""`separator demo`: pretrain, fine-tune, separate and evaluate, on songs that it composes."""

from dataclasses import dataclass, field

from separator.config import parse


@dataclass(frozen=True)
class DemoConfig:
    """Run the whole chain in minutes: pretrain, fine-tune, separate, evaluate.

    Attributes:
        data: folder of music to use. By default songs are composed, and one real song that comes
            with the package stempeg is added. Songs without stems are used in pretraining only;
            fine-tuning and evaluation then use composed ones. musdb7s downloads MUSDB18's free
            excerpts of 7 seconds.
        run: folder for all results.
        pretrain_steps: steps of pretraining.
        train_steps: steps of fine-tuning.
    """

    data: str = field(default="", metadata={"metavar": "FOLDER"})
    run: str = field(default="runs/demo", metadata={"metavar": "FOLDER"})
    pretrain_steps: int = 100
    train_steps: int = 250


def main(argv: list[str]) -> int:
    """Run the chain; the exit status is that of the first step that fails."""
    config = parse(DemoConfig, argv, "demo", positional="")

    from separator.cli.demo_chain import run_chain  # torch, which `--help` does not need

    return run_chain(config)
