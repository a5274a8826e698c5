"""Objectives of pretraining, and losses beside the masked error: interfaces and registry.

Each file of `primary` and `auxiliary` adds one.
"""

import dataclasses
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar

from separator.pretrain import schedules
from separator.pretrain.lazy_torch import Generator, Tensor, nn, torch
from separator.pretrain.schedules import Schedule
from separator.ranges import CheckedConfig

if TYPE_CHECKING:
    from separator.data.tracks import Track
    from separator.engine.checkpoint import Discriminator
    from separator.engine.task import Task
    from separator.models.base import Outputs
    from separator.pretrain.batch import Example
    from separator.pretrain.config import PretrainConfig
    from separator.pretrain.crops import Crops
    from separator.pretrain.masking.grid import PatchGrid


@dataclass(frozen=True)
class ObjectiveConfig(CheckedConfig):
    """Base class of an objective's settings.

    Attributes:
        weight: weight of the objective; 0 leaves it out.
    """

    weight: Schedule = 0.0

    def in_frames(self, frames_per_second: float) -> Self:
        """Return these settings with lengths in frames where they are given in seconds.

        Args:
            frames_per_second: sample rate divided by the hop.
        """
        return self


class Prediction(NamedTuple):
    """The model's answer to a corrupted batch.

    Attributes:
        outputs: the backbone's mask and features.
        restored: (b c f n) the corrupted spectrogram under the mask.
        step: finished steps of the run.
        generator: on the CPU; all randomness comes from it.
        rate: factor of the learning rate of networks with an optimizer of their own.
    """

    outputs: "Outputs"
    restored: Tensor
    step: int
    generator: Generator
    rate: float = 1.0


Config = TypeVar("Config")


class _Registered(Generic[Config]):
    """What both kinds of objectives have.

    Subclasses do not import torch at the top of their file: `--help` reads their `Config`.

    Args:
        config: the objective's own settings.
        run: settings of the whole run.

    Attributes:
        key: name in the configuration and of what is logged.
        Config: dataclass of the settings, taken from the base's brackets where it is not given; the
            first line of its docstring is the help. None in the brackets: it has no settings.
    """

    key: ClassVar[str]
    Config: ClassVar[type | None] = None

    def __init__(self, config: Config, run: "PretrainConfig") -> None:
        self.config, self.run = config, run

    def check(self) -> None:
        """Refuse settings of the run under which the objective cannot work.

        Raises:
            SeparatorError: names the key and the fix.
        """


class PrimaryObjective(_Registered[Config]):
    """What a run learns; the key `objective` names one.

    Attributes:
        separates: it trains as `separator train` does, with the losses of `loss`.
        any_stems: `model.stems` may be any set of stems; otherwise pretraining has one mask.
        task_class: the class that trains, as "module:Class": it imports torch, so not in the same
            file. An objective may make its task itself instead, in `task`.
    """

    separates: ClassVar[bool] = False
    any_stems: ClassVar[bool] = False
    task_class: ClassVar[str]

    def task(self) -> "Task":
        """Return the task that the training loop is to do."""
        return pkgutil.resolve_name(self.task_class)(self.run)


Loss = tuple[Tensor | None, dict[str, Tensor]]


class Objective(_Registered[Config], ABC):
    """A loss beside the masked error, with its head.

    Attributes:
        meeting_point: the tensor in which its gradient and the masked error's are compared, a field
            of the backbone's outputs or "restored".
        needs_masked: it is about patches filled with 1.0, so there must be some.
        predicts_errors: it predicts the error of each patch, which some strategies need.
        validated: its loss is computed for validation songs too.
    """

    meeting_point: ClassVar[Literal["balance_point", "pre_head", "restored"]] = "balance_point"
    needs_masked: ClassVar[bool] = False
    predicts_errors: ClassVar[bool] = False
    validated: ClassVar[bool] = True

    def check_tracks(self, tracks: "Sequence[Track]") -> None:
        """Refuse training songs with which the objective cannot work.

        Args:
            tracks: the songs.

        Raises:
            SeparatorError: says what is wrong with them, and the fix.
        """

    def crops(self) -> "Crops | None":
        """Return another way to make crops of songs, if the objective needs one."""
        return None

    def prepare(self, device: "torch.device") -> None:
        """Load fixed networks, before the model is made and the seed is set.

        Args:
            device: of this process.
        """

    def create_discriminator(self, device: "torch.device") -> "Discriminator | None":
        """Return the network that the objective trains itself; called after the model is made.

        Args:
            device: of this process.
        """
        return None

    def head(self, backbone: "nn.Module") -> "nn.Module | None":
        """Return the layers that are trained for this objective alone, or None.

        Args:
            backbone: gives the sizes of its features.
        """
        return None

    def start(self, head: "nn.Module | None", waves: Iterable[Tensor]) -> None:
        """Fit the head's constants when a run starts.

        Args:
            head: of the model, as `head` made it.
            waves: batches (b c t) of training songs.
        """

    @abstractmethod
    def loss(self, head: "nn.Module", batch: "Example", prediction: Prediction) -> Loss:
        """Compute the loss of a micro-batch.

        Args:
            head: of the trained or the averaged model; None where the objective has none.
            batch: crops, targets and where they are masked.
            prediction: the model's answer.

        Returns:
            The loss without its weight, None where it does not count yet; and numbers to log.
        """

    def weight(self, step: int) -> float:
        """Return the weight of the loss at a step.

        Args:
            step: finished steps of the run.
        """
        return schedules.value(self.config.weight, step)

    def predict_errors(self, head: "nn.Module", bottleneck: Tensor, grid: "PatchGrid") -> Tensor:
        """Predict the error of each patch.

        Args:
            head: the objective's layers.
            bottleneck: (b n d) features of the uncorrupted spectrogram.
            grid: the patches.

        Returns:
            (b k m), higher for patches that are harder to restore.
        """
        raise NotImplementedError

    def observe(self, head: "nn.Module | None", batch: "Example") -> Tensor | None:
        """Return data of a validation batch, one row for each crop, for `summarise`; or None.

        Args:
            head: of the averaged model.
            batch: crops, targets and where they are masked.
        """
        return None

    def summarise(self, observed: Tensor, songs: Tensor) -> dict[str, float]:
        """Return numbers to log, computed from all validation crops together.

        Args:
            observed: the rows of `observe`, on the CPU.
            songs: (b) the song of each crop.
        """
        return {}


def meeting_point(objective: Objective[Any], prediction: Prediction) -> Tensor:
    """Return the tensor at which an objective's gradient and the masked error's are compared.

    Args:
        objective: names the tensor as its `meeting_point`.
        prediction: has the tensor.
    """
    if objective.meeting_point == "restored":
        return prediction.restored
    return getattr(prediction.outputs, objective.meeting_point)


OBJECTIVES: dict[str, type[Objective]] = {}  # beside the masked error
PRIMARY: dict[str, type[PrimaryObjective]] = {}

Kind = TypeVar("Kind", bound=type[Objective] | type[PrimaryObjective])


def register(objective: Kind) -> Kind:
    """Add a class to the objectives of its kind under its `key`; for use as a decorator.

    Args:
        objective: the class.

    Returns:
        The same class.
    """
    registry = PRIMARY if issubclass(objective, PrimaryObjective) else OBJECTIVES
    registry[objective.key] = objective
    if objective.Config is None:  # class Loudness(Objective[LoudnessConfig])
        (objective.Config,) = objective.__orig_bases__[0].__args__
    return objective


def load() -> None:
    """Import every file of `auxiliary` and `primary`, which registers the objectives."""
    from separator.pretrain.objectives import auxiliary, primary

    for package in (auxiliary, primary):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def all_settings() -> type:
    """Make a dataclass with a field for the settings of each objective."""
    load()
    rows, lines = [], ["Settings of all objectives.", "", "Attributes:"]
    for key, objective in (OBJECTIVES | PRIMARY).items():
        if not dataclasses.is_dataclass(objective.Config):
            continue
        rows.append((key, objective.Config, dataclasses.field(default_factory=objective.Config)))
        summary = (objective.Config.__doc__ or "").split("\n")[0]
        lines.append(f"    {key}: {summary[:1].lower()}{summary[1:]}")
    made = dataclasses.make_dataclass("ObjectiveSettings", rows, frozen=True, kw_only=True)
    made.__doc__ = "\n".join(lines)
    return made
