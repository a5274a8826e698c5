"""Patches that lie together in time and frequency: SSAST's clusters and the inverse of blocks."""

from separator.pretrain.lazy_torch import F, Generator, Tensor, torch
from separator.pretrain.masking.grid import PatchGrid, lowest, wanted
from separator.pretrain.masking.options import ShareOptions
from separator.pretrain.masking.strategy import register

CLUSTERS = (3, 4, 5)  # sides of SSAST's clusters
SIDE = 5  # side of the kept blocks
SPARE = 0.07  # more blocks than needed, since they overlap


@register(ShareOptions)
def clusters(
    spectrogram: Tensor, grid: PatchGrid, config: ShareOptions, step: int, generator: Generator
) -> Tensor:
    """Choose `share` of the patches in square clusters (SSAST, arXiv 2110.09784).

    The clusters of a crop have a side of 3, 4 or 5 patches. They are placed in random order until
    the share is reached; the last one is made smaller.
    """
    batch = len(spectrogram)
    side = torch.randint(len(CLUSTERS), (batch, 1, 1), generator=generator)
    first = torch.rand(batch, grid.bands, grid.groups, generator=generator)
    # the first cluster to cover a patch
    scores = torch.stack([-_spread(-first, number) for number in CLUSTERS])
    scores = scores.gather(0, side.expand(1, -1, grid.bands, grid.groups))[0].flatten(1)
    scores = scores + 1e-6 * torch.rand(scores.shape, generator=generator)
    chosen = lowest(scores, wanted(config.share, grid.patches, batch, generator))
    return chosen.unflatten(1, (grid.bands, grid.groups))


@register(ShareOptions)
def inverse_blocks(
    spectrogram: Tensor, grid: PatchGrid, config: ShareOptions, step: int, generator: Generator
) -> Tensor:
    """Keep blocks of 5 x 5 patches and choose the rest, `share` of the patches.

    data2vec 2.0 (Baevski et al. 2022, arXiv 2212.07525) and EAT (arXiv 2401.03497). Blocks end at
    the borders; then single patches are added or removed at random until the share is exact.
    """
    batch, patches = len(spectrogram), grid.patches
    number = wanted(config.share, patches, batch, generator)
    side = min(SIDE, grid.bands) * min(SIDE, grid.groups)
    centres = ((patches - number + patches * SPARE) / side).long().clamp(min=1)
    drawn = lowest(torch.rand(batch, patches, generator=generator), centres)
    blocks = _spread(drawn.unflatten(1, (grid.bands, grid.groups)).float(), SIDE).flatten(1)
    scores = blocks + torch.rand(batch, patches, generator=generator)
    return lowest(scores, number).unflatten(1, (grid.bands, grid.groups))


def _spread(values: Tensor, side: int) -> Tensor:
    """Give each patch of (b k m) the largest value within the square that it is the centre of."""
    before, after = side // 2, (side - 1) // 2
    padded = F.pad(values[:, None], (before, after, before, after), value=float("-inf"))
    return F.max_pool2d(padded, side, stride=1)[:, 0]
