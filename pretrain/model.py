"""The backbone and the heads of the objectives."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from separator.models.base import Outputs
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.objectives import Objective


class Pretrainer(nn.Module):
    """The backbone, which is kept after pretraining, and the heads, which are not.

    Args:
        backbone: a model of `separator.models`.
        objectives: the objectives that may have heads.
    """

    def __init__(self, backbone: nn.Module, objectives: Sequence[Objective]) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, nn.ModuleDict()
        for objective in objectives:
            head = objective.head(backbone)
            if head is not None:
                self.heads[objective.key] = head

    def head(self, objective: Objective) -> nn.Module | None:
        """Return an objective's head, if it has one."""
        return dict(self.heads.items()).get(objective.key)

    def forward(self, x: Tensor, masked: Tensor | None = None) -> Outputs:
        """Return the backbone's mask and features; see `FrameTransformer.features`.

        Args:
            x: (b c f n) corrupted magnitudes in [0, 1].
            masked: boolean, the patches that are filled with 1.0, where the model is told.
        """
        return self.backbone.features(x, masked)


@torch.no_grad()
def predict_errors(
    model: Pretrainer, objectives: Sequence[Objective], target: Tensor, grid: PatchGrid
) -> Tensor:
    """Predict the error of each patch from the whole spectrogram.

    Args:
        model: has the head of the predicting objective.
        objectives: one of them predicts errors.
        target: (b c f n) the uncorrupted magnitudes.
        grid: the patches.

    Returns:
        (b k m), higher for patches that are harder to restore.
    """
    objective = next(one for one in objectives if one.predicts_errors)
    features = model.backbone.features(target).bottleneck
    return objective.predict_errors(model.head(objective), features, grid)
