"""`--mix`: the song with stems at other levels; `--format stem.mp4`: all of them in one file."""

import json
from pathlib import Path

import pytest
import stempeg
import torch

from separator import Separator, audio, cli
from separator.inference.choices import outputs
from separator.stems import DRUMS, FOUR_STEMS, INSTRUMENTAL, VOCALS
from tests.songs import files, in_tmp, model, run, song  # noqa: F401

pytestmark = pytest.mark.usefixtures("in_tmp")


def test_a_mix_alone_and_beside_stems(model: Path) -> None:  # noqa: F811
    wave = song("song.wav")
    stems = Separator.load(model, "cpu").separate("song.wav")
    assert run("song.wav", "--mix", "vocals=-12") == 0
    assert files("stems") == ["song (Mix).wav"]
    quieter = stems[INSTRUMENTAL] + 10 ** (-12 / 20) * stems[VOCALS]
    torch.testing.assert_close(audio.read("stems/song (Mix).wav"), quieter, rtol=0, atol=1e-6)
    assert run("song.wav", "--mix", "instrumental=off,vocals=6") == 0  # another level: done again
    louder = 10 ** (6 / 20) * stems[VOCALS]
    torch.testing.assert_close(audio.read("stems/song (Mix).wav"), louder, rtol=0, atol=1e-6)
    assert run("song.wav", "--mix", "vocals=0", "--stems", "-o", "all") == 0
    names = ["song (Instrumental).wav", "song (Mix).wav", "song (Vocals).wav"]
    assert files("all") == names
    torch.testing.assert_close(audio.read("all/song (Mix).wav"), wave, rtol=0, atol=1e-7)


def test_a_mix_of_four_stems() -> None:
    """The instrumental is all but the vocals, whether the model has it as a stem or not."""
    waves = dict(zip(FOUR_STEMS.names, torch.randn(4, 2, 100), strict=True))
    mixture = sum(waves.values())
    (mix,) = outputs(FOUR_STEMS, mix={INSTRUMENTAL: -20.0, DRUMS: 0.0})
    wanted = waves[VOCALS] + 0.1 * (mixture - waves[VOCALS])
    torch.testing.assert_close(mix.wave(mixture, waves), wanted, rtol=0, atol=1e-5)
    (mix,) = outputs(FOUR_STEMS, mix={INSTRUMENTAL: -20.0, DRUMS: -20.0})  # the drums have both
    wanted = waves[VOCALS] + 0.1 * (mixture - waves[VOCALS]) - 0.09 * waves[DRUMS]
    torch.testing.assert_close(mix.wave(mixture, waves), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--mix", "vocals=loud"], "'vocals=loud' is no level of a stem in dB"),
        (["--mix", "vocals=30"], "'vocals=30' is no level"),
        (["--mix", "vocals=3,vocals=6"], "vocals has two levels"),
        (["--mix", "vocals"], "'vocals' is no level"),
        (["--mix", "drums=3"], "mix: this model has no drums, only instrumental, vocals"),
        (["--format", "stem.mp4", "--stems"], "leave out stems, two_stems, mix and video"),
    ],
)
def test_wrong_choices_are_one_line(
    words: list[str], text: str, capsys: pytest.CaptureFixture
) -> None:
    song("song.wav", 0.1)
    assert cli.main(["separate", "song.wav", *words]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert text in line
    assert not Path("stems").exists()


def test_a_stem_file_is_read_back_by_stempeg(model: Path) -> None:  # noqa: F811
    song("song.flac", 1.5)
    import mutagen

    tags = mutagen.File("song.flac")
    tags["title"] = "A song"
    tags.save()
    stems = Separator.load(model, "cpu").separate("song.flac")
    assert run("song.flac", "--format", "stem.mp4") == 0
    assert files("stems") == ["song (Stems).stem.mp4"]
    path = "stems/song (Stems).stem.mp4"
    sounds, rate = stempeg.read_stems(path)
    wanted = torch.stack([audio.read("song.flac"), *stems.values()])
    found = torch.from_numpy(sounds).float().transpose(1, 2)[..., : wanted.shape[-1]]
    assert (rate, len(found)) == (44100, 3)
    error = (found - wanted).pow(2).sum((1, 2)) / wanted.pow(2).sum((1, 2))
    assert error.max() < 0.01
    titles = ["Mixture", "Instrumental", "Vocals"]
    assert stempeg.Info(path).title_streams == titles
    box = Path(path).read_bytes().partition(b"stem{")[2]
    text = json.JSONDecoder().raw_decode("{" + box.decode("utf-8", "replace"))[0]
    assert [stem["name"] for stem in text["stems"]] == titles[1:]
    assert mutagen.File(path, easy=True)["title"] == ["A song (Stems)"]
    stamp = Path(path).stat().st_mtime_ns
    assert run("song.flac", "--format", "stem.mp4") == 0
    assert Path(path).stat().st_mtime_ns == stamp
