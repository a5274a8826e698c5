"""The examples of docs/extending.md, put where their first lines say, in a copy of the code."""

import csv
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from separator.data.corpus import write_corpus
from tests.commands import Commands
from tests.toys import MICRO

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
STAGES = ("pretrain", "train", "inference", "configs")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=3, seconds=3.0)


class Copy:
    """A copy of the code with the examples of all sections, in one process that runs commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.new, self.changed = folder, defaultdict(set), defaultdict(set)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "separator", folder / "separator", ignore=ignored)
        for stage in STAGES:
            shutil.copytree(ROOT / stage, folder / "separator" / stage, ignore=ignored)
        for title, section in re.findall(r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S):
            for code in re.findall(r"```\w+\n(.*?)```", section, re.S):
                place = re.match(r"# ([\w/.]+)(?:, ([\w ]+): ([^\n]*))?\n(.*)", code, re.S)
                self._put(title, *place.groups())

    def _put(self, title: str, name: str, where: str | None, line: str | None, text: str) -> None:
        room, _, rest = name.partition("/")
        path = self.folder / "separator" / (name if room in STAGES else rest)
        if where is None:
            assert not path.exists(), name
            path.write_text(text, encoding="utf-8")
            self.new[title].add(name)
            return
        old = path.read_text(encoding="utf-8")
        assert old.count(line) == 1, line
        both = {"in the place of": text, "above": text + line, "below": f"{line}\n{text}"}
        path.write_text(old.replace(line, both[where]), encoding="utf-8")
        self.changed[title].add(name)

    def run(self, folder: Path, *words: str | Path) -> str:
        """Run a command in a folder to its end and return what it prints."""
        status, printed = self.commands.run(folder, *words)
        assert status == 0, printed
        return printed


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    copy = Copy(tmp_path_factory.mktemp("copy"))
    with Commands(copy.folder) as copy.commands:
        yield copy


def rows(run: Path) -> list[dict]:
    return [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_strategy_is_one_file(copy: Copy, corpus: Path, tmp_path: Path):
    new, changed = copy.new["A masking strategy"], copy.changed["A masking strategy"]
    presets = {"configs/pretrain/comb.yaml"}
    assert (new - presets, changed) == ({"pretrain/masking/strategies/comb.py"}, set())
    words = ["pretrain/comb.yaml", "tiny.yaml", *MICRO, "steps=2", "mask.every=2", "run=run"]
    copy.run(tmp_path, "pretrain", *words, f"data.roots=[{corpus}]")
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["mask"]
    assert (saved["strategy"], saved["every"]) == ("comb", 2)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_an_objective_is_one_file(copy: Copy, corpus: Path, tmp_path: Path):
    new, changed = copy.new["An objective"], copy.changed["An objective"]
    assert new == {"pretrain/objectives/auxiliary/loudness.py"}
    assert changed == set()
    words = ["pretrain/bert15.yaml", "tiny.yaml", *MICRO, "steps=2", "log_every=1", "run=run"]
    words += ["loudness.weight=0.1", "balance=false", f"data.roots=[{corpus}]"]
    copy.run(tmp_path, "pretrain", *words)
    lines = rows(tmp_path / "run")
    train = [row for row in lines if row["kind"] == "train"]
    assert all(0 < row["loss/loudness"] <= row["loudness/largest_error"] for row in train)
    for row in train:
        total = row["loss/masked"] + 0.1 * row["loss/loudness"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
    assert 0 < lines[-1]["valid/loss/loudness"] < 1


def test_a_layout_is_one_file(copy: Copy, tmp_path: Path):
    new, changed = copy.new["A layout of data"], copy.changed["A layout of data"]
    assert (new, changed) == ({"separator/data/layouts/listed.py"}, set())
    songs = tmp_path / "songs"
    (songs / "x").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (songs / "songs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("song", "split", "accompaniment", "vocals"))
        for number, split in enumerate(("train", "train", "valid")):
            files = [f"x/{number}{letter}.wav" for letter in "ab"]
            for name in files:
                soundfile.write(songs / name, rng.normal(0, 0.1, (16000, 2)), 8000)
            table.writerow((f"song {number}", split, *files))
    assert "listed" in copy.run(tmp_path, "scan", songs)
    copy.run(tmp_path, "train", "tiny.yaml", *MICRO, "steps=2", "run=run", f"data.roots=[{songs}]")
    assert "valid/loss" in rows(tmp_path / "run")[-1]  # the third song validates


def test_an_output_format_is_a_row(copy: Copy, tmp_path: Path):
    new, changed = copy.new["An output format"], copy.changed["An output format"]
    assert (new, changed) == (set(), {"separator/audio/formats.py"})
    song = np.random.default_rng(0).normal(0, 0.1, (44100, 2))
    soundfile.write(tmp_path / "song.wav", song, 44100, "PCM_24")
    assert "caf" in copy.run(tmp_path, "separate", "--help")
    copy.run(tmp_path, "separate", "song.wav", "--format", "caf", "--stems", "-o", "out")
    stems = sorted((tmp_path / "out").glob("*.caf"))
    assert [soundfile.info(stem).format for stem in stems] == ["CAF", "CAF"]
    total = sum(soundfile.read(stem)[0] for stem in stems)
    mixture = soundfile.read(tmp_path / "song.wav")[0]
    np.testing.assert_allclose(total, mixture, atol=2**-22)


def test_an_architecture_is_one_file_and_a_row(copy: Copy, corpus: Path, tmp_path: Path):
    new, changed = copy.new["An architecture"], copy.changed["An architecture"]
    assert new == {"separator/models/recurrent.py"}
    assert changed == {"separator/models/registry.py"}
    words = ["tiny.yaml", *MICRO, "steps=2", "architecture=recurrent", f"data.roots=[{corpus}]"]
    copy.run(
        tmp_path, "pretrain", "pretrain/bert15.yaml", *words, "recurrent.width=8", "run=before"
    )
    pretrained = "pretrained=before/model.safetensors"
    copy.run(tmp_path, "train", *words, "recurrent.width=8", pretrained, "run=run")
    soundfile.write(tmp_path / "song.wav", np.full((8000, 2), 0.1), 8000)
    copy.run(tmp_path, "separate", "song.wav", "-m", "run/model.safetensors", "-o", "out")
    assert len(list((tmp_path / "out").iterdir())) >= 1
    four = ["train/four_stems.yaml", *words, "recurrent.width=8", "run=four"]
    copy.run(tmp_path, "train", *four)
    assert "recurrent" in copy.run(tmp_path, "train", "--help")


def test_a_loss_is_a_function_and_a_row(copy: Copy, corpus: Path, tmp_path: Path):
    new, changed = copy.new["A loss"], copy.changed["A loss"]
    assert (new, changed) == (set(), {"separator/losses.py"})
    words = ["tiny.yaml", *MICRO, "steps=2", "log_every=1", f"data.roots=[{corpus}]", "run=run"]
    copy.run(tmp_path, "train", "train/vocals.yaml", *words, "loss.spectrogram_mse=0.5")
    train = [row for row in rows(tmp_path / "run") if row["kind"] == "train"]
    for row in train:
        total = 0.1 * row["loss/sdr"] + 0.5 * row["loss/spectrogram_mse"]
        assert row["loss"] == pytest.approx(total, rel=1e-3)
        assert row["loss/spectrogram_mse"] > 0


def test_another_set_of_stems_is_a_line(copy: Copy, corpus: Path, tmp_path: Path):
    new, changed = copy.new["Another set of stems"], copy.changed["Another set of stems"]
    assert (new, changed) == ({"configs/train/drums.yaml"}, set())
    words = ["tiny.yaml", *MICRO, "steps=2", f"data.roots=[{corpus}]", "run=run"]
    copy.run(tmp_path, "train", "train/drums.yaml", *words)
    soundfile.write(tmp_path / "song.wav", np.full((8000, 2), 0.1), 8000)
    copy.run(
        tmp_path,
        "separate",
        "song.wav",
        "-m",
        "run/model.safetensors",
        "-o",
        "out",
        "--stems",
        "drums",
    )
    assert [stem.stem for stem in (tmp_path / "out").glob("song*")] == ["song (Drums)"]
