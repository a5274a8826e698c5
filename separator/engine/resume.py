"""Conditions for resuming a run: as many samples in a step, the same songs.

Micro-batches are numbered over all ranks, so the samples of a step and their order depend on how
many there are, not on who computes them.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from separator.config import to_dict
from separator.engine import distributed, optim
from separator.engine.run_config import RunConfig
from separator.engine.task import check_config, flat
from separator.errors import SeparatorError, printable

logger = logging.getLogger(__name__)

BATCH_KEYS = {"accumulate", "data.batch"}  # may change as long as a step keeps its samples


def check_resumable(
    payload: Mapping[str, Any], config: RunConfig, songs: Tensor, path: Path
) -> int:
    """Compare a checkpoint's run with this command's, and say what changes.

    Args:
        payload: of the checkpoint.
        config: of this command.
        songs: (n) what tells its songs, see `Task.songs`.
        path: of the checkpoint.

    Returns:
        The micro-batches in a step on each rank with which a step has as many samples as before.

    Raises:
        SeparatorError: the training would not be the same; names the key and the fix.
    """
    _check_songs(payload, config, songs, path)
    check_config(payload["config"], to_dict(config), path, {*BATCH_KEYS, "data.roots"})
    _tell_schedule(payload, config)
    return _accumulation(payload, config, path)


def _check_songs(payload: Mapping[str, Any], config: RunConfig, songs: Tensor, path: Path) -> None:
    """Let `data.roots` change where the songs stay the same."""
    before = flat(payload["config"]).get("data.roots")
    now = flat(to_dict(config)).get("data.roots")
    saved_songs = payload["songs"]
    if torch.equal(saved_songs, songs):
        return
    if before != now:
        raise SeparatorError(
            f"data.roots: {path} was made with {before} and is {_difference(saved_songs, songs)}; "
            "give the same songs, or use another run="
        )
    logger.warning(
        "data.roots: the songs are not those of %s (%d were, %d are); the run goes on with those "
        "that are there",
        *(printable(str(path)), len(saved_songs), len(songs)),
    )


def _difference(saved: Tensor, songs: Tensor) -> str:
    """Say how two lists of songs differ."""
    same = torch.isin(saved, songs)
    if bool(same.all()) and len(saved) == len(songs):
        return "of the same songs in another order: give the folders in theirs"
    return f"of {len(saved)} songs, of which {int(same.sum())} are in this command's {len(songs)}"


def _tell_schedule(payload: Mapping[str, Any], config: RunConfig) -> None:
    """Say what another number of steps does to the learning rate."""
    before, step = payload["config"].get("steps"), payload["step"]
    if before in (None, config.steps) or step >= config.steps:
        return
    rates = [optim.schedule(config.optim, step, steps) for steps in (before, config.steps)]
    was, now = (config.optim.lr * rate for rate in rates)
    effect = f"the next step's learning rate is {now:.3g}, not {was:.3g}"
    if was == now:
        effect = "the learning rate of the next step stays the same"
    logger.info(
        "steps: %d instead of %d: from step %d on the %s schedule is that of %d steps; %s",
        *(config.steps, before, step, config.optim.schedule, config.steps, effect),
    )


def _accumulation(payload: Mapping[str, Any], config: RunConfig, path: Path) -> int:
    """Micro-batches in a step on each rank, such that a step keeps its samples."""
    old, new, ranks = flat(payload["config"]), flat(to_dict(config)), distributed.world()
    was, batch = old.get("data.batch", 1), new.get("data.batch", 1)
    samples = was * payload["micro_batches"]
    count, rest = divmod(samples, batch * ranks)
    if rest:
        raise SeparatorError(f"{_has(path, samples)}, {_division(samples, batch, ranks)}")
    if config.accumulate != count and (config.accumulate != old["accumulate"] or batch != was):
        raise SeparatorError(
            f"{_has(path, samples)}; give accumulate={count} for data.batch={batch} on {ranks} "
            "rank(s), or use another run="
        )
    if config.accumulate != count:
        logger.info("%d rank(s): accumulate=%d keeps the samples of a step", ranks, count)
    if batch != was:
        logger.info("data.batch: %d instead of %d: as many samples in a step, others", batch, was)
    return count


def _has(path: Path, samples: int) -> str:
    return f"accumulate: a step of {path} has {samples} samples"


def _division(samples: int, batch: int, ranks: int) -> str:
    """Say with which numbers so many samples can be divided."""
    if samples % ranks:
        return f"which {ranks} ranks cannot share equally; start a number that divides {samples}"
    share = samples // ranks
    fits = max(size for size in range(1, batch + 1) if share % size == 0)
    return (
        f"which data.batch={batch} does not divide on {ranks} rank(s); give data.batch={fits} "
        f"accumulate={share // fits}"
    )
