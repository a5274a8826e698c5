"""Cells chosen uniformly: the words of BERT (Devlin et al. 2018, arXiv 1810.04805), or patches."""

import torch
from torch import Tensor

from separator.pretrain.mask_config import MaskConfig
from separator.pretrain.masks.geometry import Grid, lowest, wanted


def uniform(
    spectrogram: Tensor, grid: Grid, config: MaskConfig, step: int, generator: torch.Generator
) -> Tensor:
    """Choose `share` of the cells; every choice is as likely.

    Whole frame groups are the source document's words; bands and groups of 16 bins and frames with
    a share of 0.75 are MaskSpec's patches (Chong et al. 2022, arXiv 2204.12768).
    """
    batch = len(spectrogram)
    scores = torch.rand(batch, grid.cells, generator=generator)
    chosen = lowest(scores, wanted(config.share, grid.cells, batch, generator))
    return chosen.unflatten(1, (grid.bands, grid.groups))
