"""Classification of masked frame groups by their cluster, and its loss."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.errors import SeparatorError
from separator.pretrain.masking.corruption import IGNORED, KINDS, Corrupted
from separator.pretrain.masking.grid import masked_mean
from separator.pretrain.objectives.auxiliary.cluster_labels import LabelConfig

NO_LABEL = -1  # of groups that no loss counts
FEATURES = 256  # in which groups and clusters are compared
TEMPERATURE = 0.1  # divides their cosines, as in HuBERT


class LabelHead(nn.Module):
    """Predict the cluster of each frame group from the backbone's bottleneck features.

    Logits are the cosines between a group's projected features and an embedding of each cluster,
    over 0.1 (HuBERT, arXiv 2106.07447).

    Args:
        features: d, the number of bottleneck features of a frame.
        config: clusters, group, weights.
    """

    def __init__(self, features: int, config: LabelConfig) -> None:
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(features)
        self.project = nn.Linear(features, FEATURES)
        self.embeddings = nn.Parameter(torch.randn(config.clusters, FEATURES))

    def forward(self, bottleneck: Tensor) -> Tensor:
        """Compute the logits of the groups' labels.

        Args:
            bottleneck: (b n d) features of the corrupted crops.

        Returns:
            (b m k), k clusters.
        """
        groups = self.project(self.norm(in_groups(bottleneck, self.config.group).mean(2))).float()
        with torch.autocast(bottleneck.device.type, enabled=False):
            cosines = F.normalize(groups, dim=-1) @ F.normalize(self.embeddings, dim=-1).T
        return cosines / TEMPERATURE

    def loss(
        self, bottleneck: Tensor, labels: Tensor, masked: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the cross-entropy of the masked groups, and of the others by their weight.

        Args:
            bottleneck: (b n d) features of the corrupted crops.
            labels: (b m) of the uncorrupted ones; -1 is ignored.
            masked: boolean (b m).

        Returns:
            The loss in nats, 0 where no group is masked, and scalars to log: the cross-entropy and
            the accuracy on the masked groups alone, and exp of this cross-entropy, to be compared
            with the perplexity of the labels themselves.
        """
        logits = self(bottleneck).flatten(0, 1)
        valid, masked = (labels != NO_LABEL).flatten(), masked.flatten()
        error = F.cross_entropy(logits, labels.flatten(), ignore_index=NO_LABEL, reduction="none")
        masked_error = masked_mean(error, valid & masked)
        unmasked_error = masked_mean(error, valid & ~masked)
        right = (logits.detach().argmax(-1) == labels.flatten()).float()
        scalars = {
            "labels/cross_entropy": masked_error.detach(),
            "labels/accuracy": masked_mean(right, valid & masked),
            "labels/perplexity": masked_error.detach().exp(),
        }
        return masked_error + self.config.unmasked_weight * unmasked_error, scalars


def in_groups(frames: Tensor, group: int) -> Tensor:
    """Cut frames into groups; frames that do not fill a group are left out.

    Args:
        frames: (b n d).
        group: g, frames in a group.

    Returns:
        (b m g d), m = n // group.

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


def masked_groups(corrupted: Corrupted, group: int) -> Tensor:
    """Return the groups of which more than half is masked, noise or a mix: boolean (b m).

    Patches that were chosen and kept count as visible, and so do clean crops.

    Args:
        corrupted: the crops.
        group: frames in a group.
    """
    kinds = corrupted.kinds
    replaced = ((kinds >= 0) & (kinds < KINDS.index("keep"))).float()
    return in_groups(replaced[:, 0].transpose(1, 2), group).mean(dim=(2, 3)) > 0.5


def ignore_outside(labels: Tensor, corrupted: Corrupted, group: int) -> Tensor:
    """Return the labels with -1, which no loss counts, for groups that have ignored frames.

    Args:
        labels: (b m).
        corrupted: of the same crops.
        group: frames in a group.
    """
    outside = (corrupted.kinds[:, 0] == IGNORED).transpose(1, 2)
    return labels.masked_fill(in_groups(outside, group).any(dim=3).any(dim=2), NO_LABEL)


def unigram_entropy(labels: Tensor) -> Tensor:
    """Compute the entropy of the labels' frequencies.

    It is the lowest loss of a head that ignores its input.

    Args:
        labels: of any shape; -1 is left out.

    Returns:
        A scalar in nats.
    """
    counts = torch.bincount(labels[labels != NO_LABEL]).float()
    return torch.special.entr(counts / counts.sum().clamp(min=1)).sum()
