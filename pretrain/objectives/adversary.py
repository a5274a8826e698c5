"""Training of a discriminator, and the adversarial loss of the model.

Only masked patches count: elsewhere the model sees the original.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.engine import distributed
from separator.pretrain.masking.corruption import Corrupted
from separator.pretrain.objectives.auxiliary.adversarial import AdversaryConfig
from separator.pretrain.objectives.discriminators import FRAME_KINDS, TokenDiscriminator

MOMENTUM = 0.9  # of the running accuracy, from one step to the next


@dataclass(frozen=True)
class Loss:
    """Losses of logits for the discriminator and the generator.

    Attributes:
        real: loss of the discriminator for originals, logit by logit.
        fake: the same for restored items.
        generator: loss of the generator.
        middle: logit above which an item counts as classified real.
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]
    middle: float = 0.0


# hinge: Lim & Ye 2017, arXiv 1705.02894; least squares: Mao et al. 2017, arXiv 1611.04076;
# cross-entropy with the generator's non-saturating side: Goodfellow et al. 2014, arXiv 1406.2661
GAN_LOSSES = {
    "hinge": Loss(lambda y: F.relu(1 - y), lambda y: F.relu(1 + y), lambda y: -y),
    "least_squares": Loss(
        lambda y: (y - 1).square(), lambda y: y.square(), lambda y: (y - 1).square(), middle=0.5
    ),
    "bce": Loss(lambda y: F.softplus(-y), F.softplus, lambda y: F.softplus(-y)),
}


def masked_tokens(picture: Tensor, masked: Tensor, group: int) -> Tensor:
    """Extract the frame groups that are masked entirely, of all crops, in order.

    Args:
        picture: (b c f n), the Nyquist bin included.
        masked: boolean (b 1 1 n) or (b 1 f n); with bands, a group counts when all of it is masked.
        group: frames in a token; groups begin at its multiples, and one cut short by the crop's end
            is left out.

    Returns:
        (k c f-1 g), k of 0 or more.
    """
    frames = picture.shape[-1] // group * group
    whole = rearrange(masked.all(dim=2)[:, 0, :frames], "b (m g) -> b m g", g=group).all(dim=-1)
    patches = rearrange(picture[:, :, :-1, :frames], "b c f (m g) -> b m c f g", g=group)
    return patches[whole]


class Adversary:
    """A discriminator, its optimizer and the losses of both sides.

    Args:
        config: kind, losses and rates.
        channels: audio channels.
        bins: of the spectrogram, the Nyquist bin included.
        frames_in_token: `mask.group`; while groups are still growing, tokens may be shorter.
    """

    def __init__(
        self, config: AdversaryConfig, channels: int, bins: int, frames_in_token: int
    ) -> None:
        self.config, self.loss = config, GAN_LOSSES[config.loss]
        if config.kind == "token":
            sizes = channels, bins - 1, frames_in_token, config.channels
            self.network: nn.Module = TokenDiscriminator(*sizes)
        else:
            self.network = FRAME_KINDS[config.kind](channels, bins - 1, config.channels)
        weights, betas = self.network.parameters(), tuple(config.betas)
        self.optimizer = torch.optim.Adam(weights, lr=config.lr, betas=betas, fused=True)
        self.device = torch.device("cpu")
        self._accuracy = 0.5  # running
        self._replica: nn.Module | None = None

    def to(self, device: torch.device) -> Self:
        """Move the network to a device, before the first step and before a state is loaded.

        Args:
            device: where the model is.

        Returns:
            This object.
        """
        self.network.to(device)
        self.device = device
        return self

    def set_rate(self, factor: float) -> None:
        """Set the learning rate.

        Args:
            factor: of `config.lr`.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self.config.lr

    def discriminate(
        self, real: Tensor, fake: Tensor, corrupted: Corrupted, group: int, step: int
    ) -> dict[str, Tensor]:
        """Train the discriminator on masked patches for one step, from `config.start` on.

        The mean over masked tokens or frames is that of all ranks together. An update whose loss
        or gradient is not finite is left out, and so is one while the discriminator is right more
        often than `config.ceiling`. All ranks must call this together.

        Args:
            real: (b c f n) the uncorrupted magnitudes.
            fake: (b c f n) the generator's answer; it gets no gradient.
            corrupted: the generator's input, and where it is masked.
            group: frames in a patch at this step.
            step: finished steps of the run.

        Returns:
            "adversary/loss" and "adversary/accuracy", the share of originals and restored ones that
            were classified correctly; NaN before `config.start`, 0 where nothing was masked.
        """
        if step < self.config.start:
            names = "adversary/loss", "adversary/accuracy"
            return dict.fromkeys(names, real.new_tensor(math.nan))
        if self._replica is None:  # not before: there must be a process group
            self._replica = distributed.wrap(self.network, self.device)
        self.network.train()
        # around backward too; and autocast would keep copies of weights that the update changes
        with torch.autocast(self.device.type, enabled=False):
            pictures = [self._input(candidate, corrupted, group) for candidate in (real, fake)]
            logits = self._replica(torch.cat(pictures).detach())
            originals, restored = self._judged(logits, corrupted).chunk(2)
            count = distributed.mean(originals.new_tensor(len(originals)))
            share = 1 / count.clamp(min=1 / distributed.world())
            loss = share * (self.loss.real(originals).sum() + self.loss.fake(restored).sum())
            loss.backward()
            middle = self.loss.middle
            right = (originals > middle).sum() + (restored <= middle).sum()
            accuracy = share * right / 2
            self._update(loss.detach(), accuracy, count)
        return {"adversary/loss": loss.detach(), "adversary/accuracy": accuracy}

    def generator_loss(self, fake: Tensor, corrupted: Corrupted, group: int) -> Tensor:
        """Return the generator's loss: how far its answer is from being classified as real.

        The discriminator is used as it is: its weights get no gradient and its state stays.

        Args:
            fake: (b c f n) the generator's answer.
            corrupted: the generator's input, and where it is masked.
            group: frames in a patch at this step.

        Returns:
            The mean over masked tokens or frames; 0 where there are none.
        """
        self.network.eval()  # the power iteration of spectral norm belongs to discriminate()
        with torch.autocast(self.device.type, enabled=False), _frozen(self.network):
            logits = self.network(self._input(fake, corrupted, group))
        logits = self._judged(logits, corrupted)
        return self.loss.generator(logits).sum() / max(1, len(logits))

    def state_dict(self) -> dict[str, Any]:
        """Return network, optimizer and running accuracy as plain values and tensors."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "accuracy": self._accuracy,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take everything from a state of the same configuration."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._accuracy = state["accuracy"]

    def _input(self, candidate: Tensor, corrupted: Corrupted, group: int) -> Tensor:
        """Return the discriminator's input for a candidate (b c f n): tokens, or pairs of pictures.

        Pictures have the candidate where the input was masked and the generator's input elsewhere,
        so that real and fake ones differ in nothing else.
        """
        masked = corrupted.masked
        if self.config.kind == "token":
            return masked_tokens(candidate, masked, group)
        shown = corrupted.spectrogram
        pasted = torch.where(masked, candidate, shown)
        return torch.cat([shown, pasted], dim=1)[:, :, :-1]

    def _judged(self, logits: Tensor, corrupted: Corrupted) -> Tensor:
        """Keep the logits that count: of tokens all (k), of frames (b n) the masked ones (k)."""
        if self.config.kind == "token":
            return logits
        frames = corrupted.masked.any(dim=2)[:, 0]
        return logits[frames.repeat(len(logits) // len(frames), 1)]

    def _update(self, loss: Tensor, accuracy: Tensor, count: Tensor) -> None:
        """Make an optimizer step of the gradients, on all ranks or on none."""
        gradients = [weight.grad for weight in self.network.parameters()]
        norm = nn.utils.get_total_norm(gradients)
        value, accuracy = distributed.mean(torch.stack([loss + norm, accuracy])).tolist()
        if count > 0:  # without a token Adam's mean would still move the weights
            self._accuracy = MOMENTUM * self._accuracy + (1 - MOMENTUM) * accuracy
            if math.isfinite(value) and self._accuracy <= self.config.ceiling:
                self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Gradients pass through the network, but none stays in it."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
