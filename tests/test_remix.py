"""Pretraining by remixing: which songs and voices meet, and what is changed of them."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve

from separator import audio, cli
from separator.config import parse
from separator.data.corpus import song, write_corpus
from separator.data.tracks import find_tracks
from separator.pretrain import effects, voice_detector
from separator.pretrain.config import PretrainConfig
from separator.pretrain.objectives.primary.remix import RemixConfig
from separator.pretrain.remix_task import RemixTask, remix_tracks
from separator.pretrain.voice_detector import without_voices
from tests.toys import MICRO, seeded

PLAIN = RemixConfig(
    reverb=0.0, pan_db=0.0, narrow=0.0, equalise_db=0.0, lowpass=0.0, level_db=(-6.0, -6.0)
)


def write(path: Path, wave: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with audio.Writer(path, 44100, len(wave)) as writer:
        writer.write(torch.from_numpy(np.ascontiguousarray(wave)).float())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A library of six instrumentals, and a folder of four voices."""
    root = tmp_path_factory.mktemp("remix")
    for index in range(6):
        stems = song(3.0, index=index)
        music = stems["drums"] + stems["bass"] + stems["other"]
        write(root / "music" / f"song{index}.flac", music)
        if index < 4:
            write(root / "voices" / f"voice{index}.flac", stems["vocals"][:1])
    return root / "music", root / "voices"


def config_of(folders: tuple[Path, Path], *more: str) -> PretrainConfig:
    music, voices = folders
    words = [*MICRO, f"data.roots=[{music}]", f"remix.voices=[{voices}]", "data.valid_share=0.3"]
    return parse(PretrainConfig, ["pretrain/remix.yaml", *words, *more], "pretrain")


def test_songs_become_accompaniments_and_voices_are_shared_out(folders: tuple[Path, Path]):
    train, valid = remix_tracks(config_of(folders))
    names = {track.names for track in train}
    assert names == {("accompaniment",), ("vocals",)}
    held_out = {part for track in valid for part in track.name.split(" with ")}
    assert valid and all(track.names == ("accompaniment", "vocals") for track in valid)
    assert not held_out & {track.name for track in train}
    assert len(remix_tracks(config_of(folders, "valid_crops=1"))[1]) == 1


def test_songs_with_stems_lend_their_vocals_and_stay_as_they_are(
    folders: tuple[Path, Path], tmp_path: Path
):
    corpus = write_corpus(tmp_path / "corpus", songs=4, seconds=2.0)
    music, _ = folders
    train, _ = remix_tracks(config_of((music, corpus)))
    voices = [track for track in train if track.names == ("vocals",)]
    assert voices and all(
        source.path.name == "vocals.flac" for track in voices for source in track.stems[0][1]
    )
    train, _ = remix_tracks(config_of(folders, f"data.roots=[{music},{corpus}]"))
    assert {t.kind for t in train} == {"pool", "stems"}


# dB; of these composed songs, those without a voice have -8.8 and -8.1, the others -3.6 and -3.8
LIMIT = -6.0


def test_a_model_leaves_out_the_songs_with_voices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The bundled one, once for each song; what cannot be judged is not used either."""
    for index in range(2):
        stems = song(9.0, index=index)
        music = stems["drums"] + stems["bass"] + stems["other"]
        write(tmp_path / "songs" / f"music{index}.flac", music)
        write(tmp_path / "songs" / f"sung{index}.flac", music + stems["vocals"])
    write(tmp_path / "songs" / "short.flac", music[:, :44100])
    write(tmp_path / "songs" / "intro.flac", np.pad(music, [(0, 0), (20 * 44100, 0)]))
    monkeypatch.setenv("SEPARATOR_CACHE", str(tmp_path / "cache"))
    songs = find_tracks(tmp_path / "songs")
    with caplog.at_level(logging.INFO):
        kept = without_voices(songs, "tiny-vocals", LIMIT, "cpu")
    assert [track.name for track in kept] == ["music0.flac", "music1.flac"]
    assert "2 of 6 songs with a voice, and 2 that could not be judged" in caplog.text
    labelled = [replace(track, stems=(("vocals", track.stems[0][1]),)) for track in songs]
    assert without_voices(labelled, "tiny-vocals", LIMIT, "cpu") == labelled
    monkeypatch.setattr(voice_detector, "load_stems", lambda *_: pytest.fail("it was read again"))
    judged = [track for track in songs if track.name[:5] in ("music", "sung0", "sung1")]
    assert without_voices(judged, "tiny-vocals", LIMIT, "cpu") == kept
    assert without_voices(judged, "tiny-vocals", 0.0, "cpu") == judged


def test_the_batch_is_of_music_and_a_voice_at_the_level_asked(folders: tuple[Path, Path]):
    more = ["remix.reverb=0", "remix.equalise_db=0", "remix.lowpass=0", "remix.narrow=0"]
    more += ["remix.pan_db=0", "remix.level_db=[-9,-9]", "data.augment.speed=0"]
    task = RemixTask(config_of(folders, *more))
    batch = next(task.batches(0))
    stems = task.stems(batch, seeded())
    assert stems.shape == (2, 2, 2, 8000)
    rms = stems.square().mean((2, 3)).sqrt()
    torch.testing.assert_close(rms[:, 1] / rms[:, 0], torch.full((2,), 10 ** (-9 / 20)))
    expected = batch.stems[:, 0]
    torch.testing.assert_close(stems[:, 0], expected, rtol=1e-4, atol=1e-5)
    losses = task.step(task.model, batch, 0, seeded())
    assert losses["loss"].isfinite()


def test_nothing_is_changed_but_the_level_without_effects():
    stems = torch.randn(3, 2, 2, 4000, generator=seeded())
    out = effects.varied(stems, PLAIN, 8000, seeded(1))
    torch.testing.assert_close(out[:, 0], stems[:, 0], rtol=1e-4, atol=1e-5)
    ratio = out[:, 1] / stems[:, 1]
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-2, atol=1e-3)


def test_effects_are_a_function_of_the_generator_alone():
    stems = torch.randn(2, 2, 2, 4000, generator=seeded())
    first, again, other = (
        effects.varied(stems, RemixConfig(), 8000, seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.allclose(first, other)


def test_a_room_is_a_convolution_that_dies_away():
    rate, room = 8000, 9600
    response = effects.impulses(1, room, rate, 1.0, seeded(3))[0]
    assert not torch.equal(response[0], response[1])  # each ear its own
    tail = response[:, 1:].square()
    assert tail[:, :800].mean() > 10 * tail[:, 4000:4800].mean()
    stems = torch.zeros(1, 2, 2, 8000)
    stems[0, 1] = torch.randn(1, 8000, generator=seeded())
    config = RemixConfig(reverb=1.0, pan_db=0, narrow=0, equalise_db=0, lowpass=0)
    generator = seeded(4)
    wet = effects.varied(stems, config, rate, generator)[0, 1]
    generator = seeded(4)  # the same draws in the same order
    effects.equaliser(torch.ones(1), (1, 2), 0.0, generator)
    effects.lowpass(torch.ones(1), 1, 0.0, generator)
    response = effects.impulses(1, round(1.2 * rate), rate, 1.0, generator)[0]
    for channel in range(2):
        expected = fftconvolve(stems[0, 1, channel].numpy(), response[channel].numpy())[:8000]
        torch.testing.assert_close(wet[channel], torch.from_numpy(expected), rtol=1e-3, atol=1e-3)


def test_a_low_pass_takes_the_same_from_both_stems():
    hertz = torch.fft.rfftfreq(2048, 1 / 44100)
    gains = effects.lowpass(hertz, 200, 0.5, seeded())
    filtered = (gains[:, -1] < 0.9).float().mean().item()
    assert 0.35 < filtered < 0.65
    assert (gains[:, 0] == 1).all() and (gains.diff(dim=1) <= 1e-6).all()
    stems = torch.randn(1, 1, 2, 44100, generator=seeded()).repeat(1, 2, 1, 1)
    config = RemixConfig(reverb=0, pan_db=0, narrow=0, equalise_db=0, lowpass=1.0)
    dull = effects.varied(stems, config, 44100, seeded())
    spectra = torch.fft.rfft(dull).abs().mean(dim=2)[0]
    voice, music = spectra[1] / spectra[1, :5000].mean(), spectra[0] / spectra[0, :5000].mean()
    torch.testing.assert_close(voice, music, rtol=1e-2, atol=1e-3)
    assert voice[-2000:].mean() < 0.2


def test_an_equaliser_stays_within_its_decibels_and_is_smooth():
    hertz = torch.fft.rfftfreq(4096, 1 / 44100)
    gains = 20 * effects.equaliser(hertz, (50, 2), 6.0, seeded()).log10()
    assert gains.shape == (50, 2, 2049) and gains.abs().max() <= 6.001 and gains.std() > 1
    octave = gains[..., (hertz > 500) & (hertz < 550)]
    assert (octave.amax(-1) - octave.amin(-1)).max() < 2


def test_narrowing_keeps_the_middle_and_panning_moves_the_channels():
    waves = torch.randn(64, 2, 100, generator=seeded())
    narrow = effects.narrowed(waves, 0.5, seeded(1))
    torch.testing.assert_close(narrow.mean(1), waves.mean(1))
    side = (narrow[:, 0] - narrow[:, 1]).norm(dim=1) / (waves[:, 0] - waves[:, 1]).norm(dim=1)
    assert 0.3 < (side > 0.999).float().mean() < 0.7 and side.min() < 0.2
    panned = effects.panned(waves, 3.0, seeded(2)) / waves
    torch.testing.assert_close(panned[:, 0, 0] * panned[:, 1, 0], torch.ones(64))
    assert (20 * panned[:, 0, 0].log10()).abs().max() <= 3.001


def test_silence_stays_silent():
    stems = torch.zeros(1, 2, 2, 4000)
    assert effects.varied(stems, RemixConfig(), 8000, seeded()).abs().max() == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["data.roots=[x]"], "remix.voices"),
        (["data.roots=[x]", "remix.voices=[x]", "remix.level_db=[3,-3]"], "remix.level_db"),
        (["data.roots=[x]", "remix.voices=[x]", "remix.reverb=2"], "remix.reverb"),
    ],
)
def test_wrong_settings_are_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture):
    assert cli.main(["pretrain", "pretrain/remix.yaml", "tiny.yaml", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error and "\n" not in error


def test_a_remixed_file_separates_and_is_fine_tuned(folders: tuple[Path, Path], tmp_path: Path):
    music, voices = folders
    run = tmp_path / "run"
    words = [*MICRO, f"data.roots=[{music}]", f"remix.voices=[{voices}]", "data.valid_share=0.3"]
    words += ["steps=2", f"run={run}", "log_every=1"]
    assert cli.main(["pretrain", "pretrain/remix.yaml", *words]) == 0
    assert cli.main(["pretrain", "pretrain/remix.yaml", *words, "steps=3"]) == 0  # goes on
    corpus = write_corpus(tmp_path / "corpus", songs=3, seconds=2.0)
    words = [*MICRO, f"data.roots=[{corpus}]", f"pretrained={run / 'model.safetensors'}"]
    words += ["head=keep", "steps=1", f"run={tmp_path / 'tuned'}"]
    assert cli.main(["train", "train/vocals.yaml", *words]) == 0
    song = next(corpus.rglob("other.flac"))
    done = ["separate", str(song), "-m", str(run / "model.safetensors"), "-o", str(tmp_path / "o")]
    assert cli.main(done) == 0


def test_a_pool_lends_its_voices_alone(folders: tuple[Path, Path], tmp_path: Path):
    music, _ = folders
    for index in range(3):
        stems = song(1.0, index=index)
        write(tmp_path / "pool" / "vocals" / f"v{index}.flac", stems["vocals"])
        write(tmp_path / "pool" / "instrumentals" / f"i{index}.flac", stems["bass"])
    train, valid = remix_tracks(config_of((music, tmp_path / "pool")))
    voices = [track for track in train if track.names == ("vocals",)]
    paths = [dict(track.stems)["vocals"][0].path for track in [*voices, *valid]]
    assert voices and {path.parent.name for path in paths} == {"vocals"}


def test_a_fraction_of_the_labels_is_one_here_too(folders: tuple[Path, Path], tmp_path: Path):
    corpus = write_corpus(tmp_path / "corpus", songs=8, seconds=1.0)
    music, _ = folders
    roots = f"data.roots=[{music},{corpus}]"
    counts = []
    for fraction in (1.0, 0.25):
        config = config_of((music, corpus), roots, f"data.fraction={fraction}")
        train, _ = remix_tracks(config)
        labelled = [track for track in train if track.kind == "stems"]
        voices = {t.stems[0][1][0].path for t in train if t.names == ("vocals",)}
        counts.append((len(labelled), len(voices)))
    (whole, all_voices), (part, few_voices) = counts
    assert part == round(0.25 * whole) and few_voices == round(0.25 * all_voices)
