"""Cluster labels: features, clusters and metrics against numpy, sklearn and hand calculation."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.dsp.config import STFTConfig
from separator.dsp.stft import normalise, stft
from separator.engine.model_file import export
from separator.errors import SeparatorError
from separator.models.build import describe
from separator.models.config import ModelConfig
from separator.models.frame_transformer import FrameTransformer
from separator.pretrain.masking.config import MaskConfig
from separator.pretrain.masking.corruption import KINDS, Corrupted, corrupt
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.objectives.auxiliary.cluster_labels import LabelConfig
from separator.pretrain.objectives.clusters import (
    Labeller,
    Spectrum,
    cluster_metrics,
    extractor,
    fit_labels,
)
from separator.pretrain.objectives.label_head import (
    LabelHead,
    ignore_outside,
    in_groups,
    masked_groups,
    unigram_entropy,
)
from tests.toys import seeded

SMALL = STFTConfig(n_fft=256, hop=128)
RATE = 8000
MASK, NOISE, OTHER, KEPT = map(KINDS.index, ("mask", "noise", "mix", "keep"))


def blobs(clusters: int, each: int, features: int = 40) -> Tensor:
    """Rows around distinct centres, of very different units in each dimension, and shifted."""
    centres = 6 * torch.randn(clusters, 1, features, generator=seeded(1))
    rows = centres + torch.randn(clusters, each, features, generator=seeded(2))
    return rows.flatten(0, 1) * torch.logspace(-3, 3, features) + 7


def noises(crops: int, seconds: float = 1.0) -> Tensor:
    """(b c t) noise whose filter and level change every quarter of a second."""
    parts = int(4 * seconds)
    wave = torch.randn(crops, 2, parts, RATE // 4, generator=seeded(3))
    colour = torch.rand(crops, 1, parts, 1, generator=seeded(4)) * 1.9 - 0.95
    wave = wave[..., 1:] + colour * wave[..., :-1]
    return F.pad(wave, (1, 0)).flatten(2) * 0.1


# what is clustered


def numpy_mel(bins: int, bands: int, top: float) -> np.ndarray:
    """(f k) triangles between points that are equally far apart in mel (HTK)."""
    frequency = np.linspace(0, RATE / 2, bins)
    points = np.linspace(0, 2595 * np.log10(1 + top / 700), bands + 2)
    points = 700 * (10 ** (points / 2595) - 1)
    out = np.zeros((bins, bands))
    for band in range(bands):
        low, peak, high = points[band : band + 3]
        for place, hertz in enumerate(frequency):
            rise, fall = (hertz - low) / (peak - low), (high - hertz) / (high - peak)
            out[place, band] = max(0.0, min(rise, fall))
    return out


def test_features_are_numpys():
    spectrogram = stft(noises(2), SMALL)
    out = Spectrum(SMALL, RATE, 12)(spectrogram)
    power = spectrogram.abs().double().numpy() ** 2
    mel = numpy_mel(129, 8, RATE / 2)
    assert out.shape == (2, 64 // 12, 2 * 2 * 8)
    for crop in range(2):
        bands = np.log(np.array([mel.T @ power[crop, c] for c in range(2)]))  # (c k n)
        bands -= bands.mean()
        for group in range(64 // 12):
            part = bands[:, :, 12 * group : 12 * (group + 1)].reshape(16, 12)
            expected = np.concatenate([part.mean(1), part.std(1)])
            np.testing.assert_allclose(out[crop, group], expected, rtol=1e-3, atol=1e-3)


def test_complex_and_magnitudes_are_the_same():
    spectrogram, extract = stft(noises(2), SMALL), Spectrum(SMALL, RATE, 12)
    torch.testing.assert_close(extract(spectrogram), extract(spectrogram.abs()))


@pytest.mark.parametrize("n_fft", [16, 64, 512, 1024, 2048, 4096])
@pytest.mark.parametrize("rate", [8000, 44100, 48000])
def test_no_band_is_empty(n_fft: int, rate: int):
    assert (Spectrum(STFTConfig(n_fft=n_fft, hop=n_fft // 4), rate, 4).mel.sum(0) > 0).all()


def test_the_level_changes_no_label():
    waves, config = noises(40), LabelConfig(clusters=20, group=8)
    extract = extractor(config, SMALL, RATE)
    labeller = Labeller(extract.features, 20)
    labels = fit_labels(labeller, extract, [waves], config)
    for gain in (4.0, 0.37):
        torch.testing.assert_close(labeller(extract(stft(gain * waves, SMALL))), labels)
    louder = waves.clone()
    louder[:, :, : RATE // 2] *= 30  # within a crop, level does tell
    assert (labeller(extract(stft(louder, SMALL))) != labels).float().mean() > 0.1


def test_silence_is_finite():
    waves = torch.zeros(3, 2, RATE)
    waves[1, 0, :2000] = noises(1)[0, 0, :2000]
    assert Spectrum(SMALL, RATE, 8)(stft(waves, SMALL)).isfinite().all()


def test_crops_shorter_than_a_group_are_refused():
    with pytest.raises(SeparatorError, match=r"labels\.group: 65 frames, but a crop has 64"):
        Spectrum(SMALL, RATE, 65)(stft(noises(1), SMALL))


# clusters


def test_labels_are_sklearns():
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = torch.randn(3000, 100, generator=seeded()) @ torch.randn(100, 100, generator=seeded(1))
    labeller = Labeller(100, 30)
    labeller.fit(rows)
    kmeans = MiniBatchKMeans(
        *(30,), n_init=5, batch_size=10_000, max_no_improvement=100, reassignment_ratio=0.0,
        random_state=0,
    )  # fmt: skip
    pipeline = make_pipeline(StandardScaler(), PCA(64, random_state=0), kmeans)
    pipeline.fit(rows[:2500].numpy())
    labeller.fit(rows[:2500])
    expected = pipeline.predict(rows.numpy())
    found = labeller(rows.unflatten(0, (30, 100)))
    assert found.shape == (30, 100) and len(np.unique(expected)) == 30
    agreeing = (found.flatten().numpy() == expected).mean()
    assert agreeing > 0.999, agreeing  # of the 500 new ones too; rounding can turn a tie


def test_blobs_are_found_whatever_their_units():
    labeller = Labeller(40, 10)
    labeller.fit(blobs(10, 50))
    labels = labeller(blobs(10, 50).unflatten(0, (10, 50)))
    assert (labels == labels[:, :1]).all()
    assert len(labels[:, 0].unique()) == 10


def test_a_constant_feature_does_no_harm():
    rows = blobs(5, 20)
    rows[:, 3] = 2.0
    labeller = Labeller(40, 5)
    labeller.fit(rows)
    assert all(value.isfinite().all() for value in labeller.state_dict().values())
    assert len(labeller(rows).unique()) == 5


def test_a_checkpoint_holds_all_that_was_fitted(tmp_path: Path):
    rows, old, new = blobs(8, 20), Labeller(40, 8), Labeller(40, 8)
    old.fit(rows)
    torch.save(old.state_dict(), tmp_path / "state.pt")
    assert not torch.equal(new(rows), old(rows))
    new.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(new(rows), old(rows)) and len(new(rows).unique()) == 8


def test_the_same_crops_give_the_same_clusters_and_no_more_are_read():
    config = LabelConfig(clusters=6, group=8, crops=10)
    extract, waves = extractor(config, SMALL, RATE), noises(12)

    def endless():
        yield from waves.split(4)
        raise AssertionError("more crops than asked for")

    states, labels = [], []
    for crops in (endless(), [waves[:10]]):
        labeller = Labeller(extract.features, 6)
        labels.append(fit_labels(labeller, extract, crops, config))
        states.append(labeller.state_dict())
    assert labels[0].shape == (10, 64 // 8) and torch.equal(*labels)
    torch.testing.assert_close(*states, rtol=0, atol=1e-6)


def test_too_few_groups_are_refused():
    config = LabelConfig(clusters=50, group=32)
    extract = extractor(config, SMALL, RATE)
    with pytest.raises(SeparatorError, match=r"labels\.clusters: 50 .* at least 50 .* are 6;"):
        fit_labels(Labeller(extract.features, 50), extract, [noises(3)], config)


def tiny() -> ModelConfig:
    return ModelConfig(
        channels=(2, 4), convs=1, encoder_blocks=(0, 1), decoder_blocks=(0, 1), ffn_dim=(0, 32)
    )


def test_the_second_iteration_clusters_a_models_features(tmp_path: Path):
    model = FrameTransformer(tiny(), SMALL.bins).eval()
    path = tmp_path / "model.safetensors"
    export(path, model.state_dict(), describe(tiny(), SMALL, RATE))
    config = LabelConfig(clusters=5, group=10, source="deep", model=str(path))
    extract = extractor(config, SMALL, RATE)
    spectrogram = stft(noises(3), SMALL)
    deep = model.features(normalise(spectrogram.abs(), SMALL)[0]).bottleneck
    expected = torch.stack([deep[:, i : i + 10].mean(1) for i in range(0, 60, 10)], dim=1)
    torch.testing.assert_close(extract(spectrogram), expected)
    labeller = Labeller(extract.features, 5)
    labels = fit_labels(labeller, extract, [noises(30)], config)
    assert labels.shape == (30, 6) and len(labels.unique()) == 5
    assert not any(p.requires_grad for p in extract.parameters())
    with pytest.raises(SeparatorError, match=r"labels\.model"):
        extractor(config, SMALL, 44100)
    with pytest.raises(SeparatorError, match=r"labels\.model"):
        extractor(config, STFTConfig(n_fft=256, hop=64), RATE)


# which groups count


def of_kinds(kinds: Tensor) -> Corrupted:
    return Corrupted(torch.empty(0), kinds, PatchGrid(*kinds.shape[2:], 1, 4))


def corrupted(text: str, bins: int = 1) -> Corrupted:
    """One letter a frame: m(ask), n(oise), o(ther), k(ept), s(eparator), or heard."""
    kinds = {"m": MASK, "n": NOISE, "o": OTHER, "k": KEPT, "s": -2}
    row = torch.tensor([kinds.get(letter, -1) for letter in text])
    return of_kinds(row.expand(1, 1, bins, -1))


@pytest.mark.parametrize("bins", [1, 5])
def test_hidden_groups_by_hand(bins: int):
    text = "mmmm mmm. mm.. nnno kkkk .... kkmm m"
    out = masked_groups(corrupted(text.replace(" ", ""), bins), 4)
    assert out.tolist() == [[True, True, False, True, False, False, False]]


def test_of_single_cells_the_share_counts():
    kinds = torch.full((1, 1, 4, 4), -1)
    kinds[0, 0, :2], kinds[0, 0, 2, 0] = MASK, NOISE
    assert masked_groups(of_kinds(kinds), 4).tolist() == [[True]]  # 9 of 16
    kinds[0, 0, 2, 0] = -1
    assert masked_groups(of_kinds(kinds), 4).tolist() == [[False]]


def test_groups_at_the_separator_have_no_label():
    labels = torch.tensor([[5, 6, 7, 8]])
    where = corrupted("mmmm" + "mmms" + "ssss" + "....")
    assert ignore_outside(labels, where, 4).tolist() == [[5, -1, -1, 8]]
    assert labels.tolist() == [[5, 6, 7, 8]]


# the loss


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_loss_is_cross_entropy_by_hand(weight: float):
    config = LabelConfig(clusters=5, group=3, unmasked_weight=weight)
    head, deep = LabelHead(4, config), torch.randn(2, 11, 4, generator=seeded())
    nn.init.normal_(head.norm.weight, generator=seeded(1))
    labels = torch.tensor([[0, 4, 2], [-1, 3, 3]])
    hidden = torch.tensor([[True, False, True], [True, False, True]])
    sums = {True: [], False: []}
    right = []
    for crop in range(2):
        for group in range(3):
            label = labels[crop, group].item()
            if label < 0:
                continue
            mean = deep[crop, 3 * group : 3 * group + 3].mean(0)
            mean = (mean - mean.mean()) / (mean.var(correction=0) + 1e-5).sqrt()
            mean = mean * head.norm.weight + head.norm.bias
            guess = head.project.weight @ mean + head.project.bias
            lengths = guess.norm() * head.embeddings.norm(dim=1)
            logits = head.embeddings @ guess / lengths / 0.1
            error = math.log(sum(math.exp(x) for x in logits.tolist())) - logits[label].item()
            sums[hidden[crop, group].item()].append(error)
            if hidden[crop, group]:
                right.append(logits.argmax().item() == label)
    loss, scalars = head.loss(deep, labels, hidden)
    masked, unmasked = (sum(values) / len(values) for values in (sums[True], sums[False]))
    assert len(sums[True]) == 3 and len(sums[False]) == 2
    assert loss.item() == pytest.approx(masked + weight * unmasked, rel=1e-5)
    assert scalars["labels/cross_entropy"].item() == pytest.approx(masked, rel=1e-5)
    assert scalars["labels/perplexity"].item() == pytest.approx(math.exp(masked), rel=1e-5)
    assert scalars["labels/accuracy"].item() == pytest.approx(sum(right) / 3)
    assert not any(value.requires_grad for value in scalars.values())


def test_the_gradient_comes_from_hidden_groups_only():
    head, deep = LabelHead(6, LabelConfig(clusters=4, group=2)), torch.randn(1, 8, 6)
    deep.requires_grad_()
    hidden, labels = torch.tensor([[True, False, True, False]]), torch.tensor([[1, 1, -1, 2]])
    head.loss(deep, labels, hidden)[0].backward()
    assert (deep.grad[0, :2] != 0).any(dim=1).all()
    assert deep.grad[0, 2:].abs().max() == 0


@pytest.mark.parametrize("labels", [[[1, 2]], [[-1, -1]]])
def test_nothing_hidden_is_zero_with_a_graph(labels: list):
    head, deep = LabelHead(6, LabelConfig(clusters=4, group=4)), torch.randn(1, 8, 6)
    deep.requires_grad_()
    loss, scalars = head.loss(deep, torch.tensor(labels), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and deep.grad.abs().max() == 0
    assert torch.stack(list(scalars.values())).isfinite().all()


@pytest.mark.parametrize(
    "words",
    [
        {"clusters": 1},
        {"group": 0},
        {"crops": 0},
        {"unmasked_weight": -0.1},
        {"source": "mfcc"},
        {"model": "x.safetensors"},
        {"source": "deep"},
        {"weight": -1.0},
        {"weight": ((5, 0.0), (2, 1.0))},
    ],
)
def test_settings_that_make_no_sense_are_refused(words: dict):
    with pytest.raises(SeparatorError, match=r"^[a-z_]+: "):
        LabelConfig(**words)


# cluster_metrics


def test_entropy_by_hand():
    assert unigram_entropy(torch.tensor([3, 3, 3])).item() == 0
    assert unigram_entropy(torch.tensor([[0, 9], [2, 5]])).item() == pytest.approx(math.log(4))
    expected = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert unigram_entropy(torch.tensor([1, -1, 1, 7, -1, 1])).item() == pytest.approx(expected)
    assert unigram_entropy(torch.tensor([-1])).item() == 0


def scalars(labels: list, songs: list, clusters: int) -> list[float]:
    out = cluster_metrics(torch.tensor(labels), torch.tensor(songs), clusters)
    return [out[f"labels/{key}"] for key in ("cluster_perplexity", "dead", "leakage", "flips")]


def test_health_by_hand():
    half = [0, 1, 2, 3]
    assert scalars([half, half], [7, 9], 4) == pytest.approx([4, 0, 0, 1])  # all alike
    assert scalars([[2] * 4, [2] * 4], [7, 9], 4) == pytest.approx([1, 0.75, 0, 0], abs=1e-9)
    assert scalars([[2] * 4, [1] * 4], [7, 9], 4) == pytest.approx([2, 0.5, 1, 0])  # the song
    assert scalars([half], [10**12], 8) == pytest.approx([4, 0.5, 0, 1])  # one song tells nothing
    # 0 half of the time in the first song, 1 else: ln 2 - (5/8 H(1/5)): by hand
    binary = -0.2 * math.log(0.2) - 0.8 * math.log(0.8)
    told = (math.log(2) - 0.625 * binary - 0) / math.log(2)
    perplexity = math.exp(-0.375 * math.log(0.375) - 0.625 * math.log(0.625))
    labels = [[0, 0, 0, 1], [1, 1, 1, 1]]
    assert scalars(labels, [0, 1], 2) == pytest.approx([perplexity, 0, told, 1 / 6])


def test_uncounted_groups_are_left_out_of_health():
    # songs have {0, 0, 1} and {1, 1, 0}; of neighbours (0, 1), (1, 1), (1, 0) are known
    told = 1 + (2 * math.log(2 / 3) + math.log(1 / 3)) / 3 / math.log(2)
    labels = [[0, -1, 0, 1], [-1, 1, 1, 0]]
    assert scalars(labels, [0, 1], 2) == pytest.approx([2, 0, told, 2 / 3])


def test_chance_alone_leaks_what_is_said():
    labels = torch.randint(64, (40, 16), generator=seeded())
    out = cluster_metrics(labels, torch.arange(40) // 4, 64)
    assert 0.15 < out["labels/leakage"] < 0.3
    assert out["labels/leakage"] == pytest.approx(out["labels/leakage_chance"], abs=0.03)


# whether labels can be told from what is around them


def sounds(crops: int, longest: int, generator: torch.Generator) -> Tensor:
    """(b c f n) magnitudes of six sounds, each held for 1 to `longest` groups of 4 frames."""
    colours = 8 * torch.rand(6, 2, 16, 1, generator=seeded(5))
    colours = colours.repeat_interleave(9, dim=2)[:, :, :129].exp()
    lengths = torch.randint(1, longest + 1, (crops, 32), generator=generator)
    kinds = torch.randint(6, (crops, 32), generator=generator)
    rows = [k.repeat_interleave(n)[:32] for k, n in zip(kinds, lengths, strict=True)]
    frames = colours[torch.stack(rows).repeat_interleave(4, dim=1)][..., 0]  # (b n c f)
    noise = torch.rand(frames.shape, generator=generator) + 0.5
    return (frames * noise).permute(0, 2, 3, 1)


def gain_over_unigrams(longest: int) -> float:
    """Share by which a head on frozen random features beats the frequencies of held-out labels."""
    config, generator = LabelConfig(clusters=12, group=1), seeded(6)
    magnitude = sounds(140, longest, generator)
    extract = Spectrum(SMALL, RATE, 4)
    labeller = Labeller(extract.features, 12)
    labeller.fit(extract(magnitude[:100]).flatten(0, 1))
    labels = labeller(extract(magnitude))
    mask = MaskConfig(group=4, share=0.25, mask=1.0, noise=0.0)
    seen = corrupt(normalise(magnitude, SMALL)[0], mask, 0, generator)
    hidden = masked_groups(seen, 4)
    random = torch.randn(128, 2 * 129, 17, generator=generator) / 20
    with torch.no_grad():
        deep = F.conv1d(seen.spectrogram.flatten(1, 2), random, padding=8).relu().transpose(1, 2)
        deep = in_groups(deep, 4).mean(2)  # here, so that it is done once
    torch.manual_seed(0)
    head = LabelHead(128, config)
    optimizer = torch.optim.Adam(head.parameters(), 1e-2, weight_decay=1e-3)
    for _ in range(200):
        optimizer.zero_grad()
        head.loss(deep[:100], labels[:100], hidden[:100])[0].backward()
        optimizer.step()
    error, _ = head.loss(deep[100:], labels[100:], hidden[100:])
    return 1 - (error / unigram_entropy(labels[100:][hidden[100:]])).item()


def test_neighbours_tell_what_is_hidden():
    assert gain_over_unigrams(6) > 0.2


def test_what_neighbours_do_not_tell_cannot_be_named():
    assert gain_over_unigrams(1) < 0.02  # or else the features see what is hidden


@pytest.mark.slow
def test_clusters_of_real_music(shared_data: Path):
    from separator import audio

    config, extract = LabelConfig(clusters=64), Spectrum(STFTConfig(), 44100, 16)
    length, crops, songs = 6 * 44100, [], []
    for song, path in enumerate(sorted((shared_data / "songs").glob("*.mp3"))):
        wave = audio.read(path)
        found = wave[:, : wave.shape[1] // length * length].unflatten(1, (-1, length))
        crops += found.transpose(0, 1).split(8)
        songs += [song] * found.shape[1]
    labeller = Labeller(extract.features, 64)
    labels = fit_labels(labeller, extract, crops, config)
    out = cluster_metrics(labels, torch.tensor(songs), 64)
    assert out["labels/cluster_perplexity"] > 32 and out["labels/dead"] < 0.05, out
    # of four songs 16 clusters for each fit to hand: 0.9 has been seen, where 1 is the song itself
    assert out["labels/leakage_chance"] < out["labels/leakage"] < 0.97, out
    assert 0.1 < out["labels/flips"] < 0.9, out
    louder = (0.3 * wave[:, :length])[None]
    assert torch.equal(labeller(extract(stft(louder, extract.stft)))[0], labels[-found.shape[1]])
