"""The logs of a run: TensorBoard, W&B, metrics.jsonl and the progress bar."""

import contextlib
import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from separator.atomic import write_text
from separator.engine.append_file import AppendFile
from separator.engine.event_file import EventFile
from separator.engine.means import ALWAYS
from separator.engine.progress import Progress
from separator.engine.run_config import RunConfig
from separator.engine.task import Validation
from separator.engine.wandb import WandB
from separator.errors import printable
from separator.logs import event

logger = logging.getLogger(__name__)


class Log(contextlib.AbstractContextManager):
    """Writes one run's history; only rank 0 has one.

    `metrics.jsonl` holds one JSON object for each logged step (`"kind": "train"`) and for each
    validation (`"kind": "validation"`); its `step` counts finished steps. Rows later than the
    step a run resumes from are dropped, so the file tells what led to the present weights. null
    stands for what is not finite or did not occur.

    TensorBoard and W&B get the same numbers under names that put the quality first and keep the
    losses of the stages apart, pictures as `spectrogram/...` and sounds as `audio/...`:
    TensorBoard does not show a name that two kinds of data share. Other lines of a quality chart
    are runs of their own there, in folders inside the run folder.

    A disk that is full or fails does not end the training: what it refuses is written later, or
    reported as lost at the end.

    Args:
        folder: the run folder.
        step: finished steps of the run so far.
        config: of the run.
        stage: what is trained: "pretrain" or "train".

    Raises:
        SeparatorError: Weights & Biases is asked for and cannot be had, see `WandB`.
    """

    def __init__(self, folder: Path, step: int, config: RunConfig, stage: str = "train") -> None:
        self._wandb = WandB(folder, config) if config.log.wandb else None  # first: it may refuse
        self._folder, self._start, self._stage = folder, step, stage
        path = folder / "metrics.jsonl"
        truncate(path, step)
        self._rows = AppendFile(path)
        self._board = EventFile(folder, step)
        self._lines: dict[str, EventFile] = {}
        self._shown: dict[str, bytes] = {}  # digests by tag
        self._failing = False
        self._progress = Progress(step, config.steps, config.validate_every)
        self._restart_clock()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._progress.close()
        for file in self._files():
            if lost := file.close():
                logger.warning(
                    "%s: %d records of steps %d to %d could not be written and are lost; the "
                    "checkpoints are not affected",
                    printable(str(file.path)), len(lost), lost[0], lost[-1],
                )  # fmt: skip
        if self._wandb:
            self._wandb.close(failed=kind is not None)

    def advance(self, seconds: float) -> None:
        """Count one finished step that heard so many seconds of audio (all ranks together)."""
        self._heard += seconds
        self._steps += 1
        self._stepped = time.perf_counter()
        self._progress.advance()

    def train(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write the scalars of a step, with the throughput since the last one written."""
        seconds = max(time.perf_counter() - self._since, 1e-9)
        speed = self._heard / seconds
        scalars = {**scalars, "speed/audio_seconds_per_second": speed}
        scalars["speed/steps_per_second"] = self._steps / seconds
        row = self._write_row(step, "train", scalars)
        event(logger, f"step {step}: loss {scalars['loss']:.4g}", **row)
        self._add_scalars(scalars, step)
        self._progress.show(scalars["loss"], speed)
        self._heard, self._steps, self._since = 0.0, 0, time.perf_counter()
        self._check_disk()

    def preview(self, result: Validation) -> None:
        """Show the result's pictures and sounds, of a new run's data, as step 0."""
        self._add_media(result, 0)
        self._restart_clock()
        self._check_disk()

    def validation(self, step: int, result: Validation, best: bool = False) -> None:
        """Write and say what a validation found; its time does not count in the throughput.

        Args:
            step: finished steps of the run.
            result: of the validation.
            best: whether no earlier one had a higher score.
        """
        seconds = {"speed/validation_seconds": time.perf_counter() - self._stepped}
        scalars = {**result.scalars, "score": result.score, **seconds}
        row = self._write_row(step, "validation", scalars)
        self._add_scalars(result.scalars, step)
        self._add_quality(result, step)
        self._add_media(result, step)
        logger.info("step %d: %s", step, result.text(best), extra={"fields": row})
        self._restart_clock()
        self._check_disk()

    def sync(self) -> None:
        """Force the rows to the disk, before a checkpoint that resumes after them."""
        self._rows.sync()
        self._check_disk()

    def _boards(self) -> list[EventFile | WandB]:
        return [self._board, self._wandb] if self._wandb else [self._board]

    def _files(self) -> list[AppendFile]:
        return [self._rows, self._board.file, *(line.file for line in self._lines.values())]

    def _write_row(self, step: int, kind: str, scalars: Mapping[str, float]) -> dict[str, Any]:
        finite = {name: v if math.isfinite(v) else None for name, v in scalars.items()}
        row = {"step": step, "kind": kind, **finite}
        self._rows.write(f"{json.dumps(row)}\n".encode(), step)
        return row

    def _add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Draw numbers; a gap where something did not occur."""
        there = {n: v for n, v in scalars.items() if n in ALWAYS or not math.isnan(v)}
        drawn = {self._chart(name): value for name, value in there.items()}
        for board in self._boards():
            board.add_scalars(drawn, step)

    def _add_quality(self, result: Validation, step: int) -> None:
        """Draw the charts that come first: the model's line, and others for comparison."""
        for chart, lines in result.quality.items():
            for line, value in lines.items():
                if math.isnan(value):
                    continue
                tag = f"1_quality/{chart}"
                self._line(line).add_scalars({tag: value}, step)
                if self._wandb:
                    suffix = "" if line == "model" else f"_of_{line}"
                    self._wandb.add_scalars({f"{tag}{suffix}": value}, step)

    def _add_media(self, result: Validation, step: int) -> None:
        """Show pictures and sounds; those that are as before, such as the mixture's, only once."""
        for name, image in result.images.items():
            tag, pixels = f"spectrogram/{printable(name)}", image.detach().float().cpu().clamp(0, 1)
            if self._is_new(tag, pixels):
                for board in self._boards():
                    board.add_image(tag, pixels, step)
        for name, (wave, rate) in result.audio.items():
            tag, samples = f"audio/{printable(name)}", wave.detach().float().cpu().clamp(-1, 1)
            if self._is_new(tag, samples):
                for board in self._boards():
                    board.add_audio(tag, samples, step, rate)

    def _is_new(self, tag: str, values: Tensor) -> bool:
        """Whether something else, or nothing, was shown under a tag before."""
        digest = hashlib.blake2b(values.numpy().tobytes()).digest()
        before, self._shown[tag] = self._shown.get(tag), digest
        return digest != before

    def _line(self, name: str) -> EventFile:
        if name == "model":
            return self._board
        if name not in self._lines:
            self._lines[name] = EventFile(self._folder / name, self._start)
        return self._lines[name]

    def _chart(self, name: str) -> str:
        """Name the chart of a scalar: losses of the stages are on scales of their own."""
        if name == "loss":
            return f"2_loss_{self._stage}/total"
        area, _, rest = name.partition("/")
        return f"2_loss_{self._stage}/{rest}" if area == "loss" else name

    def _check_disk(self) -> None:
        """Say once when a log cannot be written, and when all can be again."""
        failing = [file for file in self._files() if file.error]
        if failing and not self._failing:
            logger.warning(
                "%s: cannot be written (%s); training goes on, and the log waits in memory until "
                "it can",
                printable(str(failing[0].path)), failing[0].error,
            )  # fmt: skip
        elif self._failing and not failing:
            logger.info("%s: the log is written again", printable(str(self._folder)))
        self._failing = bool(failing)

    def _restart_clock(self) -> None:
        self._heard, self._steps, self._since = 0.0, 0, time.perf_counter()
        self._stepped = self._since
        self._progress.pause()


def truncate(path: Path, step: int) -> None:
    """Drop rows later than a step from the metrics file at a path, and a last incomplete one."""
    if not path.exists():
        return
    text = path.read_text("utf-8", errors="replace")
    kept = "".join(f"{row}\n" for row in text.splitlines() if _step_of(row) <= step)
    if kept != text:  # else a full disk need not refuse it
        write_text(path, kept)


def _step_of(row: str) -> float:
    """Return the step of a row; infinity for one that a kill left incomplete."""
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
