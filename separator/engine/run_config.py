"""What the training loop needs to know: how long, how often, where, and with which optimizer."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from separator.engine.cadence import Every, check_every
from separator.errors import SeparatorError
from separator.ranges import MOST_SEED, MOST_STEPS, RATES, require


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule.

    Attributes:
        kind: adamw; or muon for matrices, and adamw for everything else.
        lr: the highest learning rate, reached at the end of the warm-up.
        betas: decay of the running mean and the running square of the gradient.
        weight_decay: decay of weights of two or more dimensions; biases and norms have none.
        warmup_steps: steps over which the learning rate rises linearly from 0.
        schedule: how the learning rate falls from the warm-up's end to the last step.
        final_lr: learning rate at the last step, as a fraction of `lr`.
        power: exponent of the polynomial schedule (1 is a straight line).
    """

    kind: Literal["adamw", "muon"] = "adamw"
    lr: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    schedule: Literal["cosine", "polynomial", "constant"] = "cosine"
    final_lr: float = 0.01
    power: float = 1.0

    def __post_init__(self) -> None:
        require(self, "(0, 100]", "optim.lr", "optim.power")
        require(self, "[0, 100]", "optim.weight_decay")
        require(self, f"[0, {MOST_STEPS}]", "optim.warmup_steps")
        require(self, "[0, 1)", "optim.betas")
        require(self, "[0, 1]", "optim.final_lr")


@dataclass(frozen=True)
class LogConfig:
    """Where a run is logged beside TensorBoard and metrics.jsonl.

    Attributes:
        wandb: log to Weights & Biases too; WANDB_MODE=offline leaves it on the disk.
        project: name of the project there.
    """

    wandb: bool = False
    project: str = "separator"


@dataclass(frozen=True)
class RunConfig:
    """What the loop itself needs; the configurations of both trainers extend it.

    Attributes:
        run: folder of checkpoints, logs and the trained model; the same folder again resumes.
        steps: length of the run in optimizer steps.
        seed: start of all randomness.
        checkpoint_every: steps between checkpoints (0: only at the end).
        validate_every: steps between validations (0: only at the end); auto validates after steps
            1, 10 and 100, and then every 500.
        log_every: steps between logged rows.
        keep_best: checkpoints of the best validations to keep beside the last one.
        accumulate: micro-batches whose gradients are averaged into one step.
        clip: largest norm of the gradient (0: not clipped).
        device: where to train; auto takes CUDA or a Mac's GPU where there is one, else the CPU.
        precision: arithmetic of the model; auto is bf16 autocast on CUDA that has it, else fp32.
        ema_decay: decay of the running average of the weights that is validated and exported.
        nonfinite_limit: steps in a row without a finite loss and gradient that roll the run back.
        compile: compile the model with torch.compile.
        max_minutes: stop, save and exit cleanly after so many minutes in this process (0: never).
        optim: optimizer and learning-rate schedule.
        log: where the run is logged.
        rate: sample rate of the model in hertz.
    """

    run: str = "runs/run"
    steps: int = 10_000
    seed: int = 0
    checkpoint_every: int = 500
    validate_every: Every = "auto"
    log_every: int = 20
    keep_best: int = 2
    accumulate: int = 1
    clip: float = 1.0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    ema_decay: float = 0.999
    nonfinite_limit: int = 10
    compile: bool = False
    max_minutes: float = 0.0
    optim: OptimConfig = field(default_factory=OptimConfig)
    log: LogConfig = field(default_factory=LogConfig)
    rate: int = 44100

    def __post_init__(self) -> None:
        if not self.run or Path(self.run).is_file():
            raise SeparatorError(
                f"run: {self.run!r} is no folder; name one that is to hold the run"
            )
        require(self, f"[1, {MOST_STEPS}]", "steps", "log_every", "nonfinite_limit")
        require(self, f"[0, {MOST_STEPS}]", "checkpoint_every", "keep_best")
        check_every("validate_every", self.validate_every)
        require(self, "[1, 65536]", "accumulate")
        require(self, "[0, 1000000]", "clip")
        require(self, "[0, 10000000]", "max_minutes")
        require(self, f"[0, {MOST_SEED}]", "seed")
        require(self, RATES, "rate")
        require(self, "[0, 1)", "ema_decay")
