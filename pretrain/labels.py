"""Naming hidden frame groups: the loss of the cluster label beside the masked error."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.errors import SeparatorError
from separator.pretrain.masking.corruption import IGNORED, KINDS, Corrupted
from separator.pretrain.objective_config import LabelConfig
from separator.pretrain.objectives import masked_mean

NOWHERE = -1  # label of the groups that count nowhere
FEATURES = 256  # in which groups and clusters are compared
TEMPERATURE = 0.1  # what their cosines are divided by, as in HuBERT


class LabelHead(nn.Module):
    """Name the cluster of each frame group from the backbone's deepest features.

    Logits are the cosines between a group's projected features and an embedding of each cluster,
    over 0.1 (HuBERT, arXiv 2106.07447).

    Args:
        features: d of the deep features.
        config: clusters, group, weights.
    """

    def __init__(self, features: int, config: LabelConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, FEATURES)
        self.embeddings = nn.Parameter(torch.randn(config.clusters, FEATURES))

    def forward(self, deep: Tensor) -> Tensor:
        """Map deep features (b n d) to the logits of the groups' labels (b m k)."""
        groups = self.project(self.norm(cut(deep, self.config.group).mean(2))).float()
        with torch.autocast(deep.device.type, enabled=False):
            cosines = F.normalize(groups, dim=-1) @ F.normalize(self.embeddings, dim=-1).T
        return cosines / TEMPERATURE

    def loss(
        self, deep: Tensor, labels: Tensor, hidden: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of the hidden groups, and of the others as far as they have a weight.

        Args:
            deep: (b n d) of the corrupted crops.
            labels: (b m) of the uncorrupted ones; -1 counts nowhere.
            hidden: boolean (b m).

        Returns:
            The loss in nats, 0 where no group is hidden, and what to log: that of the hidden groups
            alone, the share of them that is named right, and exp of their cross-entropy, to be
            compared with the perplexity of the labels themselves.
        """
        logits = self(deep).flatten(0, 1)
        known, hidden = (labels != NOWHERE).flatten(), hidden.flatten()
        error = F.cross_entropy(logits, labels.flatten(), ignore_index=NOWHERE, reduction="none")
        masked, unmasked = (masked_mean(error, known & at) for at in (hidden, ~hidden))
        right = (logits.detach().argmax(-1) == labels.flatten()).float()
        scalars = {
            "labels/cross_entropy": masked.detach(),
            "labels/accuracy": masked_mean(right, known & hidden),
            "labels/perplexity": masked.detach().exp(),
        }
        return masked + self.config.unmasked_weight * unmasked, scalars


def cut(frames: Tensor, group: int) -> Tensor:
    """Cut frames (b n d) into groups (b m g d), m = n // group; the rest is left out.

    Raises:
        SeparatorError: fewer frames than a group.
    """
    whole = frames.shape[1] // group
    if not whole:
        raise SeparatorError(
            f"labels.group: {group} frames, but a crop has {frames.shape[1]}; use smaller groups "
            "or a longer data.segment_seconds"
        )
    return rearrange(frames[:, : whole * group], "b (m g) d -> b m g d", g=group)


def hidden_groups(corrupted: Corrupted, group: int) -> Tensor:
    """Boolean (b m): groups of whose cells more than half are filled, noise or another song.

    What was chosen and kept is heard, and so is a clean crop.
    """
    kinds = corrupted.kinds
    replaced = ((kinds >= 0) & (kinds < KINDS.index("keep"))).float()
    return cut(replaced[:, 0].transpose(1, 2), group).mean(dim=(2, 3)) > 0.5


def without_outside(labels: Tensor, corrupted: Corrupted, group: int) -> Tensor:
    """Labels (b m) with -1, which counts nowhere, for groups with frames of no song among them."""
    outside = (corrupted.kinds[:, 0] == IGNORED).transpose(1, 2)
    return labels.masked_fill(cut(outside, group).any(dim=3).any(dim=2), NOWHERE)


def unigram_entropy(labels: Tensor) -> Tensor:
    """Entropy of the labels' frequencies in nats: the loss of always answering with these.

    A head that knows nothing of the crop cannot do better on the same labels.

    Args:
        labels: of any shape; -1 is left out.
    """
    counts = torch.bincount(labels[labels != NOWHERE]).float()
    return torch.special.entr(counts / counts.sum().clamp(min=1)).sum()
