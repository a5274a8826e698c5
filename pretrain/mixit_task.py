"""Mixture invariant training (Wisdom et al. 2020, arXiv 2006.12701) with the network's own masks.

Two crops are added, and several masks split the sum. Of all ways to give each part to one of the
two crops, the best counts. No stems are needed. For music, see Saijo and Bando 2025, arXiv
2505.07631: the part that estimates voices best is kept for fine-tuning.
"""

import itertools
import math
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.data.dataset import Batch
from separator.data.reader import load_stems
from separator.data.splits import first_by_hash
from separator.data.tracks import config_tracks, training_tracks
from separator.dsp.stft import istft, linear_mask, normalise, stft
from separator.engine.song_task import SongTask
from separator.engine.task import Validation
from separator.errors import SeparatorError
from separator.models.frame_transformer import MASK_BIAS_SCALE
from separator.models.layers import BinLinear
from separator.pretrain.config import PretrainConfig
from separator.pretrain.validate import fixed_batches
from separator.stems import ACCOMPANIMENT, VOCALS

CROPS_SEED = 0x6D6978  # of the validation's mixtures, the same for every run
VOICE_SECONDS = 10.0


class MixitModel(nn.Module):
    """A backbone with a last layer of its own that gives several masks.

    The backbone's last layer is not trained; `take_voice` sets it.

    Args:
        backbone: a frame transformer.
        sources: number of masks.
        bins: bins of the spectrogram, the Nyquist bin included.
    """

    def __init__(self, backbone: nn.Module, sources: int, bins: int) -> None:
        super().__init__()
        self.backbone, self.sources = backbone, sources
        self.head = BinLinear(backbone.pre_head_channels, 2 * sources)
        nn.init.trunc_normal_(self.head.weight, std=backbone.pre_head_channels**-0.5)
        nn.init.zeros_(self.head.bias)
        # from where the masks, squared as at stft.power=0.5, add up to one
        self.start = -math.log(math.sqrt(sources) - 1)
        self.mask_bias = nn.Parameter(torch.zeros(bins - 1, 2 * sources))
        self.mask_bias.no_weight_decay = True
        for weight in (*backbone.head.parameters(), backbone.mask_bias):
            weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the masks of all sources.

        Args:
            x: (b c f n) compressed magnitudes in [0, 1].

        Returns:
            Masks (b s c f n) in [0, 1], which need not add up to 1.
        """
        features = self.backbone.features(x).pre_head
        logits = self.head(features).float() + MASK_BIAS_SCALE * self.mask_bias + self.start
        masks = rearrange(logits.sigmoid(), "b n f (s c) -> b s c n f", s=self.sources)
        return F.pad(masks, (0, 1, 0, 0, 0, 0), mode="replicate").mT

    @torch.no_grad()
    def take_voice(self, source: int) -> None:
        """Let the backbone's mask be what is left of a mixture without one of the sources."""
        rows = slice(2 * source, 2 * source + 2)
        backbone = self.backbone
        backbone.head.weight.copy_(-self.head.weight[rows])
        backbone.head.bias.copy_(-self.head.bias[rows])
        start = (backbone.start + self.start) / MASK_BIAS_SCALE
        backbone.mask_bias.copy_(-self.mask_bias[:, rows] - start)


class MixitTask(SongTask):
    """Separation of sums of songs into the songs, without stems.

    Raises:
        SeparatorError: no songs to train on or to validate with.
    """

    about: ClassVar = {"stage": "pretrain", "part": "backbone"}

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__(config)
        self.model = MixitModel(self.make_model(), config.mixit.sources, config.stft.bins)
        self.train, self.valid = training_tracks(config.data)
        crops = fixed_batches(self.valid, config, config.data, CROPS_SEED)
        self.waves = [batch.mixture for batch in crops]
        self.voices = self._voices() if config.mixit.voices else []

    def _voices(self) -> list[tuple[Tensor, Tensor]]:
        """Read mixtures and vocals of songs to train on: (c t) each."""
        config, voices = self.config, []
        tracks = config_tracks(replace(config.data, roots=config.mixit.voices))
        tracks = [t for t in tracks if t.split == "train" and len(t.names) > 1]
        if not tracks:
            raise SeparatorError(
                "mixit.voices: no songs with stems to train on; give folders with some"
            )
        for track in first_by_hash(tracks, config.mixit.voice_songs):  # as data.fraction does
            stems = load_stems(track, config.rate, 0, round(VOICE_SECONDS * config.rate))
            voices.append((stems[ACCOMPANIMENT] + stems[VOCALS], stems[VOCALS]))
        return voices

    def step(
        self, model: nn.Module, batch: Batch, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Return the loss of one micro-batch, in which each crop is mixed with the next one."""
        loss = self._loss(model, batch.mixture)
        return {"loss": 0.1 * loss, "loss/snr": loss.detach()}

    def _loss(self, model: nn.Module, crops: Tensor) -> Tensor:
        """Return the negative SNR in dB of the better assignments, the mean over (b c t) crops."""
        pairs = torch.stack([crops, crops.roll(1, dims=0)], dim=1)
        parts = self._split(model, pairs.sum(dim=1))
        return mixit_loss(parts, pairs, self.config.mixit.snr_db).mean()

    def _split(self, model: nn.Module, mixture: Tensor) -> Tensor:
        """Split mixtures (b c t) into parts (b s c t)."""
        transform = self.config.stft
        spectrogram = stft(mixture, transform)
        magnitude, _ = normalise(spectrogram.abs(), transform)
        masked = spectrogram[:, None] * linear_mask(model(magnitude), transform)
        return istft(masked, transform, mixture.shape[-1])

    def validate(self, model: nn.Module, step: int) -> Validation:
        """Score the restored songs, and choose the part that is to be the voice."""
        ratios = [-self._loss(model, waves.to(self.device)).item() for waves in self.waves]
        result = Validation({}, sum(ratios) / len(ratios))
        result.scalars["valid/snr"] = result.score
        result.summary = f"songs come back out of sums of two with {result.score:.2f} dB SNR"
        if self.voices:
            source, ratio = self._best_voice(model)
            model.take_voice(source)
            result.scalars["valid/voice_sdr"] = ratio
            result.notes = (f"part {source} estimates vocals best, {ratio:.1f} dB SDR",)
        return result

    def _best_voice(self, model: MixitModel) -> tuple[int, float]:
        """Return which part estimates vocals best, and its SDR in dB over all songs together."""
        error, power = torch.zeros(model.sources), 0.0
        for mixture, voice in self.voices:
            parts = self._split(model, mixture[None].to(self.device))[0].cpu()
            error += (parts - voice).square().sum(dim=(1, 2))
            power += voice.square().sum().item()
        best = int(error.argmin())
        return best, 10 * math.log10(max(power, 1e-12) / max(error[best].item(), 1e-12))


def mixit_loss(parts: Tensor, references: Tensor, snr_db: float) -> Tensor:
    """Return the negative SNR in dB of two references from the best assignment of parts: (b).

    The errors of all 2^s assignments come from the parts' Gram matrix: they cost next to nothing.

    Args:
        parts: (b s c t) estimates.
        references: (b 2 c t), whose sum was split.
        snr_db: the SNR beyond which nothing is gained.
    """
    parts, references = parts.flatten(2), references.flatten(2)
    choices = torch.tensor(list(itertools.product((0.0, 1.0), repeat=parts.shape[1])))
    choices = choices.to(parts)
    gram = parts @ parts.mT
    with_first, with_second = (parts @ references.mT).unbind(dim=2)
    power = references.square().sum(dim=2).clamp(min=1e-6 * parts.shape[2])

    def ratio(chosen: Tensor, products: Tensor, energy: Tensor) -> Tensor:
        """Error of the sum of chosen parts (a s) relative to a reference: (b a) in dB."""
        summed = torch.einsum("as,bst,at->ba", chosen, gram, chosen)
        error = energy[:, None] - 2 * products @ chosen.T + summed
        return 10 * (error.clamp(min=0) / energy[:, None] + 10 ** (-snr_db / 10)).log10()

    first = ratio(choices, with_first, power[:, 0])
    second = ratio(1 - choices, with_second, power[:, 1])
    return ((first + second) / 2).amin(dim=1)
