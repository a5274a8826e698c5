"""The one training loop: step, log, validate, save. Both trainers hand their task to `fit`."""

import contextlib
import functools
import hashlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from separator.atomic import remove_leftovers, write_text
from separator.config import to_dict
from separator.engine import checkpoint, distributed, ema, faults, model_file, optim
from separator.engine.cadence import due, validation_due
from separator.engine.checkpoint import State
from separator.engine.lock import RunLock
from separator.engine.log import Log
from separator.engine.means import StepMeans, mean_over_ranks
from separator.engine.preview import preview
from separator.engine.resume import check_resumable
from separator.engine.run_config import RunConfig
from separator.engine.stop import Stop
from separator.engine.task import Task
from separator.errors import SeparatorError

logger = logging.getLogger(__name__)
BATCH_NORMS = nn.modules.batchnorm._NormBase


def fit(task: Task, config: RunConfig) -> int:
    """Train a task until `config.steps` or until asked to stop; resume a run that is in the folder.

    The run folder gets `last.pt`, `best-STEP.pt`, `model.safetensors`, `metrics.jsonl`,
    `config.yaml` and the TensorBoard files.

    Returns:
        The exit status: 0 when the run is complete, 3 when its time was over, 128 and the signal's
        number when one stopped it; everything is saved.

    Raises:
        SeparatorError: the folder is in use, holds a run of another configuration or a damaged
            checkpoint, the disk or the memory is full, another rank ended, or training keeps
            diverging.
    """
    device = distributed.own_device(config.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.session(device))
        lock = RunLock(Path(config.run))
        distributed.together(lambda: distributed.rank() or stack.enter_context(lock))
        run = _Run(task, config, device, lock)
        distributed.together(run.look)
        try:
            run.begin()
            if run.state.step >= config.steps:
                logger.info("%s is complete; a larger steps= continues it", run.folder)
                return 0
            if run.main:
                stage = task.describe().get("stage", "train")
                run.log = stack.enter_context(Log(run.folder, run.state.step, config, stage))
            stop = stack.enter_context(Stop(config.max_minutes, device))
            run.train(stop)
        except Exception as error:
            run.rescue()
            saved = run.saved if run.saved > 0 else 0
            problem = faults.explained(error, config, device, run.accumulate, saved)
            if problem is None:
                raise
            raise problem from error
        done = run.state.step >= config.steps
        return stop.status if stop.asked() and not (done and not stop.signalled) else 0


class _Run:
    """A task on its way through the loop."""

    def __init__(self, task: Task, config: RunConfig, device: torch.device, lock: RunLock) -> None:
        self.task, self.config, self.device, self.lock = task, config, device, lock
        self.folder, self.main = Path(config.run), distributed.rank() == 0
        self.last = self.folder / "last.pt"
        model = task.model.to(device).train()
        self.replica = distributed.wrap(model, device)  # first: it gives all ranks the same weights
        self.caller = torch.compile(self.replica) if config.compile else self.replica
        average = ema.averaged(model, config.ema_decay)
        optimizer = optim.build(task.parameter_groups(), config.optim)
        self.state = State(model, average, optimizer, task.discriminator)
        task.attach(self.state.ema.module)
        groups = self.state.optimizer.param_groups
        self.weights = [weight for group in groups for weight in group["params"]]
        self.generator = torch.Generator()
        self.bf16 = distributed.bf16(config.precision, device)
        self.accumulate = config.accumulate
        self.streak = 0  # steps skipped in a row
        self.saved = self.validated = -1  # the steps of the latest of each
        self.computing = False  # within a step, before it changes weights
        self.log: Log | None = None
        self.git = checkpoint.git_id()

    @property
    def micro_batches(self) -> int:
        """Micro-batches in a step, of all ranks together."""
        return self.accumulate * distributed.world()

    def step(self, batches: Iterator[Any]) -> dict[str, Tensor]:
        """Make one optimizer step; one without finite loss and gradient changes no weight."""
        config, state, means, seconds = self.config, self.state, StepMeans(), 0.0
        optim.set_rate(state.optimizer, config.optim, state.step, config.steps)
        self.computing = True
        for micro in range(self.accumulate):
            batch = next(batches)
            seconds += self.task.seconds(batch)
            self._seed(micro)
            with distributed.synchronised(self.replica, micro == self.accumulate - 1):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    scalars = self.task.step(self.caller, batch, state.step, self.generator)
                (scalars["loss"] / self.accumulate).backward()
            means.add(scalars)
        values = means.values()
        norm = nn.utils.clip_grad_norm_(self.weights, config.clip or math.inf)
        # the one wait for the device in a step; NaN and Inf survive the sum and the mean over ranks
        finite = distributed.mean(values["loss"] + norm).isfinite()
        self.computing = False
        if finite:
            state.optimizer.step()
            state.ema.update_parameters(state.model)
            self.streak = 0
        else:
            state.skipped += 1
            self.streak += 1
        state.optimizer.zero_grad(set_to_none=True)
        state.step += 1
        if self.log:
            self.log.advance(seconds * distributed.world())
        return {**values, "optim/norm": norm}

    def train(self, stop: Stop) -> None:
        """Step until the end of the run or a request to stop, then leave everything saved."""
        config, state = self.config, self.state
        start = state.step * self.micro_batches + distributed.rank()
        batches = self.task.batches(start, distributed.world())
        if self.log and self.saved < 0:  # a new run
            self._seed(0)
            batches = preview(self.task, state.ema.module, batches, self.generator, self.log)
        stopping = False
        while state.step < config.steps and not stopping:
            scalars = self.step(batches)
            if state.step % config.log_every == 0 or state.step in (1, config.steps):
                self._report(scalars)
            stopping = stop.asked() and self.streak == 0
            if self.streak >= config.nonfinite_limit:
                self._roll_back()
            elif self.streak:
                continue  # what is saved and validated is good: the latest step was
            elif validation_due(state.step, config.validate_every):
                self._validate()
            elif due(state.step, config.checkpoint_every):
                self._save()
        self._finish(interrupted=stop.signalled)

    def look(self) -> None:
        """Take the state of `last.pt`, if there is one."""
        if self.last.exists():
            payload = checkpoint.load(self.last)
            self.accumulate = check_resumable(payload, self.config, self.songs, self.last)
            self.state.load(payload, self.last)
            self.saved = self.state.step
            self.validated = self.state.scores[-1][0] if self.state.scores else -1
            logger.info("%s: resuming after step %d", self.folder, self.state.step)
        else:
            checkpoint.check_new(self.folder)
        self.task.accumulate = self.accumulate

    def begin(self) -> None:
        """Write the first files of a new run, or the files that may change when a run resumes."""
        if not self.main:
            return
        remove_leftovers(self.folder, shared=False)
        text = yaml.safe_dump(to_dict(self.config), sort_keys=False)
        write_text(self.folder / "config.yaml", text)
        if self.saved < 0:
            self._write()  # a full disk shows now, and there is something to roll back to

    def rescue(self) -> None:
        """Save the steps done after the last checkpoint, where an error came within a step.

        Not where half of a step would be saved with them: statistics of batch norms, an adversary.
        Without any step there is no checkpoint, see `RunLock`: it would refuse a corrected command.
        """
        if not self.main or not self.lock.held():
            return
        if not self.state.step:
            self.last.unlink(missing_ok=True)
            return
        parts = self.state.model.modules()
        half = self.task.discriminator or any(isinstance(part, BATCH_NORMS) for part in parts)
        if self.computing and not self.streak and not half and self.saved != self.state.step:
            with contextlib.suppress(Exception):  # there is an error already, which says more
                self.log.sync()
                self._write()
                self.saved = self.state.step

    def _seed(self, micro: int) -> None:
        """Make a micro-batch's randomness a function of (seed, step, its place in the step)."""
        place = micro * distributed.world() + distributed.rank()
        key = (self.config.seed, self.state.step, place, 0)
        torch.manual_seed(_hash("global", *key))  # dropout
        self.generator.manual_seed(_hash("task", *key))

    def _report(self, scalars: dict[str, Tensor]) -> None:
        """Log a step's scalars, averaged over micro-batches and ranks."""
        row = mean_over_ranks(scalars)
        if not self.log:
            return
        step, config = self.state.step, self.config
        row["optim/lr"] = config.optim.lr * optim.schedule(config.optim, step - 1, config.steps)
        self.log.train(step, {**row, "guard/skipped": self.state.skipped})

    def _validate(self) -> None:
        """Validate the averaged model, export it if it is the best so far, and save."""
        state = self.state
        with torch.no_grad():
            result = self.task.validate(state.ema.module, state.step)
        if self.main:
            self.lock.check()
            score = float(result.score) if math.isfinite(result.score) else -math.inf
            self.log.validation(state.step, result, best=score > state.best)
            if score > state.best:
                self._export(score)
            state.scores.append((state.step, score))
        self.validated = state.step
        self._save()

    def _save(self) -> None:
        if self.main:
            self.lock.check()
            self.log.sync()
            self._write()
        self.saved = self.state.step
        distributed.barrier()

    def _write(self) -> None:
        about = {"config": to_dict(self.config), "description": self._describe()}
        about |= {"micro_batches": self.micro_batches, "songs": self.songs}
        checkpoint.save_run(self.folder, self.state.payload() | about, self.config.keep_best)

    @functools.cached_property
    def songs(self) -> Tensor:
        """Numbers that tell the songs, see `Task.songs`."""
        return self.task.songs()

    def _export(self, score: float | None) -> None:
        parts = model_file.usable(self.state.ema.module.state_dict(), self._describe(score))
        model_file.export(self.folder / "model.safetensors", *parts)

    def _describe(self, score: float | None = None) -> dict[str, Any]:
        trained = {"step": self.state.step, "score": score, "git": self.git}
        return {**self.task.describe(), "trained": trained}

    def _roll_back(self) -> None:
        """Go back to the last good weights, once; the run continues with the next data."""
        state, row = self.state, f"{self.streak} steps in a row"
        if state.rollbacks:
            raise SeparatorError(
                f"{self.folder}: the loss or gradient was not finite for {row} up to step "
                f"{state.step}, again after a return to an earlier checkpoint; use a lower "
                "optim.lr, more optim.warmup_steps or precision=fp32, with another run="
            )
        logger.warning("step %d: not finite for %s; back to %s", state.step, row, self.last)
        state.load_weights(checkpoint.load(self.last), self.last)
        state.rollbacks += 1
        self.streak = 0

    def _finish(self, interrupted: bool) -> None:
        """Leave a checkpoint and a model file: validated, unless someone waits for the exit."""
        step, done = self.state.step, self.state.step >= self.config.steps
        if (done or not interrupted) and self.validated != step:
            self._validate()
        elif self.saved != step:
            self._save()
        if self.main and self.state.best == -math.inf:  # better an unmeasured model than none
            self._export(None)
        if self.main and not done:
            logger.info("stopped at step %d; the same command resumes", step)


def _hash(*place: int | str) -> int:
    """Seed from a place in the run: hashed, so that neighbouring seeds and steps do not collide."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
