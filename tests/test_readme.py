"""The README's commands run as written, but for folders and sizes."""

import re
import shlex
from pathlib import Path

import pytest

from separator import cli
from separator.data.corpus import write_corpus
from tests.test_configs import MICRO

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in README.splitlines() if line.startswith("    separator ")]


def test_the_chain_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    music, more, stems = tmp_path / "Music", tmp_path / "more", tmp_path / "MUSDB18"
    write_corpus(stems, songs=3, seconds=3.0)
    write_corpus(music / "album", songs=1, seconds=3.0)
    write_corpus(more, songs=4, seconds=3.0, seed=1)
    monkeypatch.chdir(tmp_path)
    folders = {"~/Music": music, "/mnt/more": more, "~/MUSDB18": stems}
    folders["~/Instrumentals"] = tmp_path / "Instrumentals"
    names = [shlex.split(command)[1] for command in COMMANDS]
    assert names == ["scan", "pretrain", "train", "evaluate", "separate"]
    for command in COMMANDS:
        for name, folder in folders.items():
            command = command.replace(name, str(folder))
        command = re.sub(r"steps=\d+", "", command)
        words = shlex.split(command)[1:]
        if words[0] in ("pretrain", "train"):
            words += [*MICRO, "data.valid_share=0.3"]
        if words[0] == "pretrain":
            words += ["data.segment_seconds=2"]  # the separator of next takes 0.37 s
        assert cli.main(words) == 0, command
    assert "accompaniment SDR" in capsys.readouterr().out
    album = tmp_path / "Instrumentals"
    assert len(list(album.rglob("* (Instrumental).flac"))) == 4  # the album's four stem files


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    import separator
    from separator.dsp.config import STFTConfig
    from separator.engine.model_file import export
    from separator.models.build import describe
    from separator.models.config import ModelConfig
    from separator.models.frame_transformer import FrameTransformer

    line = re.search(r"stems = (separator\.separate\(.*?\))", README).group(1)
    config = ModelConfig((2, 4, 4), 1, (0, 1, 1), (0, 1, 1), (0, 32, 32))
    stft = STFTConfig(256, 128)
    description = {"stage": "train", **describe(config, stft, 44100)}
    model = FrameTransformer(config, stft.bins)
    export(tmp_path / "runs/vocals/model.safetensors", model.state_dict(), description)
    folder = write_corpus(tmp_path, songs=1, seconds=1.0)
    (folder / "song-000" / "vocals.flac").rename(tmp_path / "song.flac")
    monkeypatch.chdir(tmp_path)
    stems = eval(line, {"separator": separator})
    mixture = separator.audio.read("song.flac")
    torch.testing.assert_close(stems["instrumental"] + stems["vocals"], mixture)
