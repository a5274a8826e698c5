"""Hard-patch mining: the model predicts its errors, and is trained where they are large.

Wang et al. 2023, arXiv 2304.05919. The teacher is the run's averaged model; it sees the whole
spectrogram and predicts each patch's error, from which the strategy `hard` chooses.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from einops import rearrange

from separator.pretrain.lazy_torch import F, Tensor, nn, torch
from separator.pretrain.masking.grid import PatchGrid, group_mean, masked_mean
from separator.pretrain.objectives import Loss, Objective, ObjectiveConfig, Prediction, register

if TYPE_CHECKING:
    from separator.pretrain.batch import Example

MAX_RANKED = 256  # patches of a crop that are ranked: pairs are their square


@dataclass(frozen=True)
class HardConfig(ObjectiveConfig):
    """Predict which patches are hard to restore; `mask.strategy=hard` needs it.

    Attributes:
        weight: weight of the ranking loss of the predictor.
    """


@register
class Ranking(Objective[HardConfig]):
    """Rank the masked patches by their error."""

    key = "hard"
    needs_masked = True
    predicts_errors = True

    def head(self, backbone: "nn.Module") -> "nn.Module":
        """Return the predictor's layers."""
        features, bins = backbone.bottleneck_features, self.run.stft.bins - 1
        linear = nn.Linear(features, bins // (self.run.mask.band or bins))
        return nn.ModuleDict({"norm": nn.LayerNorm(features), "linear": linear})

    def loss(self, head: "nn.Module", batch: "Example", prediction: Prediction) -> Loss:
        """Return the ranking loss on some masked patches of each crop, and the agreement."""
        grid = batch.corrupted.grid
        predicted = self.predict_errors(head, prediction.outputs.bottleneck, grid).flatten(1)
        place, counted = batch.corrupted.draw_masked(MAX_RANKED, prediction.generator)
        predicted = predicted.gather(1, place)
        with torch.no_grad():
            error = patch_error(prediction.restored, batch.target, grid)
            error = error.flatten(1).gather(1, place)
            right = agreement(predicted, error, counted)
        return ranking_loss(predicted, error, counted), {"hard/agreement": right}

    def predict_errors(self, head: "nn.Module", bottleneck: Tensor, grid: PatchGrid) -> Tensor:
        """Predict the error of each patch: the mean over the frames of a group, for each band."""
        frames = head["linear"](head["norm"](bottleneck)).float()
        return group_mean(rearrange(frames, "b n k -> b k n"), grid.size)


def patch_error(restored: Tensor, target: Tensor, grid: PatchGrid) -> Tensor:
    """Return the error of each patch, divided by the patch's mean magnitude: (b k m).

    Without the division the loudest patches would have the largest errors. The Nyquist bin is left
    out.

    Args:
        restored: (b c f n) the model's output.
        target: (b c f n).
        grid: the patches.
    """
    means = []
    for x in ((restored - target).abs(), target):
        bands = rearrange(x[:, :, :-1], "b c (k f) n -> b k (c f) n", k=grid.bands)
        means.append(group_mean(bands.mean(2), grid.size))
    return means[0] / (means[1] + 1e-2)


def ranking_loss(predicted: Tensor, error: Tensor, counted: Tensor) -> Tensor:
    """Compute the cross-entropy of the order of patches: of each pair, which one is harder.

    Args:
        predicted: (b l) the predictor's numbers.
        error: (b l) true errors; no gradient reaches them.
        counted: boolean (b l), the patches that take part.

    Returns:
        A scalar, the mean over all pairs of counted patches of a crop.
    """
    margin = predicted[:, :, None] - predicted[:, None, :]
    # each unordered pair once: -log sigmoid(l_i - l_j) where i is harder than j
    return -masked_mean(F.logsigmoid(margin), _pairs(error.detach(), counted))


def agreement(predicted: Tensor, error: Tensor, counted: Tensor) -> Tensor:
    """Return the share of pairs of counted patches that are in the right order.

    Args:
        predicted: (b l) the predictor's numbers.
        error: (b l) true errors.
        counted: boolean (b l), the patches that take part.
    """
    right = predicted[:, :, None] > predicted[:, None, :]
    return masked_mean(right.float(), _pairs(error, counted))


def _pairs(error: Tensor, counted: Tensor) -> Tensor:
    """Return the pairs (b l l) of counted patches of which the first is harder."""
    harder = error[:, :, None] > error[:, None, :]
    return counted[:, :, None] & counted[:, None, :] & harder
