"""Cells that lie together in time and frequency: SSAST's clusters and the inverse of blocks."""

import torch
import torch.nn.functional as F
from torch import Tensor

from separator.pretrain.mask_config import MaskConfig
from separator.pretrain.masks.geometry import Grid, lowest, wanted

CLUSTERS = (3, 4, 5)  # sides of SSAST's clusters
BLOCK = 5  # side of the kept blocks
SPARE = 0.07  # more blocks than needed, since they overlap


def clusters(
    spectrogram: Tensor, grid: Grid, config: MaskConfig, step: int, generator: torch.Generator
) -> Tensor:
    """Choose `share` of the cells in square clusters (SSAST, arXiv 2110.09784).

    The clusters of a crop have a side of 3, 4 or 5 cells. They are laid down in random order until
    the count is met, the last one cut short.
    """
    batch = len(spectrogram)
    side = torch.randint(len(CLUSTERS), (batch, 1, 1), generator=generator)
    first = torch.rand(batch, grid.bands, grid.groups, generator=generator)
    scores = torch.stack([-_spread(-first, number) for number in CLUSTERS])  # first to cover a cell
    scores = scores.gather(0, side.expand(1, -1, grid.bands, grid.groups))[0].flatten(1)
    scores = scores + 1e-6 * torch.rand(scores.shape, generator=generator)
    chosen = lowest(scores, wanted(config.share, grid.cells, batch, generator))
    return chosen.unflatten(1, (grid.bands, grid.groups))


def inverse_blocks(
    spectrogram: Tensor, grid: Grid, config: MaskConfig, step: int, generator: torch.Generator
) -> Tensor:
    """Keep blocks of 5 x 5 cells and choose the rest, `share` of the cells.

    data2vec 2.0 (Baevski et al. 2022, arXiv 2212.07525) and EAT (arXiv 2401.03497). Blocks are cut
    at the borders; then single cells are added or taken away at random until the count is exact.
    """
    batch, cells = len(spectrogram), grid.cells
    number = wanted(config.share, cells, batch, generator)
    side = min(BLOCK, grid.bands) * min(BLOCK, grid.groups)
    centres = ((cells - number + cells * SPARE) / side).long().clamp(min=1)
    drawn = lowest(torch.rand(batch, cells, generator=generator), centres)
    kept = _spread(drawn.unflatten(1, (grid.bands, grid.groups)).float(), BLOCK).flatten(1)
    scores = kept + torch.rand(batch, cells, generator=generator)
    return lowest(scores, number).unflatten(1, (grid.bands, grid.groups))


def _spread(values: Tensor, side: int) -> Tensor:
    """Give each cell of (b k m) the largest value within the square that it is the centre of."""
    before, after = side // 2, (side - 1) // 2
    padded = F.pad(values[:, None], (before, after, before, after), value=float("-inf"))
    return F.max_pool2d(padded, side, stride=1)[:, 0]
