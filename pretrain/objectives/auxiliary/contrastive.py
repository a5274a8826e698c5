"""A contrastive loss that matches masked patches with their content, as in SSAST.

Gong et al. 2022, arXiv 2110.09784 (InfoNCE, van den Oord et al. 2018, arXiv 1807.03748). There the
answer is compared with raw patches; here both sides are projected, as patches may be whole frames
of thousands of bins, and cosines are divided by a temperature as in HuBERT. One forward pass serves
this and the masked error.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from einops import rearrange

from separator.pretrain.lazy_torch import F, Tensor, nn, torch
from separator.pretrain.masking.grid import PatchGrid, group_mean, masked_mean
from separator.pretrain.objectives import Loss, Objective, ObjectiveConfig, Prediction, register
from separator.ranges import Within

if TYPE_CHECKING:
    from separator.pretrain.batch import Example

MIN_TARGET = 1e-3


@dataclass(frozen=True)
class ContrastConfig(ObjectiveConfig):
    """Match the masked patches of a crop with their content (InfoNCE).

    Attributes:
        weight: weight of the cross-entropy.
        features: length of the vectors by which patches are compared.
        temperature: number by which the cosines are divided.
        most: largest number of masked patches of a crop that are compared; from more of them, this
            many are drawn at random.
    """

    features: Annotated[int, Within("[1, 16384]")] = 256
    temperature: Annotated[float, Within("(0, inf)")] = 0.1
    most: Annotated[int, Within("[2, 65536]")] = 256


@register
class Contrast(Objective[ContrastConfig]):
    """Match the backbone's features of each masked patch with the content of the patch."""

    key = "contrast"
    meeting_point = "pre_head"
    needs_masked = True

    def head(self, backbone: "nn.Module") -> "nn.Module":
        """Return the projections of features and content."""
        band, size = self.run.mask.band or self.run.stft.bins - 1, self.config.features
        guess = nn.Linear(band * backbone.pre_head_channels, size)
        return nn.ModuleDict({"guess": guess, "truth": nn.Linear(2 * band, size)})

    def loss(self, head: "nn.Module", batch: "Example", prediction: Prediction) -> Loss:
        """Return the cross-entropy, averaged over the masked patches, and the accuracy."""
        corrupted, grid = batch.corrupted, batch.corrupted.grid
        log_target = batch.target[:, :, :-1].clamp(min=MIN_TARGET).log()
        log_target = log_target - log_target.mean(dim=(1, 2, 3), keepdim=True)
        features = rearrange(prediction.outputs.pre_head, "b n f c -> b c f n")
        guess = head["guess"](_patches(features, grid))
        truth = head["truth"](_patches(log_target, grid))
        place, counted = corrupted.draw_masked(self.config.most, prediction.generator)
        rows = place[..., None].expand(-1, -1, guess.shape[-1])
        guess, truth = (F.normalize(x.gather(1, rows).float(), dim=-1) for x in (guess, truth))
        with torch.autocast(guess.device.type, enabled=False):
            logits = guess @ truth.transpose(1, 2) / self.config.temperature
        logits = logits.masked_fill(~counted[:, None, :], -1e4)
        right = torch.arange(place.shape[1], device=logits.device).expand(len(logits), -1)
        error = F.cross_entropy(logits.transpose(1, 2), right, reduction="none")
        accuracy = masked_mean((logits.argmax(-1) == right).float(), counted)
        return masked_mean(error, counted), {"contrast/accuracy": accuracy}


def _patches(values: Tensor, grid: PatchGrid) -> Tensor:
    """Average patches over their frames: (b c f n) without the Nyquist bin to (b k·m f/k·c)."""
    means = group_mean(rearrange(values, "b c (k f) n -> b k f c n", k=grid.bands), grid.size)
    return rearrange(means, "b k f c m -> b (k m) (f c)")
