"""The generated songs: deterministic, below full scale, four stems, spectra of music."""

import numpy as np
import torch

from separator import audio
from separator.data import corpus


def share_above(wave: np.ndarray, hertz: float) -> float:
    """Part of a (c t) wave's energy above a frequency."""
    power = np.abs(np.fft.rfft(wave, axis=-1)) ** 2
    return float(power[:, int(hertz * wave.shape[-1] / corpus.RATE) :].sum() / power.sum())


def test_the_same_numbers_give_the_same_song_and_others_another():
    one, again = (corpus.song(3.0, seed=1, index=2) for _ in range(2))
    assert all(np.array_equal(one[name], again[name]) for name in one)
    for other in (corpus.song(3.0, seed=1, index=3), corpus.song(3.0, seed=2, index=2)):
        assert not np.allclose(one["vocals"], other["vocals"], atol=1e-2)


def test_many_songs_have_four_audible_stems_below_full_scale():
    for index in range(10):
        stems = corpus.song(2.0, index=index)
        assert list(stems) == ["drums", "bass", "other", "vocals"]
        peak = max(np.abs(wave).max() for wave in (*stems.values(), sum(stems.values())))
        assert 0.79 < peak <= 0.8 + 1e-9
        for wave in stems.values():
            assert wave.shape == (2, 2 * corpus.RATE)
            assert np.isfinite(wave).all()
            assert 20 * np.log10(np.sqrt(np.mean(wave**2))) > -36


def test_stems_lie_where_such_instruments_do():
    stems = corpus.song(8.0, index=1)
    assert share_above(stems["bass"], 1500) < 0.02
    assert share_above(stems["drums"], 5000) > 0.005
    assert 0.1 < share_above(stems["vocals"], 700) < 0.9


def test_the_voice_rests_between_phrases_and_overlaps_the_chords():
    stems = corpus.song(12.0, index=1)
    blocks = stems["vocals"][0, : 12 * corpus.RATE].reshape(-1, corpus.RATE // 10)
    loud = np.sqrt((blocks**2).mean(1))
    resting = (loud < 0.03 * loud.max()).mean()
    assert 0.05 < resting < 0.6
    spectra = [
        np.abs(np.fft.rfft(stems[name].mean(0)[: 11 * corpus.RATE].reshape(-1, 4410), axis=1))
        for name in ("vocals", "other")
    ]
    overlap = np.minimum(*spectra).sum() / min(s.sum() for s in spectra)
    assert overlap > 0.1


def test_any_length_can_be_made():
    for seconds in (0.01, 0.3, 1.0):
        stems = corpus.song(seconds)
        assert all(wave.shape[1] == round(seconds * corpus.RATE) for wave in stems.values())
        assert all(np.isfinite(wave).all() for wave in stems.values())


def test_files_hold_the_song_to_16_bits(tmp_path):
    folder = corpus.write_corpus(tmp_path / "corpus", songs=2, seconds=1.0, seed=3)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
    stems = ("bass", "drums", "other", "vocals")
    assert names == [f"song-00{i}/{stem}.flac" for i in range(2) for stem in stems]
    for name, wave in corpus.song(1.0, seed=3, index=1).items():
        read = audio.read(folder / "song-001" / f"{name}.flac")
        assert (read - torch.from_numpy(wave)).abs().max() <= 0.5001 / 32768
