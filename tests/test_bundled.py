"""The model that comes with the package: where it is, and what it does to four kinds of input."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import separator
from separator import Separator, audio, bundled, cli
from separator.data.corpus import song
from separator.errors import SeparatorError
from tests.toys import read_model_file

RATE = 44100


@pytest.fixture(scope="module")
def model() -> Separator:
    return Separator.load(bundled.DEFAULT, "cpu")


def lost(before: Tensor, after: Tensor) -> float:
    """By how many decibels there is less energy after than before."""
    power = [wave.double().square().sum().clamp(min=1e-12) for wave in (before, after)]
    return 10 * (power[0] / power[1]).log10().item()


def mixed(*stems: Tensor) -> Tensor:
    return torch.stack(stems).sum(0)


@pytest.fixture(scope="module")
def stems() -> dict[str, Tensor]:
    return {name: torch.from_numpy(wave).float() for name, wave in song(10.0, 5, 1).items()}


def test_files_are_small_half_precision_and_have_a_card():
    assert bundled.names()[0] == bundled.DEFAULT
    for name in bundled.names():
        path = bundled.model_path(name)
        assert path.stat().st_size <= 20e6
        with safe_open(path, framework="pt") as file:
            kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}
        _, description = read_model_file(path)
        assert description["stage"] == "train" and description["license"]
        card = bundled.card(name)
        assert card.startswith(f"# {name}\n")
        for word in ("trained on", "dB", description["license"]):
            assert word in card


def test_it_is_what_separates_where_nothing_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stems: dict[str, Tensor]
):
    monkeypatch.delenv("SEPARATOR_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    mixture = mixed(*stems.values())[:, : 2 * RATE]
    with audio.Writer(tmp_path / "song.wav", RATE, 2) as writer:
        writer.write(mixture)
    assert cli.main(["separate", "song.wav", "--stems", "--format", "wav", "--bits", "32"]) == 0
    results = {path.name: audio.read(path) for path in (tmp_path / "stems").glob("*.wav")}
    assert set(results) == {"song (Instrumental).wav", "song (Vocals).wav"}
    named = separator.separate("song.wav", model=bundled.DEFAULT, device="cpu")
    assert torch.allclose(named["vocals"], results["song (Vocals).wav"], atol=1e-5)


def test_a_name_stands_for_its_file_and_a_path_for_itself(tmp_path: Path):
    path = bundled.model_path(bundled.DEFAULT)
    assert path.is_file() and bundled.model_path(path) == path
    assert bundled.model_path("runs/a/model.safetensors") == Path("runs/a/model.safetensors")
    copy = shutil.copy(path, tmp_path / "other.safetensors")
    one, other = (Separator.load(p, "cpu").description["digest"] for p in (bundled.DEFAULT, copy))
    assert one == other
    with pytest.raises(SeparatorError, match="no-such-model"):
        Separator.load("no-such-model", "cpu")


def test_models_are_listed_with_their_cards(capsys: pytest.CaptureFixture):
    assert cli.main(["models"]) == 0
    assert f"{bundled.DEFAULT} (default), " in capsys.readouterr().out
    assert cli.main(["models", bundled.DEFAULT]) == 0
    assert capsys.readouterr().out == bundled.card(bundled.DEFAULT)
    assert cli.main(["models", "other"]) == 2
    assert "other is not one of" in capsys.readouterr().err


def test_export_halves_a_file_and_keeps_what_it_says(tmp_path: Path, model: Separator):
    source, target = tmp_path / "full.safetensors", tmp_path / "half.safetensors"
    from separator.engine.model_file import export

    description = {key: v for key, v in model.description.items() if key != "digest"}
    export(source, model.model.state_dict(), description)
    assert cli.main(["export", str(source), "-o", str(target), "--license", "MIT"]) == 0
    assert target.stat().st_size < 0.51 * source.stat().st_size
    half = Separator.load(target, "cpu")
    assert half.description["license"] == "MIT"
    state = model.model.state_dict()
    for name, value in half.model.state_dict().items():
        torch.testing.assert_close(value, state[name].half().float())
    assert cli.main(["export", str(source), "-o", str(tmp_path / "x.pt")]) == 2
    export(source, state | {"head.bias": state["head.bias"] + 1e5}, description)
    assert cli.main(["export", str(source), "-o", str(tmp_path / "large.safetensors")]) == 1
    assert not (tmp_path / "large.safetensors").exists()


def test_silence_stays_silent(model: Separator):
    out = model.separate_wave(torch.zeros(2, RATE), RATE)
    assert all(wave.abs().max() == 0 for wave in out.values())


def test_generated_songs_are_separated(model: Separator):
    for index in range(3):
        parts = {name: torch.from_numpy(wave).float() for name, wave in song(8.0, 5, index).items()}
        music, voice = mixed(parts["drums"], parts["bass"], parts["other"]), parts["vocals"]
        estimate = model.separate_wave(music + voice, RATE)["instrumental"]
        assert lost(music, estimate - music) > lost(music, voice) + 2.5  # better than the mixture
        assert lost(music, model.separate_wave(music, RATE)["vocals"]) > 6
        assert lost(voice, model.separate_wave(voice, RATE)["instrumental"]) > 10


def excerpt(path: Path, start: int = 0, seconds: int = 30) -> tuple[Tensor, int]:
    rate = audio.probe(path).rate
    return audio.read(path, start * rate, seconds * rate), rate


@pytest.mark.slow
def test_instrumental_music_stays_nearly_as_it_is(model: Separator, shared_data: Path):
    """Accompaniments of two songs and of karaoke that it did not learn from."""
    songs = [
        shared_data / "stems_cc0" / name / "accompaniment.opus"
        for name in ("SEK_6_Caesium", "SEK_7_Francium")
    ]
    songs += sorted((shared_data / "mir1k").glob("*_acc.ogg"))[:6]
    ratios = []
    for path in songs:
        wave, rate = excerpt(path, 30 if "stems_cc0" in str(path) else 0)
        ratios.append(lost(wave, model.separate_wave(wave, rate)["vocals"]))
    assert min(ratios) > 6
    assert torch.tensor(ratios).median() > 13


@pytest.mark.slow
def test_isolated_singing_is_removed(model: Separator, shared_data: Path):
    """Every eighth clip: those were kept out of its training."""
    ratios = []
    for path in sorted((shared_data / "singing").glob("*.ogg"))[::8]:
        wave, rate = excerpt(path, 0, 20)
        ratios.append(lost(wave, model.separate_wave(wave, rate)["instrumental"]))
    assert min(ratios) > 12
    assert sum(ratios) / len(ratios) > 20
