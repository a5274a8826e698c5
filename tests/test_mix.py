"""`--mix`: the song with stems at other levels; `--format stem.mp4`: all of them in one file."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import stempeg
import torch

from separator import Separator, audio, cli
from separator.inference.choices import outputs
from separator.stems import BASS, DRUMS, FOUR_STEMS, INSTRUMENTAL, OTHER, VOCALS
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
        (["--format", "stem.mp4", "--stems"], "leave out --stems, --two-stems, --mix and --video"),
    ],
)
def test_wrong_choices_are_one_line(
    words: list[str], text: str, capsys: pytest.CaptureFixture
) -> None:
    song("song.wav", 0.1)
    assert cli.main(["separate", "song.wav", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert text in line
    assert not Path("stems").exists()


def boxes(data: bytes, within: str = "") -> Iterator[tuple[str, bytes]]:
    """Yield the paths and contents of the boxes of an MP4 file."""
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        path, content = f"{within}/{kind.decode()}", data[8:size]
        yield path, content
        if kind in (b"moov", b"trak", b"udta"):
            yield from boxes(content, path)
        data = data[size:]


def test_a_file_of_four_stems_is_like_one_of_native_instruments() -> None:
    """stempeg has a file of theirs, and the description that it writes with MP4Box."""
    noise = np.random.default_rng(0).normal(0, 0.1, (4, 2, 30011)).astype(np.float32)
    waves = dict(zip(FOUR_STEMS.names, noise, strict=True))
    (output,) = outputs(FOUR_STEMS, together=True)
    sounds = output.wave(sum(waves.values()), waves)
    with audio.Writer("a.mp4", 44100, 2, format="stem.mp4", titles=output.titles) as file:
        file.write(sounds)
    found = stempeg.read_stems("a.mp4")[0]
    wanted = [sum(waves.values()), *(waves[name] for name in (DRUMS, BASS, OTHER, VOCALS))]
    for wave, sound in zip(wanted, found.swapaxes(1, 2), strict=True):
        likeness = [
            float((wave[:, 60:-60] * sound[:, 60 + lag : 29951 + lag]).sum())
            for lag in range(-60, 61)
        ]
        assert np.argmax(likeness) == 60  # not a sample too early or too late
        assert max(likeness) > 0.9 * (wave**2).sum()  # this stem, and no other
    ours, theirs = (
        list(boxes(Path(path).read_bytes())) for path in ("a.mp4", stempeg.example_stem_path())
    )
    kinds = [
        (dict(b)["/ftyp"][:4], [c[3] & 1 for k, c in b if k.endswith("tkhd")])
        for b in (ours, theirs)
    ]
    assert kinds[0] == kinds[1] == (b"M4A ", [1, 0, 0, 0, 0])  # players take the mixture
    text, real = (json.loads(dict(b)["/moov/udta/stem"]) for b in (ours, theirs))
    default = json.loads(Path(stempeg.default_metadata()).read_text())
    assert text.keys() == real.keys() == default.keys() and text["version"] == 1
    assert [stem["name"].lower() for stem in text["stems"]] == [s["name"] for s in default["stems"]]
    assert [stem["color"] for stem in text["stems"]] == [stem["color"] for stem in real["stems"]]
    for name, settings in default["mastering_dsp"].items():
        assert text["mastering_dsp"][name] == pytest.approx(settings)


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
    text = json.loads(dict(boxes(Path(path).read_bytes()))["/moov/udta/stem"])
    assert [stem["name"] for stem in text["stems"]] == titles[1:]
    assert mutagen.File(path, easy=True)["title"] == ["A song (Stems)"]
    stamp = Path(path).stat().st_mtime_ns
    assert run("song.flac", "--format", "stem.mp4") == 0
    assert Path(path).stat().st_mtime_ns == stamp
