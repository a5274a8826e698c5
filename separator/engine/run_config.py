"""Settings of the training loop: length, intervals, folder, device and optimizer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from separator.engine.cadence import Every
from separator.errors import SeparatorError
from separator.ranges import MAX_SEED, MAX_STEPS, RATES, CheckedConfig, Within

Steps = Annotated[int, Within(f"[1, {MAX_STEPS}]")]
StepsOrNone = Annotated[int, Within(f"[0, {MAX_STEPS}]")]
Fraction = Annotated[float, Within("[0, 1)")]


@dataclass(frozen=True)
class OptimConfig(CheckedConfig):
    """The optimizer and its schedule.

    Attributes:
        kind: adamw; or muon for matrices, and adamw for everything else.
        lr: the highest learning rate, reached at the end of the warm-up.
        betas: decay of the running mean and the running square of the gradient.
        weight_decay: decay of weights with two or more dimensions; biases and norms have none.
        warmup_steps: steps over which the learning rate rises linearly from 0.
        schedule: how the learning rate falls from the warm-up's end to the last step.
        final_lr: learning rate at the last step, as a fraction of `lr`.
        power: exponent of the polynomial schedule (1 is a straight line).
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: Annotated[float, Within("(0, 100]")] = 2e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    weight_decay: Annotated[float, Within("[0, 100]")] = 0.01
    warmup_steps: StepsOrNone = 100
    schedule: Literal["cosine", "polynomial", "constant"] = "cosine"
    final_lr: Annotated[float, Within("[0, 1]")] = 0.01
    power: Annotated[float, Within("(0, 100]")] = 1.0


@dataclass(frozen=True)
class LogConfig:
    """Logs of a run in addition to TensorBoard and metrics.jsonl.

    Attributes:
        wandb: log to Weights & Biases too; with the variable WANDB_MODE=offline that log stays on
            this disk.
        project: name of the project in Weights & Biases.
    """

    wandb: bool = False
    project: str = "separator"


@dataclass(frozen=True)
class RunConfig(CheckedConfig):
    """Settings of the training loop; the configurations of both trainers extend it.

    Attributes:
        run: folder of checkpoints, logs and the trained model; a run whose folder exists is
            resumed.
        steps: length of the run in optimizer steps.
        seed: seed of all random choices.
        checkpoint_every: steps between checkpoints (0: only at the end).
        validate_every: steps between validations (0: only at the end); auto validates after steps
            1, 10 and 100, and then every 500.
        log_every: steps between rows of the log.
        keep_best: number of checkpoints of the best validations that are kept beside the last one.
        accumulate: micro-batches whose gradients are averaged into one step.
        clip: largest norm of the gradient (0: not clipped).
        device: where to train; auto takes CUDA or a Mac's GPU where there is one, else the CPU.
        precision: arithmetic of the model; auto is bf16 autocast on a GPU that supports it, else
            fp32.
        ema_decay: decay of the running average of the weights that is validated and exported.
        nonfinite_limit: number of steps in a row with a NaN or infinite loss or gradient after
            which the run goes back to its last checkpoint.
        compile: compile the model with torch.compile.
        max_minutes: stop after this many minutes in this process, with everything saved (0: no
            limit).
        optim: optimizer and learning-rate schedule.
        log: where the run is logged.
        rate: sample rate of the model in hertz.
    """

    run: str = "runs/run"
    steps: Steps = 10_000
    seed: Annotated[int, Within(f"[0, {MAX_SEED}]")] = 0
    checkpoint_every: StepsOrNone = 500
    validate_every: Every = "auto"
    log_every: Steps = 20
    keep_best: StepsOrNone = 2
    accumulate: Annotated[int, Within("[1, 65536]")] = 1
    clip: Annotated[float, Within("[0, 1000000]")] = 1.0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    ema_decay: Fraction = 0.999
    nonfinite_limit: Steps = 10
    compile: bool = False
    max_minutes: Annotated[float, Within("[0, 10000000]")] = 0.0
    optim: OptimConfig = field(default_factory=OptimConfig)
    log: LogConfig = field(default_factory=LogConfig)
    rate: Annotated[int, RATES] = 44100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_run_folder(self.run)


def check_run_folder(run: str) -> None:
    """Refuse a name that cannot be a run's folder.

    Args:
        run: as the user gave it.

    Raises:
        SeparatorError: it is empty or a file.
    """
    if not run.strip("\"'") or Path(run).is_file():
        raise SeparatorError(f"run: {run!r} is no folder; name one for all results")
