"""`separator doctor`: what it finds, how it says what is missing, and its exit status."""

from pathlib import Path

import pytest
import torch

from separator import cli
from separator.cli import doctor
from separator.cli.doctor import Finding


def report(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = cli.main(["doctor", *words])
    return status, capsys.readouterr().out


def test_a_sound_machine_passes(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "TEST_SECONDS", 2.0)
    status, text = report(capsys, "--device", "cpu")
    assert status == 0 and "MISSING" not in text
    lines = {line[9:].split("  ")[0]: line for line in text.splitlines()}
    assert f"{torch.__version__.partition('+')[0]}" in lines["torch"]
    for format in ("wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff"):
        assert format in lines["codecs"]
    assert lines["model"].startswith("ok") and "times real time" in lines["self-test"]


def test_a_missing_model_fails_and_the_rest_is_still_checked(capsys, tmp_path: Path):
    status, text = report(capsys, "-m", str(tmp_path / "none.safetensors"))
    assert status == 1
    assert text.splitlines()[-2].startswith("MISSING  separation") and "no such file" in text
    assert "codecs" in text


def test_a_codec_that_loses_samples_is_found(monkeypatch: pytest.MonkeyPatch):
    from separator import audio

    blocks = audio.blocks
    monkeypatch.setattr(audio, "blocks", lambda path: (b[:, :-5000] for b in blocks(path)))
    findings = list(doctor.codecs())
    assert {f.text.partition(":")[0] for f in findings if f.needed} == {
        *("wav", "flac", "mp3", "ogg", "opus", "m4a", "aiff")
    }


def test_an_absent_package_and_a_full_disk_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    missing = [finding for finding in doctor.versions() if finding.fix]
    assert missing == [
        Finding("no-such-package", "not installed", "pip install no-such-package", needed=True)
    ]
    monkeypatch.setattr(doctor, "MIN_FREE_GB", 1e9)
    assert [bool(finding.fix) for finding in doctor.disks()] == [True] * 3
    assert "SEPARATOR_CACHE" in list(doctor.disks())[1].fix


def test_stems_that_do_not_add_up_fail(monkeypatch: pytest.MonkeyPatch):
    from separator.separation import Separator

    monkeypatch.setattr(doctor, "TEST_SECONDS", 2.0)
    separate = Separator.separate_wave

    def louder(self: Separator, wave: torch.Tensor, rate: int) -> dict[str, torch.Tensor]:
        return {name: 1.01 * stem for name, stem in separate(self, wave, rate).items()}

    monkeypatch.setattr(Separator, "separate_wave", louder)
    *_, last = doctor.separation("", "cpu")
    assert last.needed and "miss the song" in last.text
