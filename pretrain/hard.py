"""Hard-patch mining: the model predicts where it will fail, and is sent there.

Wang et al. 2023, arXiv 2304.05919. The teacher is the run's averaged model; it sees the whole
spectrogram and predicts each cell's error, from which `masks.hard` chooses.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.pretrain.masking.corruption import Corrupted
from separator.pretrain.masking.grid import PatchGrid, group_mean
from separator.pretrain.objectives import masked_mean

MOST = 256  # cells of a crop that are ranked: pairs are their square


class LossPredictor(nn.Module):
    """Predicts a cell's error from the deepest features: (b n d) to (b k m)."""

    def __init__(self, features: int, bands: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(features), nn.Linear(features, bands)

    def forward(self, deep: Tensor, grid: PatchGrid) -> Tensor:
        """Average each band's prediction over the frames of a group."""
        frames = rearrange(self.linear(self.norm(deep)).float(), "b n k -> b k n")
        return group_mean(frames, grid.size)


def cell_error(restored: Tensor, target: Tensor, grid: PatchGrid) -> Tensor:
    """Error of each cell relative to its level, (b c f n) twice to (b k m).

    Relative, because plain errors are largest where music is loudest. The Nyquist bin is left out.
    """
    error, level = (restored - target).abs(), target
    parts = [
        group_mean(
            rearrange(x[:, :, :-1], "b c (k f) n -> b k (c f) n", k=grid.bands).mean(2), grid.size
        )
        for x in (error, level)
    ]
    return parts[0] / (parts[1] + 1e-2)


def ranking_loss(predicted: Tensor, error: Tensor, counted: Tensor) -> Tensor:
    """Cross-entropy over all pairs of counted cells of a crop: which one is harder.

    Args:
        predicted: (b l) the predictor's numbers.
        error: (b l) true errors; detached.
        counted: boolean (b l).
    """
    margin = predicted[:, :, None] - predicted[:, None, :]
    # each unordered pair once: -log sigmoid(l_i - l_j) where i is harder than j
    return -masked_mean(F.logsigmoid(margin), _pairs(error.detach(), counted))


def agreement(predicted: Tensor, error: Tensor, counted: Tensor) -> Tensor:
    """Share of pairs of counted cells that are ranked rightly."""
    right = predicted[:, :, None] > predicted[:, None, :]
    return masked_mean(right.float(), _pairs(error, counted))


def _pairs(error: Tensor, counted: Tensor) -> Tensor:
    """Pairs (b l l) of counted cells of which the first is harder."""
    harder = error[:, :, None] > error[:, None, :]
    return counted[:, :, None] & counted[:, None, :] & harder


def mine(
    predictor: LossPredictor,
    deep: Tensor,
    restored: Tensor,
    target: Tensor,
    corrupted: Corrupted,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the ranking loss on up to MOST hidden cells, and how many pairs are ranked rightly."""
    grid = corrupted.grid
    predicted = predictor(deep, grid).flatten(1)
    place, counted = corrupted.draw_masked(MOST, generator)
    predicted = predicted.gather(1, place)
    with torch.no_grad():
        error = cell_error(restored, target, grid).flatten(1).gather(1, place)
        right = agreement(predicted, error, counted)
    return ranking_loss(predicted, error, counted), {"hard/agreement": right}
