"""Starting from a pretrained file: what it must share with the run, and what is kept of it."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn

from separator.config import to_dict
from separator.engine.model_file import load_model
from separator.errors import SeparatorError
from separator.models import MODELS, NEEDED, describe
from separator.models.description import config_of
from separator.models.weights import load_weights
from separator.train.config import TrainConfig

log = logging.getLogger(__name__)

HEAD = ("head.", "mask_bias")  # what a model's `reset_head` starts anew
FREE = (".dropout", ".recompute")  # settings of a model that its weights do not depend on


def load_pretrained(model: nn.Module, config: TrainConfig) -> None:
    """Copy the weights of `config.pretrained` into the model; the head starts anew if asked to.

    Raises:
        SeparatorError: the file is damaged or of another architecture; names the key that differs.
    """
    pretrained, _, description = load_model(config.pretrained)
    kind = description["architecture"]
    sizes = config_of(MODELS[kind][1], description, "model", NEEDED[kind])
    there = _sizes({**description, "model": to_dict(sizes)})  # older files lack newer settings
    here = _sizes(describe(config.sizes, config.stft, config.rate))
    for key, value in here.items():
        if there.get(key) != value and not key.endswith(FREE):
            raise SeparatorError(
                f"{key}: {config.pretrained} was made with {there.get(key)}, this run says "
                f"{value}; give the same configuration as in pretraining"
            )
    state = pretrained.state_dict()
    load_weights(model, state, config.pretrained)
    if config.head == "reset":
        model.reset_head()
    fresh = {name for name in state if config.head == "reset" and name.startswith(HEAD)}
    kept = len(state) - len(fresh)
    log.info("%s: %d of %d tensors taken over", config.pretrained, kept, len(state))


def _sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return by full name what must be alike for weights to mean the same."""
    architecture = values["architecture"]
    name = "patch" if architecture == "patch_transformer" else "model"
    parts = {name: values["model"], "stft": values["stft"]}
    named = {f"{part}.{key}": value for part in parts for key, value in parts[part].items()}
    return {"architecture": architecture, "rate": values.get("rate"), **named}


def freeze_body(model: nn.Module, groups: list[dict], steps: int) -> list[dict]:
    """Split groups so that all but the last layer learns from step `steps` on only.

    The gradients of a new head distort pretrained features (Kumar et al. 2022, arXiv 2202.10054).

    Args:
        model: its last layer is named as `HEAD` says.
        groups: parameter groups of the model.
        steps: length of the frozen start.
    """
    head = {id(weight) for name, weight in model.named_parameters() if name.startswith(HEAD)}
    split = []
    for group in groups:
        last = [weight for weight in group["params"] if id(weight) in head]
        body = [weight for weight in group["params"] if id(weight) not in head]
        split.append({**group, "params": body, "from_step": steps})
        split.append({**group, "params": last})
    return [group for group in split if group["params"]]


def layer_rates(model: nn.Module, decay: float) -> list[dict]:
    """Parameter groups whose rate falls by `decay` from each stage to the one below it.

    The stages in order are the input, each encoder with its blocks, each decoder with its, the head
    (ULMFiT's discriminative rates, Howard and Ruder 2018, arXiv 1801.06146).
    """
    stages = model.stages()
    return [
        {"params": parameters, "lr_scale": decay ** (len(stages) - 1 - depth)}
        for depth, parameters in enumerate(stages)
    ]
