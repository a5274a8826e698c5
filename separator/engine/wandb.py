"""Weights & Biases as one of the writers of `Log`: the calls are those of `EventFile`."""

import contextlib
import logging
import secrets
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from separator.atomic import write_text
from separator.config import to_dict
from separator.engine.run_config import RunConfig
from separator.errors import SeparatorError, one_line

logger = logging.getLogger(__name__)


class WandB:
    """A run at Weights & Biases, which a resumed run continues.

    Its files are in `wandb/` of the run folder, which with WANDB_MODE=offline is all there is
    until `wandb sync`. It listens neither to the console nor to git nor to the code.

    Args:
        folder: the run folder; its `wandb.id` names the run.
        config: of the run, to be shown with it.

    Raises:
        SeparatorError: wandb is not installed, nobody is logged in, or the server does not answer.
    """

    def __init__(self, folder: Path, config: RunConfig) -> None:
        try:
            from wandb import Error, Settings, init
        except ImportError as error:
            raise SeparatorError(
                "log.wandb: wandb is not installed; run `pip install wandb`, or set log.wandb=false"
            ) from error

        before = {*folder.glob("wandb*")}
        number = _id(folder / "wandb.id")
        hooks = sys.excepthook, sys.exit
        try:
            self._run: Any = init(
                dir=str(folder),
                id=number,
                resume="allow",
                project=config.log.project,
                name=folder.resolve().name,
                config=to_dict(config),
                settings=Settings(console="off", silent=True, disable_git=True, save_code=False),
            )
        except (Error, ValueError) as error:  # the latter from a WANDB_... variable
            for path in {*folder.glob("wandb*")} - before:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
            raise SeparatorError(
                f"log.wandb: {' '.join(str(error).split()).rstrip('.')}; `wandb login` first, or "
                "keep the run on this disk with WANDB_MODE=offline"
            ) from error
        finally:
            sys.excepthook, sys.exit = hooks  # it puts its own there, which print an error twice
        logger.info("Weights & Biases: run %s of project %s", number, config.log.project)

    def close(self, failed: bool) -> None:
        """Finish the run; `failed` is its state in W&B."""
        if self._run:
            with contextlib.suppress(OSError):  # as in _write
                self._run.finish(exit_code=int(failed))

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write values, numbers by name, of a step."""
        self._write(dict(values), step)

    def add_image(self, name: str, image: Tensor, step: int) -> None:
        """Write an image (3 h w) in [0, 1] of a step under a name."""
        from wandb import Image

        self._write({name: Image((255 * image).byte().permute(1, 2, 0).numpy())}, step)

    def add_audio(self, name: str, wave: Tensor, step: int, rate: int) -> None:
        """Write a wave (c t) in [-1, 1], at a rate in hertz, of a step under a name."""
        from wandb import Audio

        self._write({name: Audio(wave.T.numpy(), sample_rate=rate)}, step)

    def _write(self, values: dict[str, Any], step: int) -> None:
        # a run killed after its last checkpoint repeats steps, which W&B has and would warn about
        if not self._run or step < self._run.starting_step:
            return
        try:
            self._run.log(values, step=step)
        except OSError as error:  # its process is gone, or its folder's disk is full
            logger.warning("log.wandb: %s; training goes on without it", one_line(error))
            self._run = None


def _id(path: Path) -> str:
    """Return the id kept in a file, which is made first if need be."""
    if not path.exists():
        write_text(path, secrets.token_hex(8))
    return path.read_text("utf-8").strip()
