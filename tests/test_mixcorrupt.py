"""Patches mixed with isolated voices, and their error on waves, beside numpy."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from separator import audio
from separator.config import parse
from separator.data.corpus import write_corpus
from separator.errors import SeparatorError
from separator.pretrain.batch import Example, make_example
from separator.pretrain.config import PretrainConfig
from separator.pretrain.masking.corruption import KINDS
from separator.pretrain.objectives import Prediction
from separator.pretrain.objectives.auxiliary.waveform import Wave, WaveConfig
from separator.pretrain.task import PretrainTask
from tests.toys import MICRO, seeded

N_FFT, HOP, RATE = 256, 128, 8000
MIX, VOICE = KINDS.index("mix"), KINDS.index("voice")
NOTHING_ELSE = ["mask.mask=0.3", "mask.mix=0.6", "mask.clean_share=0", "mask.span=4"]


def config(*words: str) -> PretrainConfig:
    preset = ["pretrain/mixcorrupt.yaml", *MICRO, "data.roots=[x]", "mask.voices=[x]"]
    return parse(PretrainConfig, [*preset, *NOTHING_ELSE, *words], "pretrain")


def example(*words: str, batch: int = 6, seed: int = 0) -> tuple[Example, Tensor, Tensor]:
    """Noise as the songs and voices a third as loud: the example, and both waves."""
    waves = 0.1 * torch.randn(batch, 2, RATE, generator=seeded(seed))
    voices = 0.03 * torch.randn(batch, 2, RATE, generator=seeded(seed + 1))
    asked = config(*words)
    made = make_example(waves, asked, asked.mask, 0, seeded(seed + 2), voices=voices)
    return made, waves, voices


def spectrogram_of(wave: np.ndarray) -> np.ndarray:
    """(c t) to complex (c f n), frame by frame."""
    padded = np.pad(wave, [(0, 0), (N_FFT // 2, N_FFT // 2 + -wave.shape[-1] % HOP)])
    window = np.hanning(N_FFT + 1)[:-1]
    starts = range(0, padded.shape[-1] - N_FFT + 1, HOP)
    frames = [np.fft.rfft(padded[:, s : s + N_FFT] * window) for s in starts]
    return np.stack(frames, axis=-1)


def wave_of(spectrogram: np.ndarray) -> np.ndarray:
    """Complex (c f n) to (c t): windowed frames, added and divided by the squared windows."""
    window, frames = np.hanning(N_FFT + 1)[:-1], spectrogram.shape[-1]
    out = np.zeros((len(spectrogram), (frames - 1) * HOP + N_FFT))
    weight = np.zeros(out.shape[-1])
    for n in range(frames):
        place = slice(n * HOP, n * HOP + N_FFT)
        out[:, place] += np.fft.irfft(spectrogram[:, :, n]) * window
        weight[place] += window**2
    inside = slice(N_FFT // 2, -N_FFT // 2)
    return out[:, inside] / weight[inside]


@pytest.mark.parametrize("words", [[], ["mask.band=16", "mask.strategy=uniform", "mask.group=4"]])
def test_patches_of_the_kind_hold_the_voice_and_no_others(words: list[str]):
    made, waves, voices = example(*words)
    kinds = made.corrupted.kinds.expand_as(made.target)
    assert (kinds == VOICE).any() and (kinds == MIX).any()
    for item in range(len(waves)):
        song = np.abs(spectrogram_of(waves[item].numpy()))
        sung = np.abs(spectrogram_of((waves + voices)[item].numpy()))
        peak = song.max()
        expected = np.sqrt(np.minimum(np.maximum(song, sung), peak) / peak)
        held = (kinds[item] == VOICE).numpy()
        seen = made.corrupted.spectrogram[item].numpy()
        np.testing.assert_allclose(seen[held], expected[held], rtol=1e-3, atol=1e-4)
        others = ~held & np.asarray(~made.corrupted.chosen.expand_as(made.target)[item])
        np.testing.assert_allclose(seen[others], np.sqrt(song / peak)[others], rtol=1e-3, atol=1e-4)


def test_the_share_of_the_mixed_patches_that_get_a_voice():
    more = ["mask.strategy=uniform", "mask.voice_share=0.25", "mask.share=0.5"]
    kinds = example(*more, batch=200)[0].corrupted.kinds
    voices, songs = ((kinds == kind).sum().item() for kind in (VOICE, MIX))
    assert voices / (voices + songs) == pytest.approx(0.25, abs=0.02)
    assert (voices + songs) / (kinds >= 0).sum().item() == pytest.approx(0.6, abs=0.02)
    assert not (example(*more, "mask.voice_share=1")[0].corrupted.kinds == MIX).any()


def test_without_voices_other_songs_take_all_mixed_patches():
    asked = config("mask.voices=[]")
    assert asked.mask.kinds == {"mask", "mix", "keep"}
    waves = torch.randn(6, 2, RATE, generator=seeded())
    made = make_example(waves, asked, asked.mask, 0, seeded())
    assert made.mixed.keys() == {"mix"} and not (made.corrupted.kinds == VOICE).any()


def test_crops_of_two_halves_keep_the_level_of_their_voices():
    """`next` changes the level of crops."""
    made, *_ = example("next.weight=0.1", "next.token=4", "mask.group=1")
    assert made.target.shape[-1] < 40  # crops of half a second
    added = (made.mixed["voice"] - made.spectrogram).abs().square().mean((1, 2, 3)).sqrt()
    song = made.spectrogram.abs().square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(added / song, torch.full((6,), 0.3), rtol=0.1, atol=0)


def wave_loss(made: Example, restored: Tensor, *words: str) -> Tensor:
    objective = Wave(WaveConfig(weight=1.0), config(*words))
    return objective.loss(None, made, Prediction(None, restored, 0, seeded()))[0]


@pytest.mark.parametrize("words", [[], ["mask.band=16", "mask.strategy=uniform", "mask.group=4"]])
def test_the_error_on_waves_is_numpys(words: list[str]):
    """Of the wave whose chosen patches are restored, with the mixture's phase, the rest true."""
    made, waves, voices = example(*words)
    mask = torch.rand(made.target.shape, generator=seeded(9))
    loss = wave_loss(made, mask * made.corrupted.spectrogram)
    chosen = made.corrupted.chosen.expand_as(made.target).numpy()
    kinds = made.corrupted.kinds.expand_as(made.target).numpy()
    expected = []
    for item in range(len(waves)):
        song = spectrogram_of(waves[item].numpy())
        phase = np.angle(song)
        sung = spectrogram_of((waves + voices)[item].numpy())
        phase = np.where(kinds[item] == VOICE, np.angle(sung), phase)
        other = made.mixed["mix"][item].numpy()  # its level is drawn
        phase = np.where(kinds[item] == MIX, np.angle(other), phase)
        masked = (mask * made.corrupted.spectrogram)[item].numpy() ** 2 * np.abs(song).max()
        restored = np.where(chosen[item], masked * np.exp(1j * phase), song)
        error = wave_of(restored) - wave_of(song)
        truth = wave_of(np.where(chosen[item], song, 0))
        expected.append(10 * np.log10(np.square(error).sum() / np.square(truth).sum() + 1e-3))
    assert loss.item() == pytest.approx(np.mean(expected), abs=0.01)


def test_what_is_restored_has_no_error():
    made, *_ = example("mask.mask=1", "mask.mix=0", "mask.voices=[]")
    assert wave_loss(made, made.target).item() == pytest.approx(-30, abs=0.01)
    assert wave_loss(made, 0 * made.target).item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("words", [[], ["mask.band=16", "mask.strategy=uniform", "mask.group=4"]])
def test_the_gradient_comes_from_chosen_patches_alone(words: list[str]):
    made, *_ = example(*words)
    restored = (0.5 * made.corrupted.spectrogram).requires_grad_()
    wave_loss(made, restored).backward()
    chosen = made.corrupted.chosen.expand_as(restored)
    assert (restored.grad[chosen] != 0).float().mean() > 0.99
    assert not restored.grad[~chosen].any()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A corpus of five songs, and eight voices: sines of 1000 Hz, each of its own phase."""
    voices = tmp_path_factory.mktemp("voices")
    turn = 2 * torch.pi * 1000 * torch.arange(RATE) / RATE
    for index in range(8):
        with audio.Writer(voices / f"voice{index}.wav", RATE, 1) as writer:
            writer.write(0.3 * torch.sin(turn + 0.7 * index)[None])
    corpus = write_corpus(tmp_path_factory.mktemp("corpus"), songs=5, seconds=4.0)
    return corpus, voices


def task_of(folders: tuple[Path, Path], *words: str) -> PretrainTask:
    corpus, voices = folders
    roots = [f"data.roots=[{corpus}]", f"mask.voices=[{voices}]", "data.valid_share=0.3"]
    return PretrainTask(config(*roots, "valid_crops=4", *words))


def test_voices_are_read_beside_the_songs_and_change_none_of_these(folders: tuple[Path, Path]):
    alone = task_of(folders, "mask.voices=[]")
    both = zip(task_of(folders).batches(0), alone.batches(0), strict=True)
    for batch, plain in islice(both, 3):
        assert batch.names == ("mixture", "vocals") and plain.names == ("mixture",)
        assert torch.equal(batch.stems[:, :1], plain.stems)
        power = torch.fft.rfft(batch.stems[:, 1]).abs().square()
        assert (power[..., 700:1300].sum(-1) > 0.95 * power.sum(-1)).all()  # at any speed


def test_voices_are_of_the_training_part_and_any_meets_any_song(folders: tuple[Path, Path]):
    plain = [f"data.augment.{key}=0" for key in ("gain_db", "swap", "polarity", "speed", "remix")]
    task = task_of(folders, "data.batch=8", *plain)
    assert {track.split for track in task.voices} == {"train"} and len(task.voices) < 8
    pairs = set()
    for batch in islice(task.batches(0), 8):
        phases = torch.fft.rfft(batch.stems[:, 1, 0])[:, 1000].angle() % (2 * torch.pi)
        voices = (phases + torch.pi / 2) % (2 * torch.pi) / 0.7
        pairs |= set(zip(batch.songs.tolist(), voices.round().int().tolist(), strict=True))
    songs = {song for song, _ in pairs}
    assert {voice for _, voice in pairs} < set(range(8))
    assert len(pairs) > 0.8 * len(songs) * len(task.voices)


def test_batches_are_functions_of_their_number(folders: tuple[Path, Path]):
    """Whoever reads them, from wherever on."""
    alone = list(islice(task_of(folders).batches(0), 4))
    for start, stride, words in ((2, 1, []), (1, 2, []), (0, 1, ["data.workers=1"])):
        numbers = range(start, 4, stride)
        again = islice(task_of(folders, *words).batches(start, stride), len(numbers))
        for number, batch in zip(numbers, again, strict=True):
            assert torch.equal(batch.stems, alone[number].stems)


def test_a_step_mixes_the_voice_at_its_level_and_learns_from_the_wave(folders: tuple[Path, Path]):
    words = [f"remix.{key}=0" for key in ("reverb", "pan_db", "narrow", "equalise_db", "lowpass")]
    task = task_of(folders, *words, "remix.level_db=[-6,-6]", "balance=false")
    batch = next(task.batches(0))
    made = task.example(batch, 0, seeded())
    song, voice = batch.stems[0].numpy()
    np.testing.assert_allclose(made.spectrogram[0], spectrogram_of(song), rtol=1e-3, atol=1e-3)
    voice *= 10 ** (-6 / 20) * np.sqrt(np.square(song).mean() / np.square(voice).mean())
    added = (made.mixed["voice"] - made.spectrogram)[0].numpy()
    np.testing.assert_allclose(added, spectrogram_of(voice), rtol=1e-3, atol=1e-3)
    scalars = task.step(task.model, batch, 0, seeded())
    torch.testing.assert_close(scalars["loss"], scalars["loss/masked"] + scalars["loss/wave"])


def test_a_run_notices_other_voices(folders: tuple[Path, Path]):
    corpus, _ = folders
    task, other = task_of(folders), task_of(folders, f"mask.voices=[{corpus}]")
    assert not torch.equal(task.songs(), other.songs())
    sources = [source for track in other.voices for _, group in track.stems for source in group]
    assert {source.path.name for source in sources} == {"vocals.flac"}


def test_what_cannot_be_is_refused(folders: tuple[Path, Path], tmp_path: Path):
    for word in ("mask.voice_share=0", "mask.mix=0"):
        with pytest.raises(SeparatorError, match=r"^mask\.voices: no patch is mixed"):
            config(word)
    held_out = write_corpus(tmp_path / "corpus", songs=2, seconds=1.0)
    for song in list(held_out.iterdir()):
        (held_out / "valid").mkdir(exist_ok=True)
        song.rename(held_out / "valid" / song.name)
    with pytest.raises(SeparatorError, match=r"^mask\.voices: no voices to train with"):
        task_of(folders, f"mask.voices=[{held_out}]")
