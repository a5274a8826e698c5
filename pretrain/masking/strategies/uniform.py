"""Patches chosen uniformly, as the words of BERT (Devlin et al. 2018, arXiv 1810.04805)."""

from separator.pretrain.lazy_torch import Generator, Tensor, torch
from separator.pretrain.masking.grid import PatchGrid, lowest, wanted
from separator.pretrain.masking.options import ShareOptions
from separator.pretrain.masking.strategy import register


@register(ShareOptions)
def uniform(
    spectrogram: Tensor, grid: PatchGrid, config: ShareOptions, step: int, generator: Generator
) -> Tensor:
    """Choose `share` of the patches; all choices are equally likely.

    Patches of whole frames correspond to the words that BERT masks; patches of 16 bins by 16 frames
    with a share of 0.75 are those of MaskSpec (Chong et al. 2022, arXiv 2204.12768).
    """
    batch = len(spectrogram)
    scores = torch.rand(batch, grid.patches, generator=generator)
    chosen = lowest(scores, wanted(config.share, grid.patches, batch, generator))
    return chosen.unflatten(1, (grid.bands, grid.groups))
