"""MUSDB18's 7-second excerpts: fetched by musdb, whole or not at all, and only once."""

import io
import shutil
import urllib.error
import zipfile
from pathlib import Path

import pytest

from separator import cli
from separator.data.musdb_sample import fetch_sample
from separator.data.tracks import find_tracks
from separator.errors import SeparatorError

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs the ffmpeg program")


class Reply(io.BytesIO):
    """What musdb reads a download from."""

    def info(self) -> dict[str, str]:
        return self

    def get_all(self, name: str) -> list[str]:
        return [str(len(self.getvalue()))]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def serve(monkeypatch: pytest.MonkeyPatch, content: bytes | Exception) -> list[str]:
    """Let musdb's requests be answered by this; list their addresses."""
    import musdb

    asked = []

    def answer(request: object) -> Reply:
        asked.append(request.full_url)
        if isinstance(content, Exception):
            raise content
        return Reply(content)

    monkeypatch.setattr(musdb, "urlopen", answer)
    return asked


def test_it_is_fetched_once(example_stem: Path, home: Path, monkeypatch: pytest.MonkeyPatch):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(example_stem, "train/A - Song.stem.mp4")
        file.write(example_stem, "test/B - Song.stem.mp4")
    asked = serve(monkeypatch, archive.getvalue())
    (home / "MUSDB18" / "MUSDB18-7").mkdir(parents=True)  # musdb's own, interrupted
    folder = fetch_sample()
    assert folder == home / "MUSDB18" / "MUSDB18-7"
    assert {(t.name, t.kind) for t in find_tracks(folder)} >= {("A - Song", "musdb18")}
    assert fetch_sample() == folder
    assert len(asked) == 1
    assert asked[0].endswith("MUSDB18-7-STEMS.zip")
    assert [path.name for path in folder.parent.iterdir()] == ["MUSDB18-7"]


@pytest.mark.parametrize(
    "content", [urllib.error.URLError("Name or service not known"), b"no archive"]
)
def test_without_a_network_it_is_one_line_and_leaves_nothing(
    home: Path,
    content: bytes | Exception,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    serve(monkeypatch, content)
    with pytest.raises(SeparatorError, match=r"^musdb7s: cannot be fetched: .*copy [^\n]*$"):
        fetch_sample()
    assert not list((home / "MUSDB18").iterdir())
    run = home / "run"
    assert cli.main(["demo", "--data", "musdb7s", "--run", str(run)]) == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("separator: musdb7s: ")
    assert not run.exists()


def test_without_ffmpeg_it_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SeparatorError, match=r"^musdb7s: its files need the ffmpeg program"):
        fetch_sample()
