"""SSAST's discriminative objective: which of a crop's hidden cells belongs where.

Gong et al. 2022, arXiv 2110.09784 (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748). There the
answer is compared with raw patches; here both sides are projected, as cells may be whole frames of
thousands of bins, and cosines are divided by a temperature as in HuBERT. One pass serves this and
restoring.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.pretrain.masking.corruption import Corrupted
from separator.pretrain.masking.grid import PatchGrid, group_mean
from separator.pretrain.objective_config import ContrastConfig
from separator.pretrain.objectives import masked_mean

FLOOR = 1e-3


class ContrastHead(nn.Module):
    """Compares what a model says of each hidden cell with what was there.

    Args:
        config: sizes.
        pre_head_channels: channels of the model's features before its last layer.
        band: bins in a cell.
        audio_channels: channels of the spectrogram.
    """

    def __init__(
        self, config: ContrastConfig, pre_head_channels: int, band: int, audio_channels: int = 2
    ) -> None:
        super().__init__()
        self.config = config
        self.guess = nn.Linear(band * pre_head_channels, config.features)
        self.truth = nn.Linear(band * audio_channels, config.features)

    def loss(
        self, fine: Tensor, target: Tensor, corrupted: Corrupted, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Score the guesses.

        Args:
            fine: (b n f c') the model's features, without the Nyquist bin.
            target: (b c f n) the uncorrupted magnitudes, with it.
            corrupted: where cells are hidden.
            generator: on the CPU; draws the cells that are compared.

        Returns:
            The cross-entropy, averaged over the hidden cells, and the share that is found.
        """
        grid = corrupted.grid
        level = target[:, :, :-1].clamp(min=FLOOR).log()
        level = level - level.mean(dim=(1, 2, 3), keepdim=True)
        guess = self.guess(_cells(rearrange(fine, "b n f c -> b c f n"), grid))
        truth = self.truth(_cells(level, grid))
        place, counted = corrupted.draw_masked(self.config.most, generator)
        guess, truth = (
            F.normalize(x.gather(1, place[..., None].expand(-1, -1, x.shape[-1])).float(), dim=-1)
            for x in (guess, truth)
        )
        with torch.autocast(guess.device.type, enabled=False):
            logits = guess @ truth.transpose(1, 2) / self.config.temperature
        logits = logits.masked_fill(~counted[:, None, :], -1e4)
        right = torch.arange(place.shape[1], device=logits.device).expand(len(logits), -1)
        error = F.cross_entropy(logits.transpose(1, 2), right, reduction="none")
        found = masked_mean((logits.argmax(-1) == right).float(), counted)
        return masked_mean(error, counted), {"contrast/accuracy": found}


def _cells(values: Tensor, grid: PatchGrid) -> Tensor:
    """Average cells over their frames: (b c f n) without the Nyquist bin to (b k·m f/k·c)."""
    means = group_mean(rearrange(values, "b c (k f) n -> b k f c n", k=grid.bands), grid.size)
    return rearrange(means, "b k f c m -> b (k m) (f c)")
