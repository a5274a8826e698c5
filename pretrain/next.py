"""Next-spectrogram prediction: do the two halves of a crop follow each other in the song?"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.errors import SeparatorError
from separator.pretrain.ramps import Ramp, check


@dataclass(frozen=True)
class NextConfig:
    """Half of the crops go on with another place of the song, or another song; tell which.

    Attributes:
        weight: weight of this objective; 0 leaves it and the separator out.
        token: frames of the separator, half of them on each side of the joint.
        other: part of the negatives that go on with another item of the batch; the rest goes on
            with the same item, at least half a crop away from the true continuation.
        gain_db: each half is raised or lowered by up to this much, and so is, once more, that in
            which its channels differ.
        tilt_db: each half's spectrum is tilted, and bent, by up to this much per octave.
        lowpass: part of the crops of which both halves go through the same low-pass.
    """

    weight: Ramp = 0.0
    token: int = 16
    other: float = 0.25
    gain_db: float = 6.0
    tilt_db: float = 1.0
    lowpass: float = 0.5

    def __post_init__(self) -> None:
        check("next.weight", self.weight)
        if self.token < 2 or self.token % 2:
            raise SeparatorError(
                f"next.token: {self.token} frames; give an even number of at least 2"
            )
        for key in ("other", "lowpass"):
            if not 0 <= getattr(self, key) <= 1:
                raise SeparatorError(f"next.{key}: {getattr(self, key)} is not in [0, 1]")
        for key in ("gain_db", "tilt_db"):
            if getattr(self, key) < 0:
                raise SeparatorError(f"next.{key}: {getattr(self, key)} is negative; 0 is none")


WINDOWS = 2, 4, 16  # frames on each side of the separator that are compared, beside the halves
VIEWS = 16  # directions in which they are compared


class NextHead(nn.Module):
    """Whether the second half continues the first, from the deepest features of each frame.

    BERT's next-sentence prediction (arXiv 1810.04805). All that is looked at is how far the halves
    point apart, as wholes and in the frames nearest the joint, as seen from learned directions:
    angles, not distances, for each half has a level and a tilt of its own; and nothing else, for
    what one half alone is like says nothing, and is soon known by heart.

    Args:
        features: deepest features of a frame, a model's `deep_features`.
        config: the separator, whose frames are left out.
        width: features in each of the views.
    """

    def __init__(self, features: int, config: NextConfig, width: int = 16) -> None:
        super().__init__()
        self.reach = config.token // 2
        self.norm, self.views = nn.LayerNorm(features), nn.Linear(features, VIEWS * width)
        self.compare = nn.Linear((len(WINDOWS) + 1) * (VIEWS + 1), 64)
        self.answer = nn.Linear(64, 1)

    def forward(self, deep: Tensor) -> Tensor:
        """Map (b n d), whose joint is at frame n // 2, to the log-odds of a continuation, (b)."""
        middle = deep.shape[1] // 2
        first, second = deep[:, : middle - self.reach], deep[:, middle + self.reach :]
        pairs = [(first, second), *((first[:, -n:], second[:, :n]) for n in WINDOWS)]
        means = torch.stack([half.mean(dim=1) for pair in pairs for half in pair], dim=1)
        normed = self.norm(means).unflatten(1, (-1, 2))  # (b pair half d)
        views = self.views(normed).unflatten(-1, (VIEWS, -1))
        apart = torch.cat([_angle(normed[..., None, :]), _angle(views)], dim=-1)
        return self.answer(F.relu(self.compare(apart.flatten(1)))).squeeze(-1)

    def loss(self, deep: Tensor, continues: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the binary cross-entropy, and what to log.

        Args:
            deep: (b n d) as in `forward`.
            continues: boolean (b).

        Returns:
            A scalar; "next/accuracy", and "next/positive", the part of the crops that the head
            takes for continuations: 0 or 1 where it has given up, about 0.5 where it tells.
        """
        logits = self(deep)
        loss = F.binary_cross_entropy_with_logits(logits, continues.to(logits.dtype))
        answers = logits.detach() > 0
        accuracy = (answers == continues).float().mean()
        return loss, {"next/accuracy": accuracy, "next/positive": answers.float().mean()}


def _angle(pairs: Tensor) -> Tensor:
    """Log of 1 - cosine between the halves of each pair: (b pair 2 view d) to (b pair view)."""
    first, second = pairs.float().unbind(2)
    return (1 - F.cosine_similarity(first, second, dim=-1) + 1e-3).log()
