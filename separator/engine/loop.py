"""The one training loop: step, log, validate, save. Both trainers hand their task to `fit`."""

import contextlib
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
from separator.engine import checkpoint, distributed, ema, model_file, optim
from separator.engine.cadence import validation_due
from separator.engine.checkpoint import State
from separator.engine.log import Log
from separator.engine.means import StepMeans, mean_over_ranks
from separator.engine.task import RunConfig, Task, check_config
from separator.errors import SeparatorError

logger = logging.getLogger(__name__)


def fit(task: Task, config: RunConfig) -> Path:
    """Train until `config.steps`, or until asked to stop; resume when the run folder has a run.

    Returns:
        The run folder, with `last.pt`, `best-STEP.pt`, `model.safetensors`, `metrics.jsonl`,
        `config.yaml` and the TensorBoard files.

    Raises:
        SeparatorError: the folder holds a run of another configuration or a damaged checkpoint,
            the disk is full, or training keeps diverging.
    """
    device = distributed.own_device(config.device)
    with contextlib.ExitStack() as stack:
        stack.enter_context(distributed.session(device))
        run = _Run(task, config, device)
        run.resume()
        if run.state.step >= config.steps:
            logger.info("%s is complete; a larger steps= continues it", run.folder)
            return run.folder
        if run.main:
            stage = task.describe().get("stage", "train")
            run.log = stack.enter_context(Log(run.folder, run.state.step, config, stage))
        try:
            run.train(stack.enter_context(distributed.Stop(config.max_minutes, device)))
        except SeparatorError:
            if run.main and not run.state.step:  # nothing is lost, and no corrected command refused
                run.last.unlink(missing_ok=True)
            raise
    return run.folder


class _Run:
    """A task on its way through the loop."""

    def __init__(self, task: Task, config: RunConfig, device: torch.device) -> None:
        self.task, self.config, self.device = task, config, device
        self.folder, self.main = Path(config.run), distributed.rank() == 0
        self.last = self.folder / "last.pt"
        model = task.model.to(device).train()
        self.replica = distributed.wrap(model, device)  # first: it gives all ranks the same weights
        self.caller = torch.compile(self.replica) if config.compile else self.replica
        self.state = State(
            model,
            ema.averaged(model, config.ema_decay),
            optim.build(task.parameter_groups(), config.optim),
            task.companion,
        )
        task.attach(self.state.ema.module)
        groups = self.state.optimizer.param_groups
        self.weights = [weight for group in groups for weight in group["params"]]
        self.generator = torch.Generator()
        self.bf16 = distributed.bf16(config.precision, device)
        self.streak = 0  # steps skipped in a row
        self.saved = self.validated = -1  # the steps of the latest of each
        self.log: Log | None = None
        self.git = checkpoint.git_id()

    def step(self, batches: Iterator[Any]) -> dict[str, Tensor]:
        """Make one optimizer step; one without finite loss and gradient changes no weight."""
        config, state, means, seconds = self.config, self.state, StepMeans(), 0.0
        optim.set_rate(state.optimizer, config.optim, state.step, config.steps)
        for micro in range(config.accumulate):
            batch = next(batches)
            seconds += self.task.seconds(batch)
            self._seed(micro)
            with distributed.synchronised(self.replica, micro == config.accumulate - 1):
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                    scalars = self.task.step(self.caller, batch, state.step, self.generator)
                (scalars["loss"] / config.accumulate).backward()
            means.add(scalars)
        values = means.values()
        norm = nn.utils.clip_grad_norm_(self.weights, config.clip or math.inf)
        # the one wait for the device in a step; NaN and Inf survive the sum and the mean over ranks
        if distributed.mean(values["loss"] + norm).isfinite():
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

    def train(self, stop: distributed.Stop) -> None:
        """Step until the end of the run or a request to stop, then leave everything saved."""
        config, state = self.config, self.state
        batches = self.task.batches(state.step * config.accumulate)
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
            elif _due(state.step, config.checkpoint_every):
                self._save()
        self._finish(interrupted=stop.signalled)

    def resume(self) -> None:
        """Continue from `last.pt`, or start a run folder."""
        if self.last.exists():
            payload = checkpoint.load(self.last)
            check_config(payload["config"], to_dict(self.config), self.last)
            self.state.load(payload, self.last)
            self.saved = self.state.step
            self.validated = self.state.scores[-1][0] if self.state.scores else -1
            logger.info("%s: resuming after step %d", self.folder, self.state.step)
        distributed.barrier()  # no rank writes before all have looked
        if not self.main:
            return
        remove_leftovers(self.folder, shared=False)
        text = yaml.safe_dump(to_dict(self.config), sort_keys=False)
        write_text(self.folder / "config.yaml", text)
        if self.saved < 0:
            self._write()  # a full disk shows now, and there is something to roll back to

    def _seed(self, micro: int) -> None:
        """Make all randomness of a micro-batch a function of (seed, step, micro-batch, rank)."""
        place = (self.config.seed, self.state.step, micro, distributed.rank())
        torch.manual_seed(_hash("global", *place))  # dropout
        self.generator.manual_seed(_hash("task", *place))

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
        if self.main:
            with torch.no_grad():
                result = self.task.validate(state.ema.module, state.step)
            score = float(result.score) if math.isfinite(result.score) else -math.inf
            self.log.validation(state.step, result, best=score > state.best)
            if score > state.best:
                self._export(score)
            state.scores.append((state.step, score))
        self.validated = state.step
        self._save()

    def _save(self) -> None:
        if self.main:
            self.log.sync()
            self._write()
        self.saved = self.state.step
        distributed.barrier()

    def _write(self) -> None:
        about = {"config": to_dict(self.config), "description": self._describe()}
        checkpoint.save_run(self.folder, self.state.payload() | about, self.config.keep_best)

    def _export(self, score: float | None) -> None:
        path = self.folder / "model.safetensors"
        state, description = self.state.ema.module.state_dict(), self._describe(score)
        model_file.export(path, *model_file.usable(state, description))

    def _describe(self, score: float | None = None) -> dict[str, Any]:
        trained = {"step": self.state.step, "score": score, "git": self.git}
        return {**self.task.describe(), "trained": trained}

    def _roll_back(self) -> None:
        """Go back to the last good weights, once; the run goes on with the data that follow."""
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


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _hash(*place: int | str) -> int:
    """Seed from a place in the run: hashed, so that neighbouring seeds and steps do not collide."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
