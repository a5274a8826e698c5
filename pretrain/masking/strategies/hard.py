"""Patches that the model finds hard: HPM (Wang et al. 2023, arXiv 2304.05919)."""

from separator.pretrain.lazy_torch import Generator, Tensor, torch
from separator.pretrain.masking.grid import PatchGrid, lowest, wanted
from separator.pretrain.masking.options import WeightedOptions
from separator.pretrain.masking.strategy import register

HARDEST = 0.5  # part of the chosen patches that is chosen for being hard, at the end


def hard_share(step: int, config: WeightedOptions) -> float:
    """Compute the part of the chosen patches that are the hardest ones: from 0 at first to a half.

    Args:
        step: finished steps of the run.
        config: `uniform_steps` and `weighted_steps`.

    Returns:
        A number in [0, 0.5].
    """
    if step < config.uniform_steps:
        return 0.0
    return HARDEST * min(1.0, step / max(1, config.weighted_steps))


@register(WeightedOptions, predicted_error=True)
def hard(
    difficulty: Tensor, grid: PatchGrid, config: WeightedOptions, step: int, generator: Generator
) -> Tensor:
    """Choose `share` of the patches: a growing part the hardest, the rest uniformly.

    Args:
        difficulty: (b k m) predicted error of each patch, instead of the spectrogram.
        grid: of the same k and m.
        config: the share and the steps over which the part grows.
        step: finished steps of the run.
        generator: on the CPU.

    Returns:
        Boolean (b k m).
    """
    batch = len(difficulty)
    number = wanted(config.share, grid.patches, batch, generator)
    hard_ones = (number * hard_share(step, config)).long()
    hardest = lowest(-difficulty.flatten(1).cpu(), hard_ones)
    scores = torch.rand(batch, grid.patches, generator=generator)
    return lowest(torch.where(hardest, -1.0, scores), number).unflatten(1, difficulty.shape[1:])
