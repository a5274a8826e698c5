"""Where a run can be watched: TensorBoard, W&B, metrics.jsonl and the progress bar."""

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from separator.atomic import write_text
from separator.engine.task import RunConfig, Validation
from separator.engine.wandb import WandB

logger = logging.getLogger(__name__)


class Log:
    """Writes one run's history; only rank 0 has one.

    `metrics.jsonl` holds one JSON object for each logged step (`"kind": "train"`) and for each
    validation (`"kind": "validation"`); its `step` counts finished steps. Rows later than the
    step a run resumes from are dropped, so the file tells what led to the present weights.

    Args:
        folder: the run folder.
        step: finished steps of the run so far.
        config: of the run.

    Raises:
        SeparatorError: Weights & Biases is asked for and cannot be had, see `WandB`.
    """

    def __init__(self, folder: Path, step: int, config: RunConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from tqdm import tqdm

        extra = [WandB(folder, config)] if config.log.wandb else []  # first: it may refuse
        path = folder / "metrics.jsonl"
        truncate(path, step)
        self._rows = path.open("a", encoding="utf-8")
        board = SummaryWriter(folder / "tensorboard", purge_step=step + 1)
        self._writers = [board, *extra]
        self._bar = tqdm(
            initial=step,
            total=config.steps,
            unit="step",
            mininterval=1,
            dynamic_ncols=True,
            disable=None,
        )
        self._restart_clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
        self._rows.close()
        for writer in self._writers:
            writer.__exit__(kind, error, traceback)

    def advance(self, seconds: float) -> None:
        """Count one finished step that heard so many seconds of audio (all ranks together)."""
        self._heard += seconds
        self._bar.update()

    def train(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of a step, with the throughput since the last one written."""
        speed = self._heard / max(time.perf_counter() - self._since, 1e-9)
        scalars = {**scalars, "speed/audio_seconds_per_second": speed}
        self._write(step, "train", scalars)
        self._bar.set_postfix_str(f"loss {scalars['loss']:.4g}, {speed:.0f} s/s", refresh=False)
        self._restart_clock()

    def validation(self, step: int, result: Validation) -> None:
        """Write what a validation found; its time does not count in the throughput."""
        self._write(step, "validation", {**result.scalars, "score": result.score})
        for name, image in result.images.items():
            pixels = image.detach().float().cpu().clamp(0, 1)
            for writer in self._writers:
                writer.add_image(name, pixels, step)
        for name, (wave, rate) in result.audio.items():
            mono = wave.detach().float().cpu().mean(0, keepdim=True)  # all that TensorBoard takes
            for writer in self._writers:
                writer.add_audio(name, mono.clamp(-1, 1), step, rate)
        logger.info("step %d: validation score %.4g", step, result.score)
        self._restart_clock()

    def sync(self) -> None:
        """Force the rows to the disk, before a checkpoint that resumes after them."""
        os.fsync(self._rows.fileno())

    def _write(self, step: int, kind: str, scalars: Mapping[str, float]) -> None:
        finite = {name: v if math.isfinite(v) else None for name, v in scalars.items()}
        self._rows.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
        self._rows.flush()
        for writer in self._writers:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)

    def _restart_clock(self) -> None:
        self._heard, self._since = 0.0, time.perf_counter()


def truncate(path: Path, step: int) -> None:
    """Drop the rows of a metrics file later than a step, and a last one that was cut short."""
    if not path.exists():
        return
    kept = [row for row in path.read_text("utf-8").splitlines() if _step_of(row) <= step]
    write_text(path, "".join(f"{row}\n" for row in kept))


def _step_of(row: str) -> float:
    """Return the step of a row; infinity for one that a kill left incomplete."""
    try:
        return json.loads(row)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
