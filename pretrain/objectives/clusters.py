"""Clusters of frame groups: their features, k-means, and metrics of the clusters."""

from collections.abc import Iterable

import torch
from einops import rearrange
from torch import Tensor, nn

from separator.dsp.config import STFTConfig
from separator.dsp.stft import normalise, stft
from separator.engine.model_file import load_model
from separator.errors import SeparatorError
from separator.pretrain.objectives.auxiliary.cluster_labels import LabelConfig
from separator.pretrain.objectives.label_head import NO_LABEL, in_groups, unigram_entropy
from separator.torchaudio_import import functional

MEL_BANDS = 64  # of mel, for each channel
MAX_HERTZ = 16_000.0  # lossy files lack what is above: it would separate collections, not sounds
MIN_BAND_POWER = 1e-8  # of a crop's mean power: 80 dB below
DIMENSIONS = 64  # after PCA, at most
CLUSTER_SEED = 0  # of PCA and k-means: the same crops give the same clusters


class Spectrum(nn.Module):
    """Log-mel spectra of frame groups: mean and deviation over the group's frames.

    A crop's mean is subtracted, so that the clusters are not those of loudness.

    Args:
        transform: of the spectrograms to come.
        rate: in hertz.
        group: frames in a group.
        channels: of audio.

    Attributes:
        features: d of the output.
    """

    def __init__(self, transform: STFTConfig, rate: int, group: int, channels: int = 2) -> None:
        super().__init__()
        self.stft, self.group = transform, group
        # with small transforms some bands were empty
        bands = max(1, min(MEL_BANDS, transform.bins // 16))
        self.features = 2 * channels * bands
        highest = min(rate / 2, MAX_HERTZ)
        mel = functional().melscale_fbanks(transform.bins, 0.0, highest, bands, rate)
        self.register_buffer("mel", mel, persistent=False)

    @torch.no_grad()
    def forward(self, spectrogram: Tensor) -> Tensor:
        """Compute log-mel features of frame groups.

        Args:
            spectrogram: (b c f n), complex or linear magnitudes.

        Returns:
            (b m d): mean and standard deviation of each group's log-mel energies, without loudness.
        """
        with torch.autocast(spectrogram.device.type, enabled=False):
            power = spectrogram.abs().float().square()
            mel = torch.einsum("bcfn,fk->bnck", power, self.mel)
        floor = MIN_BAND_POWER * mel.mean(dim=(1, 2, 3), keepdim=True)
        energy = mel.maximum(floor).clamp(min=1e-20).log()
        energy = energy - energy.mean(dim=(1, 2, 3), keepdim=True)
        groups = in_groups(rearrange(energy, "b n c k -> b n (c k)"), self.group)
        return torch.cat([groups.mean(2), groups.std(2, correction=0)], dim=-1)


class BackboneFeatures(nn.Module):
    """Deep features of frame groups, by a pretrained model: HuBERT's second iteration.

    Args:
        path: of the model's file.
        transform: of the spectrograms to come, which must be the model's.
        rate: in hertz, likewise.
        group: frames in a group.

    Attributes:
        features: d of the output.

    Raises:
        SeparatorError: no such file, or a model of other spectrograms.
    """

    def __init__(self, path: str, transform: STFTConfig, rate: int, group: int) -> None:
        super().__init__()
        self.stft, self.group = transform, group
        self.model, seen, description = load_model(path)
        if seen != transform or description["rate"] != rate:
            raise SeparatorError(
                f"labels.model: {path} was made with {seen} at {description['rate']} Hz; give this "
                "run the same stft and rate, or another model"
            )
        self.model.eval().requires_grad_(False)
        self.features = self.model.bottleneck_features

    @torch.no_grad()
    def forward(self, spectrogram: Tensor) -> Tensor:
        """Compute a model's bottleneck features of frame groups.

        Args:
            spectrogram: (b c f n), complex or linear magnitudes.

        Returns:
            (b m d): the mean over the frames of each group.
        """
        target, _ = normalise(spectrogram.abs(), self.stft)
        with torch.autocast(spectrogram.device.type, enabled=False):
            bottleneck = self.model.features(target).bottleneck
        return in_groups(bottleneck.float(), self.group).mean(2)


def extractor(config: LabelConfig, transform: STFTConfig, rate: int) -> Spectrum | BackboneFeatures:
    """Make the extractor of the features that are clustered.

    Args:
        config: `source` names the features.
        transform: of the spectrogram.
        rate: sample rate in hertz.
    """
    if config.source == "deep":
        return BackboneFeatures(config.model, transform, rate, config.group)
    return Spectrum(transform, rate, config.group)


class Labeller(nn.Module):
    """Nearest centroids of standardised, projected features.

    All fitted values are buffers, so a checkpoint restores them.

    Args:
        features: d of the clustered features.
        clusters: number of centroids.
    """

    def __init__(self, features: int, clusters: int) -> None:
        super().__init__()
        inner = min(DIMENSIONS, features)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.zeros(features))
        self.register_buffer("projection", torch.zeros(features, inner))
        self.register_buffer("centroids", torch.zeros(clusters, inner))

    def fit(self, features: Tensor) -> None:
        """Find the clusters: standardise, PCA, mini-batch k-means; the same input, the same result.

        Args:
            features: (l d), at least as many rows as clusters and as dimensions kept.

        Raises:
            SeparatorError: too few rows.
        """
        from sklearn.cluster import MiniBatchKMeans
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        clusters, inner = self.centroids.shape
        if len(features) < max(clusters, inner):
            raise SeparatorError(
                f"labels.clusters: {clusters} of {inner} dimensions need at least "
                f"{max(clusters, inner)} frame groups, but there are {len(features)}; "
                "raise labels.crops, or use fewer clusters"
            )
        rows = features.float().cpu().numpy()
        scaler, pca = StandardScaler(), PCA(inner, random_state=CLUSTER_SEED)
        pca.fit(scaler.fit_transform(rows))
        self.mean.copy_(torch.from_numpy(scaler.mean_))
        self.scale.copy_(torch.from_numpy(scaler.scale_))
        self.projection.copy_(torch.from_numpy(pca.components_.T.copy()))
        kmeans = MiniBatchKMeans(
            clusters,
            n_init=5,
            batch_size=10_000,
            max_no_improvement=100,
            reassignment_ratio=0.0,
            random_state=CLUSTER_SEED,
        )
        kmeans.fit(self.project(features.to(self.mean.device)).cpu().numpy())
        self.centroids.copy_(torch.from_numpy(kmeans.cluster_centers_))

    def project(self, features: Tensor) -> Tensor:
        """Map features to the space of the centroids.

        Args:
            features: (… d).

        Returns:
            (… e).
        """
        with torch.autocast(features.device.type, enabled=False):
            return (features.float() - self.mean) / self.scale @ self.projection

    @torch.no_grad()
    def forward(self, features: Tensor) -> Tensor:
        """Assign features to the nearest centroid.

        Args:
            features: (b m d).

        Returns:
            Labels (b m), integers from 0 to clusters - 1.
        """
        place = self.project(features)
        with torch.autocast(features.device.type, enabled=False):
            distance = self.centroids.square().sum(-1) - 2 * place @ self.centroids.T
        return distance.argmin(-1)


def fit_labels(
    labeller: Labeller,
    extract: Spectrum | BackboneFeatures,
    crops: Iterable[Tensor],
    config: LabelConfig,
) -> Tensor:
    """Fit a labeller on the first `config.crops` crops, and return their labels.

    One batch of audio is held at a time. What is kept is 4 d bytes for each frame group, and four
    times that again while the clusters are sought: for 256 crops of 6 s some 20 MB.

    Args:
        labeller: filled in place.
        extract: from `extractor`, on the device where it is to compute.
        crops: batches of waves (b c t), all t alike, at the run's rate, on the device of `extract`;
            may be endless.
        config: how many crops.

    Returns:
        Labels (b m) of all crops, on the labeller's device.

    Raises:
        SeparatorError: too few frame groups for the clusters.
    """
    device, batches, remaining = labeller.mean.device, [], config.crops
    for waves in crops:
        waves = waves[:remaining]
        batches.append(extract(stft(waves, extract.stft)).cpu())
        remaining -= len(waves)
        if remaining <= 0:
            break
    features = torch.cat(batches)
    labeller.fit(features.flatten(0, 1))
    return labeller(features.to(device))


def cluster_metrics(labels: Tensor, songs: Tensor, clusters: int) -> dict[str, float]:
    """Measure how labels are distributed, and how much they depend on the song.

    Args:
        labels: (b m); -1 is left out.
        songs: (b) integers, the song of each crop.
        clusters: number of labels there could be.

    Returns:
        "labels/cluster_perplexity": exp of the entropy; `clusters` where all are used alike.
        "labels/dead": share of the clusters that do not occur.
        "labels/leakage": mutual information of label and song, as a share of the song's entropy;
        0 of a single song. Few groups for many clusters raise it by chance alone, to
        "labels/leakage_chance", its expectation for labels dealt out at random.
        "labels/flips": share of neighbouring groups with different labels.
    """
    from sklearn.metrics import mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information

    labels = labels.cpu()
    labelled = labels != NO_LABEL
    songs = songs.cpu().unique(return_inverse=True)[1]
    used, where = labels[labelled], songs[:, None].expand_as(labels)[labelled]
    (left, right), (before, after) = ((x[:, :-1], x[:, 1:]) for x in (labels, labelled))
    pairs = before & after
    leakage = chance = 0.0
    entropy = unigram_entropy(where).item()
    if entropy:
        table = contingency_matrix(where.numpy(), used.numpy(), sparse=True)
        leakage = mutual_info_score(None, None, contingency=table) / entropy
        chance = expected_mutual_information(table, len(used)) / entropy
    return {
        "labels/cluster_perplexity": unigram_entropy(used).exp().item(),
        "labels/dead": 1 - len(used.unique()) / clusters,
        "labels/leakage": float(leakage),
        "labels/leakage_chance": float(chance),
        "labels/flips": ((left != right) & pairs).sum().item() / max(1, pairs.sum().item()),
    }
