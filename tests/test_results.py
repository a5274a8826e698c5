"""Results are known by their song's content, the model and the settings, whatever happens."""

import os
import shutil
from pathlib import Path

import mutagen
import pytest
import soundfile
import torch

from separator import audio
from separator.data.library.scan import scan
from separator.data.tracks import find_tracks
from separator.errors import SeparatorError
from separator.inference import results, separate
from separator.inference.results import INDEX, Publication, Record, Results, stamp_of
from tests.songs import export_model, files, in_tmp, model, run, song  # noqa: F401

pytestmark = pytest.mark.usefixtures("in_tmp")


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO")
    return caplog


def times(folder: str) -> dict[str, int]:
    return {name: Path(folder, name).stat().st_mtime_ns for name in files(folder)}


def alike(result: str, original: torch.Tensor) -> bool:
    """Whether a result is of a song: noise does not correlate with another song's noise."""
    wave = audio.read(result)
    both = torch.stack([wave[0], original[0, : wave.shape[1]]]).diff(n=3)
    return bool(torch.corrcoef(both)[0, 1] > 0.5)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_another_albums_song_of_the_same_name(suffix: str) -> None:
    waves = [song(f"{album}/01 Intro.wav", 0.6, seed=ord(album)) for album in "abc"]
    for _ in range(2):
        for album in "abc":
            assert run(album, "-o", "out", "--format", suffix) == 0
        names = [f"01 Intro{number} (Instrumental).{suffix}" for number in ("", " 2", " 3")]
        assert files("out") == names
    found = [[alike(f"out/{name}", wave) for wave in waves] for name in names]
    assert torch.equal(torch.tensor(found), torch.eye(3, dtype=torch.bool))
    before = times("out")
    assert run("b", "-o", "out", "--format", suffix, "--overwrite") == 0
    after = times("out")
    assert [name for name in after if after[name] != before[name]] == [names[1]]


def test_a_folder_with_nothing_to_do_is_told_in_one_line(logged: pytest.LogCaptureFixture) -> None:
    song("a/1.wav", 0.3), song("a/2.wav", 0.3)
    assert run("a", "-o", "out") == 0
    assert "2 songs: 2 separated" in logged.text
    logged.clear()
    assert run("a", "-o", "out") == 0
    lines = [one.getMessage() for one in logged.records if one.levelname == "INFO"]
    assert lines == ["2 songs: separated already, nothing to do (--overwrite separates again)"]


def test_another_model_or_setting_does_songs_again_unless_kept(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    song("song.flac")
    words = ("song.flac", "--format", "mp3")
    assert run(*words) == 0
    first = times("stems")
    assert run(*words) == 0 and times("stems") == first
    assert "1 song: separated already, nothing to do (--overwrite " in logged.text
    other = str(export_model(tmp_path / "other.safetensors", seed=1))
    assert run(*words, "-m", other, "--keep") == 0 and times("stems") == first
    assert run(*words, "-m", other) == 0
    second = times("stems")
    assert second != first and "1 song: separated earlier with another model" in logged.text
    assert run(*words, "-m", other, "--bitrate", "128") == 0
    assert times("stems") != second
    third = times("stems")
    assert run(*words, "-m", other, "--bitrate", "128", "--shifts", "2") == 0
    fourth = times("stems")
    assert fourth != third
    assert run(*words, "-m", other, "--bitrate", "128", "--shifts", "2") == 0
    assert times("stems") == fourth
    assert run(*words, "-m", other, "--bitrate", "128", "--stems") == 0
    assert len(times("stems")) == 2
    assert times("stems")["song (Instrumental).mp3"] != third["song (Instrumental).mp3"]


@pytest.mark.parametrize("suffix", ["flac", "wav", "mp3"])
def test_stems_that_are_there_stay_when_others_are_asked_for(
    suffix: str, logged: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    wave = song("song.flac")
    words = ("song.flac", "--format", suffix)
    assert run(*words) == 0
    first = times("stems")
    capsys.readouterr()
    assert run(*words, "--stems", "--dry-run") == run(*words, "--stems") == 0
    assert capsys.readouterr().out == f"stems/song (Vocals).{suffix}\n" * 2
    assert "1 song: some of the results are there already; the missing" in logged.text
    assert "earlier" not in logged.text
    both = times("stems")
    assert len(both) == 2 and first.items() <= both.items()
    if suffix != "mp3":
        torch.testing.assert_close(
            sum(audio.read(f"stems/{n}") for n in both), wave, atol=1e-6, rtol=0
        )
    logged.clear()
    assert run(*words, "--stems") == run(*words, "--stems", "vocals") == run(*words) == 0
    assert times("stems") == both and logged.text.count("nothing to do") == 3


def test_stems_that_have_to_be_lowered_add_up_to_the_song_even_if_asked_for_in_turn() -> None:
    with audio.Writer("loud.wav", 44100, 2, subtype="FLOAT") as writer:
        writer.write(wave := song("song.wav") * 4)
    words = ("loud.wav", "--format", "flac")
    assert run(*words, "--stems", "vocals") == run(*words, "--stems") == 0
    stems = [audio.read(f"stems/{name}") for name in files("stems")]
    peak = max(float(wave.abs().max()), *(float(stem.abs().max()) for stem in stems))
    assert peak > 1 and len(stems) == 2
    lowered = sum(stems)
    gain = float((lowered * wave).sum() / wave.square().sum())
    torch.testing.assert_close(lowered, wave * gain, atol=1e-6, rtol=0)
    assert gain < 1


@pytest.mark.parametrize("indexed", [True, False])
def test_stems_made_softer_earlier_are_separated_again_with_the_missing_ones(
    indexed: bool, tmp_path: Path
) -> None:
    masks = {"drums": 0.7, "vocals": 0.2, "bass": 0.06, "other": 0.04}
    four = str(export_model(tmp_path / "four.safetensors", stems=masks))
    with audio.Writer("loud.wav", 44100, 2, subtype="FLOAT") as writer:
        writer.write(song("song.wav") * 4)
    assert run("loud.wav", "-o", "full", "-m", four, "--stems") == 0
    words = ("loud.wav", "--format", "flac", "-m", four, "--stems")
    for names in (["drums", "vocals"], ["vocals", "bass"], ["drums", "vocals"]):
        assert run(*words, *names) == 0
        pairs = [(f"stems/loud ({n}).flac", f"full/loud ({n}).wav") for n in map(str.title, names)]
        peaks = [[float(audio.read(path).abs().max()) for path in pair] for pair in pairs]
        gains = [peak / full for peak, full in peaks]
        assert gains == pytest.approx([1 / max(1, *(full for _, full in peaks))] * 2, rel=1e-3)
        if not indexed:
            Path("stems", INDEX).unlink()
    before = times("stems")
    assert run(*words, "vocals") == 0 and times("stems") == before


def test_keep_adds_missing_stems_to_those_of_another_model_or_unknown_origin(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    song("song.wav")
    assert run("song.wav") == 0
    first = times("stems")
    other = str(export_model(tmp_path / "other.safetensors", seed=1))
    words = ("song.wav", "-m", other, "--keep", "--stems")
    for _ in range(2):  # the second without an index
        assert run(*words) == 0
        assert "some of the results are there already" in logged.text
        assert "replaced" not in logged.text
        assert first.items() < times("stems").items()
        logged.clear()
        Path("stems", INDEX).unlink()
        Path("stems/song (Vocals).wav").unlink()


def test_another_version_does_songs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    song("song.wav")
    for version, again in (("1.2.3", True), ("1.2.4", False), ("1.3.0", True), ("2.3.0", True)):
        before = times("stems") if Path("stems").exists() else {}
        monkeypatch.setattr(separate, "__version__", version)
        assert run("song.wav") == 0
        assert (times("stems") != before) == again


def test_with_details_the_model_is_named_and_its_digest_is_in_the_tags(
    logged: pytest.LogCaptureFixture,
) -> None:
    name = os.environ["SEPARATOR_MODEL"]
    song("song.flac")
    assert run("song.flac") == 0
    digest = results.read_record(Path("stems/song (Instrumental).flac")).made_by["model"]
    said = f"(step 40, accompaniment 7.12 dB on its validation songs, digest {digest[:12]})"
    assert "digest" not in logged.text  # which says nothing to a musician
    logged.set_level("DEBUG")
    assert run("song.flac", "--verbose") == 0
    assert f"model: {name} {said}" in logged.text


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "opus", "m4a"])
def test_results_without_an_index_are_known_by_their_tags(suffix: str) -> None:
    song("music/song.wav", 0.5)
    assert run("music", "-o", "out", "--format", suffix) == 0
    before = times("out")
    Path("out", INDEX).unlink()
    assert run("music", "-o", "out", "--format", suffix) == 0 and times("out") == before
    result = Path("out", next(iter(before)))
    text = next(
        str(v) for k, v in mutagen.File(result).tags.items() if "SEPARATOR" in str(k).upper()
    )
    assert str(Path.cwd()) not in text  # of the user's folders nothing is told


def test_without_index_and_tags_a_file_is_neither_taken_for_a_result_nor_replaced(
    capsys: pytest.CaptureFixture,
) -> None:
    song("song.wav")
    assert run("song.wav") == 0
    Path("stems", INDEX).unlink()
    before = times("stems")
    assert run("song.wav") == 1 and times("stems") == before
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("separator: song.wav: stems/song (Instrumental).wav exists and it is ")
    assert "--keep" in line and "--overwrite" in line
    assert run("song.wav", "--keep") == 0 and times("stems") == before
    assert run("song.wav", "--overwrite") == 0 and times("stems") != before
    assert run("song.wav") == 0


@pytest.mark.parametrize("content", [b"", b"no audio " * 100])
def test_what_is_no_audio_is_no_result(content: bytes, capsys: pytest.CaptureFixture) -> None:
    song("song.wav")
    path = Path("stems/song (Instrumental).wav")
    path.parent.mkdir()
    path.write_bytes(content)
    for words in ([], ["--keep"]):
        assert run("song.wav", *words) == 1
        assert path.read_bytes() == content
        assert "exists and is no readable result; --overwrite" in capsys.readouterr().err
    assert run("song.wav", "--overwrite") == 0
    assert audio.probe(path).seconds == 0.7


def test_a_result_cut_short_afterwards_is_no_result() -> None:
    song("song.flac")
    assert run("song.flac", "--format", "wav") == 0
    path = Path("stems/song (Instrumental).wav")
    path.write_bytes(path.read_bytes()[:50_000])
    assert run("song.flac", "--format", "wav") == 1


def test_moved_songs_and_retagged_results_are_known() -> None:
    song("music/song.flac")
    assert run("music", "-o", "out") == 0
    shutil.move("music", "elsewhere")
    os.utime("elsewhere/song.flac")
    shutil.move("out", "results")
    result = Path("results/song (Instrumental).flac")
    file = mutagen.File(result)
    file["title"] = "Another"
    file.save()
    before = times("results")
    assert run("elsewhere", "-o", "results") == 0
    assert times("results") == before


def test_a_song_whose_sound_changed_is_done_again() -> None:
    song("song.wav", seed=3)
    assert run("song.wav") == 0
    wave = song("song.wav", seed=4)
    assert run("song.wav") == 0
    assert files("stems") == ["song (Instrumental).wav"]
    assert alike("stems/song (Instrumental).wav", wave)


def test_results_below_the_input_are_left_alone(
    logged: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    song("music/x.wav")
    assert run("music", "-o", "music", "--stems", "--format", "wav") == 0
    assert run("music", "-o", "music/flac", "--stems", "--format", "flac") == 0
    shutil.copytree("music/flac", "music/renamed", ignore=shutil.ignore_patterns(INDEX))
    logged.clear()
    assert run("music", "-o", "out") == 0
    assert files("out") == ["x (Instrumental).wav"]
    assert "6 files: left out of the songs, because this program wrote them" in logged.text
    assert run("out", "-o", "again") == 1
    assert "out: only files that this program wrote; give the songs" in capsys.readouterr().err
    inputs = sorted(str(path) for path in Path("music").glob("*.wav"))  # as a shell's *.wav
    assert run(*inputs, "-o", "by name") == 0
    assert files("by name") == ["x (Instrumental).wav"]
    assert run(inputs[0], "-o", "alone") == 0  # a result is separated if that is all one wants
    assert files("alone") == ["x (Instrumental) (Instrumental).wav"]


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac", "mp3", "ogg", "opus", "m4a", "stem.mp4"])
def test_a_library_leaves_results_out(suffix: str, tmp_path: Path) -> None:
    song("music/x.wav")
    song("music/x (Instrumental).flac", seed=5)  # a bought one
    assert run("music/x.wav", "-o", "out", "--format", suffix) == 0
    shutil.copytree("out", "music/copy")
    places = 1
    if suffix not in ("wav", "aiff"):
        shutil.copytree("out", "music/bare", ignore=shutil.ignore_patterns(INDEX))
        places = 2
    for _ in range(2):  # the second from the index
        found = scan(["music"], tmp_path / "i.sqlite", 1)
        assert [info.path.name for info in found.songs] == ["x (Instrumental).flac", "x.wav"]
        assert found.totals()["passed_over"] == {"results of `separator separate`": places}


def test_a_folder_of_results_is_no_library_but_may_be_laid_out_as_stems() -> None:
    song("music/x.wav")
    assert run("music", "--stems", "vocals", "-o", "out") == 0
    with pytest.raises(SeparatorError, match="out: holds results of `separator separate`, "):
        find_tracks("out")
    assert run("music", "--stems", "-o", "laid", "--name", "{name}/{stem}.{format}") == 0
    (track,) = find_tracks("laid")
    assert (track.kind, track.names) == ("stems", ("accompaniment", "vocals"))


def test_results_beside_their_songs_are_left_out_of_a_library(tmp_path: Path) -> None:
    song("music/x.wav")
    assert run("music", "-o", "music") == 0
    found = scan(["music"], tmp_path / "i.sqlite", 1)
    assert [info.path.name for info in found.songs] == ["x.wav"]


def test_a_bought_instrumental_is_a_song() -> None:
    """Its name alone does not make a file a result."""
    song("music/x.wav")
    song("music/x (Instrumental).wav", seed=5)
    assert run("music", "-o", "out") == 0
    assert files("out") == ["x (Instrumental) (Instrumental).wav", "x (Instrumental).wav"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: b"\0\xff{}[]" + lines[:-40],
        lambda lines: lines[: len(lines) // 2] + b"\n[1, 2]\n{}\n3\n" + lines,
        lambda lines: lines.replace(b'"content"', b'"conten"') + b'\n{"stamp": "x"}' + lines,
        lambda lines: lines + b"\n" + b"[" * 100_000,
    ],
)
def test_a_damaged_index_costs_at_most_its_damaged_lines(damage, capsys) -> None:
    song("a.wav")
    song("b.wav", seed=3)
    assert run("a.wav", "b.wav") == 0
    index = Path("stems", INDEX)
    index.write_bytes(damage(index.read_bytes()))
    before = times("stems")
    status = run("a.wav", "b.wav")
    assert times("stems") == before
    lines = [line for line in capsys.readouterr().err.splitlines() if "it is not known" in line]
    assert (status, len(lines)) in ((0, 0), (1, 1))


def test_a_run_that_ends_before_the_rename_is_done_again() -> None:
    song("song.wav")
    usual = os.replace

    def failing(source: Path, target: Path) -> None:
        if "(Instrumental)" in Path(target).name and not Path(target).name.startswith("."):
            raise OSError(5, "Input/output error")
        usual(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", failing)
        assert run("song.wav", "--stems") == 1
    assert not [name for name in files("stems") if "Instrumental" in name]
    assert run("song.wav", "--stems") == 0
    assert files("stems") == ["song (Instrumental).wav", "song (Vocals).wav"]


def test_a_name_that_another_run_took_meanwhile_is_left_to_it(tmp_path: Path) -> None:
    """Two runs at once into one folder, of two songs of one name: neither is lost."""
    path = tmp_path / "out" / "x.wav"
    song(path)
    records = [Record("content", f"song {n}", {}, output="x.wav") for n in (1, 2)]
    other = Record(audio.content_key(path), "song 2", {}, 0.0, "x.wav", stamp_of(path))
    with Publication(path.parent) as publication:
        publication.commit([other], {"x.wav": stamp_of(path)})
    with Publication(path.parent) as publication, pytest.raises(SeparatorError, match="run the co"):
        publication.commit(records[:1], {"x.wav": None})
    with Publication(path.parent) as publication:  # both did the same song
        publication.commit(records[1:], {"x.wav": None})
    assert Results().find(path) == other


def test_names_that_are_no_text_are_found_again() -> None:
    song("plain.wav")
    name = os.fsdecode(b"caf\xe9\x1b.wav")
    Path("plain.wav").rename(name)
    assert run(name) == 0
    before = times("stems")
    assert list(before) == [os.fsdecode(b"caf\xe9\x1b (Instrumental).wav")]
    assert run(name) == 0 and times("stems") == before


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_the_sample_format_is_the_songs(subtype: str) -> None:
    song("song.wav", subtype=subtype)
    assert run("song.wav") == 0
    assert soundfile.info("stems/song (Instrumental).wav").subtype == subtype
    assert run("song.wav", "--format", "flac") == 0
    expected = "PCM_16" if subtype == "PCM_16" else "PCM_24"
    assert soundfile.info("stems/song (Instrumental).flac").subtype == expected


def test_the_sample_format_can_be_chosen() -> None:
    song("song.wav", subtype="PCM_16")
    song("lossy.mp3")
    for bits, subtype in (("16", "PCM_16"), ("24", "PCM_24"), ("32", "FLOAT")):
        assert run("song.wav", "--bits", bits, "-o", bits) == 0
        assert soundfile.info(f"{bits}/song (Instrumental).wav").subtype == subtype
    assert run("lossy.mp3", "--format", "wav") == 0
    assert soundfile.info("stems/lossy (Instrumental).wav").subtype == "FLOAT"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--format", "mp3", "--bits", "16"], "bits: mp3 has no bits per sample"),
        (["--format", "flac", "--bits", "32"], "bits: flac holds 16 or 24"),
        (["--bits", "20"], "bits"),
        (["--keep", "--overwrite"], "--keep: contradicts --overwrite"),
    ],
)
def test_choices_that_do_not_go_together(words: list[str], line: str, capsys) -> None:
    song("song.wav", 0.1)
    assert run("song.wav", *words) in (1, 2)
    (error,) = capsys.readouterr().err.splitlines()
    assert line in error
