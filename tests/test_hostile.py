"""A folder of odd files goes through scan, separate and training: the right verdict for each."""

import json
import os
from pathlib import Path

import pytest

from separator import audio, cli
from separator.errors import printable
from tests import hostile
from tests.test_separate import export_model
from tests.toys import MICRO

NOT_WALKED = {"pipe.wav", "endless.wav", "socket.wav"}  # counted, and never opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile") / "files"


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, hostile.Expected]:
    about = hostile.write(folder)
    assert len(about) >= 80
    return {os.fsdecode(name): kind for name, kind in about.items()}


def test_lengths_are_those_of_the_sound(folder: Path, expected: dict[str, hostile.Expected]):
    for name, about in expected.items():
        if about.seconds is None:
            continue
        info = audio.probe(folder / name)
        assert info.seconds == pytest.approx(about.seconds, abs=about.slack + 1e-9), name
        assert audio.read(folder / name).shape == (info.channels, info.samples), name


def test_scan(folder: Path, expected: dict[str, hostile.Expected], tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SEPARATOR_INDEX", str(tmp_path / "index.sqlite"))
    report = tmp_path / "report.json"
    assert cli.main(["scan", str(folder), "--report", str(report)]) == 0
    found = json.loads(report.read_text("utf-8"))
    quarantined = {Path(row["path"]).name: row["reason"] for row in found["quarantined"]}
    unfit = {name for name, about in expected.items() if about.kind != "sound"}
    assert quarantined.keys() == unfit - NOT_WALKED
    assert all(reason and reason == printable(reason) for reason in quarantined.values())
    noticed = {Path(row["path"]).name for row in found["notices"]}
    told = {"joined.mp3", "chained.ogg", "one bad frame.mp3", "flipped.flac", "tail gone.wav"}
    assert told <= noticed


@pytest.mark.slow
def test_separate(folder: Path, expected: dict[str, hostile.Expected], tmp_path: Path, capfd):
    model = export_model(tmp_path / "model.safetensors")
    out = tmp_path / "out"
    assert cli.main(["separate", str(folder), "-o", str(out), "-m", str(model)]) == 1
    said = capfd.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("separator: ")]
    unreadable = {name for name, about in expected.items() if about.kind == "refused"}
    failed = {line.split(": ")[1].rpartition("/")[2] for line in lines}
    assert failed == {printable(name) for name in unreadable - NOT_WALKED}
    assert "Traceback" not in said and "\x1b[31m" not in said and "\x07" not in said
    results = [path for path in out.iterdir() if path.suffix == ".flac"]
    assert len(results) == len(expected) - len(unreadable)
    assert not [path for path in out.iterdir() if ".part" in path.name]
    for name in ("joined", "chained", "e\u0301", "two\nlines", "concat:a"):
        assert audio.probe(out / f"{name} (Instrumental).flac").seconds > 0.9


@pytest.mark.slow
def test_training(folder: Path, expected: dict[str, hostile.Expected], tmp_path: Path, capfd):
    words = [*MICRO, f"data.roots=[{json.dumps(str(folder))}]", f"run={tmp_path / 'run'}"]
    words += ["steps=20", "validate_every=0", "valid_crops=4", "mask.group=4"]
    assert cli.main(["pretrain", *words]) == 0
    assert "Traceback" not in capfd.readouterr().err
    rows = [json.loads(row) for row in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 20 and rows[-1]["score"] is not None
