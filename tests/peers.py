"""Other separators, trained from scratch on our segments for as long as ours, and their stems.

    pip install openunmix demucs
    python -m tests.peers NAME --data MUSDB18 --minutes 8 --out peers/NAME
    separator evaluate runs/ours/model.safetensors --data MUSDB18 --estimates peers/NAME

NAME is one of

    openunmix  open-unmix's network and loss (Stoeter et al. 2019): three LSTM layers, the mean
               squared error of magnitudes, Adam at 1e-3; the accompaniment is its target.
    unet       a convolutional U-Net of spectrograms with a sigmoid mask and the L1 of magnitudes,
               as Spleeter and vocal-remover have, Adam at 1e-3; written here, five levels.
    htdemucs   Demucs' hybrid transformer (Rouard et al. 2023), the L1 of waves, Adam at 3e-4.

All read the crops that `separator train train/vocals.yaml tiny.yaml` reads, augmented alike. Each
has its own usual loss and rate; none was tuned here.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator import audio
from separator.config import parse
from separator.data.dataset import batches
from separator.data.reader import load_stems
from separator.data.tracks import training_tracks
from separator.dsp.config import STFTConfig
from separator.dsp.overlap_add import overlap_add
from separator.dsp.stft import istft, stft
from separator.train.config import TrainConfig

STFT = STFTConfig(4096, 1024)
OVERLAP_SECONDS = 0.5


class Peer(nn.Module):
    """A network that estimates the accompaniment of waves: (b c t) to (b c t)."""

    lr = 1e-3

    def fit_statistics(self, mixtures: list[Tensor]) -> None:
        """Look at some mixtures before the training."""


class MagnitudePeer(Peer):
    """A network on magnitudes (b c f n), whose answer gets the mixture's phase."""

    def __init__(self, network: nn.Module, error: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.error = network, error

    def forward(self, mixture: Tensor) -> Tensor:
        """Estimate the accompaniment."""
        spectrogram = stft(mixture, STFT)
        magnitude = spectrogram.abs()
        estimate = self.network(magnitude)
        return istft(estimate * spectrogram / magnitude.clamp(min=1e-8), STFT, mixture.shape[-1])

    def loss(self, mixture: Tensor, accompaniment: Tensor) -> Tensor:
        """Compare magnitudes."""
        truth = stft(accompaniment, STFT).abs()
        return self.error(self.network(stft(mixture, STFT).abs()), truth)


class OpenUnmix(MagnitudePeer):
    """open-unmix with its input scaled by statistics of the training songs."""

    def __init__(self) -> None:
        from openunmix.model import OpenUnmix as Network

        network = Network(nb_bins=STFT.bins, nb_channels=2, hidden_size=512, max_bin=1486)
        super().__init__(network, F.mse_loss)

    def fit_statistics(self, mixtures: list[Tensor]) -> None:
        """Set mean and deviation of each bin, up to the highest one that the network reads."""
        values = torch.cat([stft(wave, STFT).abs() for wave in mixtures])
        deviation, mean = torch.std_mean(values, dim=(0, 1, 3))
        used = self.network.nb_bins
        self.network.input_mean.data = -mean[:used]
        self.network.input_scale.data = 1 / deviation[:used].clamp(min=1e-4 * deviation.max())


class UNet(nn.Module):
    """Five strided 5x5 convolutions down and up again, skips concatenated, a sigmoid mask."""

    def __init__(self, width: int = 16, levels: int = 5) -> None:
        super().__init__()
        sizes = [2, *(width << level for level in range(levels))]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for inputs, outputs in itertools.pairwise(sizes):
            layer = nn.Conv2d(inputs, outputs, 5, stride=2, padding=2)
            self.down.append(nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)))
        for level in range(levels, 0, -1):
            inputs = sizes[level] * (1 if level == levels else 2)
            outputs = sizes[level - 1] if level > 1 else width
            layer = nn.ConvTranspose2d(inputs, outputs, 5, stride=2, padding=2, output_padding=1)
            self.up.append(nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU()))
        self.mask = nn.Conv2d(width, 2, 1)

    def forward(self, magnitude: Tensor) -> Tensor:
        """Map magnitudes (b c f n) to masked ones."""
        x = magnitude[:, :, :-1]
        frames = x.shape[-1]
        x = F.pad(x, (0, -frames % 32)).clamp(min=1e-5).log10()
        skips = []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x = skips.pop()
        for layer in self.up:
            x = layer(x)
            if skips:
                x = torch.cat([x, skips.pop()], dim=1)
        mask = F.pad(self.mask(x).sigmoid()[..., :frames], (0, 0, 0, 1), mode="replicate")
        return mask * magnitude


class HTDemucs(Peer):
    """Demucs' hybrid transformer for two sources."""

    lr = 3e-4

    def __init__(self, seconds: float) -> None:
        super().__init__()
        from demucs.htdemucs import HTDemucs as Network

        self.network = Network(["accompaniment", "vocals"], segment=seconds)

    def forward(self, mixture: Tensor) -> Tensor:
        """Estimate the accompaniment."""
        return self.network(mixture)[:, 0]

    def loss(self, mixture: Tensor, accompaniment: Tensor) -> Tensor:
        """Compare the waves of both sources."""
        truth = torch.stack([accompaniment, mixture - accompaniment], dim=1)
        return F.l1_loss(self.network(mixture), truth)


def make(name: str, seconds: float) -> Peer:
    """Make one of the peers for crops of so many seconds."""
    if name == "openunmix":
        return OpenUnmix()
    return MagnitudePeer(UNet(), F.l1_loss) if name == "unet" else HTDemucs(seconds)


def train(peer: Peer, config: TrainConfig, minutes: float) -> int:
    """Train for so many minutes of this process's CPU time; returns the steps."""
    tracks, _ = training_tracks(config.data)
    stream = batches(tracks, config.data, config.rate, config.seed)
    peer.fit_statistics([next(stream).mixture for _ in range(10)])
    optimizer = torch.optim.Adam(peer.parameters(), lr=peer.lr)
    end, steps = time.process_time() + 60 * minutes, 0
    while time.process_time() < end:
        batch = next(stream)
        loss = peer.loss(batch.mixture, batch.stems[:, :-1].sum(dim=1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(peer.parameters(), 5.0)
        optimizer.step()
        steps += 1
        if steps % 20 == 0:
            print(f"step {steps}: loss {loss.item():.4g}", flush=True)
    return steps


@torch.no_grad()
def write(peer: Peer, config: TrainConfig, folder: Path) -> None:
    """Write the stems of the validation songs, in a folder for each."""
    peer.eval()
    _, tracks = training_tracks(config.data)
    chunk = round(config.data.segment_seconds * config.rate)
    for track in tracks:
        mixture = torch.stack(list(load_stems(track, config.rate).values())).sum(dim=0)

        def estimate_of(chunks: np.ndarray) -> np.ndarray:
            return peer(torch.from_numpy(chunks)).cpu().numpy()

        overlap = round(OVERLAP_SECONDS * config.rate)
        pieces = overlap_add([mixture.numpy()], estimate_of, chunk, overlap)
        estimate = torch.from_numpy(np.concatenate(list(pieces), axis=-1))
        (folder / track.name).mkdir(parents=True, exist_ok=True)
        for stem, wave in (("accompaniment", estimate), ("vocals", mixture - estimate)):
            with audio.Writer(folder / track.name / f"{stem}.wav", config.rate, 2) as writer:
                writer.write(wave)


def main() -> None:
    """Train one peer and write its stems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=["openunmix", "unet", "htdemucs"])
    parser.add_argument("--data", required=True, help="songs with stems, as in data.roots")
    parser.add_argument("--minutes", type=float, default=8.0, help="CPU time of the training")
    parser.add_argument("--out", type=Path, required=True, help="folder for the stems")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    torch.manual_seed(words.seed)
    config = parse(
        TrainConfig,
        ["train/vocals.yaml", "tiny.yaml", f'data.roots=["{words.data}"]', "data.workers=0"],
        "train",
    )
    peer = make(words.name, config.data.segment_seconds)
    steps = train(peer, config, words.minutes)
    write(peer, config, words.out)
    print(f"{words.out}: {steps} steps in {words.minutes:g} CPU minutes")


if __name__ == "__main__":
    main()
