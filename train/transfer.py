"""Starting from a pretrained file: what it must share with the run, and what is kept of it."""

import logging
from typing import Any

from torch import Tensor, nn

from separator.config import to_dict
from separator.dsp.config import STFTConfig
from separator.engine.model_file import load_model
from separator.errors import SeparatorError
from separator.models.config import Sizes
from separator.models.frame_transformer import FrameTransformer
from separator.models.growth import GROWABLE, check_growth, grow
from separator.models.registry import ARCHITECTURES, architecture_of
from separator.models.weights import load_weights
from separator.ranges import SettingError
from separator.stems import StemSet
from separator.train.config import TrainConfig

log = logging.getLogger(__name__)

# settings of a model that its weights below the head do not depend on
HEAD_SETTINGS = (".dropout", ".recompute", ".stems")


def load_pretrained(model: nn.Module, config: TrainConfig) -> None:
    """Copy the weights of `config.pretrained` into the model; the head starts anew if asked to.

    Raises:
        SeparatorError: the file is damaged or of another architecture; names the key that differs.
    """
    pretrained, stft, description = load_model(config.pretrained)
    expected = _settings(pretrained.config, stft, description["rate"])
    settings = _settings(config.sizes, config.stft, config.rate)
    free = HEAD_SETTINGS + (tuple(f"model.{name}" for name in GROWABLE) if config.grow else ())
    for key, value in settings.items():
        if expected.get(key) != value and not key.endswith(free):
            raise SeparatorError(
                f"{key}: {config.pretrained} was made with {expected.get(key)}, this run says "
                f"{value}; give the same files and settings as in pretraining, such as tiny.yaml"
            )
    initial, state = model.state_dict(), pretrained.state_dict()
    if config.grow:
        state = _grown(pretrained, model)
    stems = StemSet(pretrained.config.stems)
    other = stems.estimated != config.stems.estimated
    reset = other or config.head == "reset"
    fresh = {n: initial[n] for n in initial if reset and n.startswith(model.HEAD)}
    load_weights(model, state | fresh, config.pretrained)
    if fresh:
        model.reset_head()
    if other:
        log.info(
            "%s: separates into %s; the last layer starts anew for %s",
            config.pretrained, ", ".join(stems.names), ", ".join(config.stems.names),
        )  # fmt: skip
    kept = len(state) - len(fresh)
    log.info("%s: %d of %d tensors taken over", config.pretrained, kept, len(state))


def _grown(pretrained: nn.Module, model: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a pretrained network in a larger one.

    Raises:
        SettingError: the model's sizes are none that the network can grow to.
    """
    if not isinstance(pretrained, FrameTransformer):
        raise SeparatorError("grow: only architecture=frame_transformer can grow; leave it out")
    try:
        check_growth(pretrained.config, model.config)
    except SettingError as error:
        raise error.within("model.") from error
    return grow(pretrained, model)


def _settings(sizes: Sizes, stft: STFTConfig, rate: int) -> dict[str, Any]:
    """Return by full name the settings that must be equal for weights to mean the same."""
    architecture = architecture_of(sizes)
    groups = {ARCHITECTURES[architecture].key: to_dict(sizes), "stft": to_dict(stft)}
    named = {f"{group}.{key}": value for group in groups for key, value in groups[group].items()}
    return {"architecture": architecture, "rate": rate, **named}


def freeze_body(model: nn.Module, groups: list[dict], steps: int) -> list[dict]:
    """Split parameter groups so that all weights but the last layer's stay fixed at first.

    The gradients of a new head distort pretrained features (Kumar et al. 2022, arXiv 2202.10054).

    Args:
        model: its `HEAD` names the last layer.
        groups: parameter groups of the model.
        steps: length of the frozen start.

    Returns:
        Groups of the last layer, and groups of the other weights with `from_step`.
    """
    head = {id(weight) for name, weight in model.named_parameters() if name.startswith(model.HEAD)}
    split = []
    for group in groups:
        last = [weight for weight in group["params"] if id(weight) in head]
        body = [weight for weight in group["params"] if id(weight) not in head]
        split.append({**group, "params": body, "from_step": steps})
        split.append({**group, "params": last})
    return [group for group in split if group["params"]]


def layer_rates(model: nn.Module, decay: float) -> list[dict]:
    """Make parameter groups whose learning rate falls from the output to the input of the model.

    The stages in order are the input, each encoder with its blocks, each decoder with its blocks,
    and the head (ULMFiT's discriminative rates, Howard and Ruder 2018, arXiv 1801.06146).

    Args:
        model: gives its stages.
        decay: factor of the rate from one stage to the one before it.

    Returns:
        One group for each stage, with its `lr_scale`; that of the head is 1.
    """
    stages = model.stages()
    scales = [decay ** (len(stages) - 1 - depth) for depth in range(len(stages))]
    return [{"params": p, "lr_scale": scale} for p, scale in zip(stages, scales, strict=True)]
