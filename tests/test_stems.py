"""Sets of stems, and four stems from training to files with the code of two."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import separator
from separator import audio, cli
from separator.data.corpus import write_corpus
from separator.errors import SeparatorError
from separator.separation import Separator
from separator.stems import FOUR_STEMS, TWO_STEMS, StemSet
from tests.toys import MICRO

FOUR = "model.stems=[vocals,drums,other,bass]"


@pytest.mark.parametrize(
    ("names", "expected", "rest", "masks"),
    [
        (("accompaniment", "vocals"), ("accompaniment", "vocals"), "accompaniment", 1),
        (("vocals",), ("vocals", "accompaniment"), "accompaniment", 1),
        (("drums",), ("drums", "other"), "other", 1),
        (("bass", "vocals"), ("bass", "vocals", "other"), "other", 3),
        (("other", "drums", "vocals", "bass"),) * 2 + ("other", 4),
    ],
)
def test_any_names_are_a_set_that_is_the_whole_mixture(
    names: tuple[str, ...], expected: tuple[str, ...], rest: str, masks: int
):
    stems = StemSet(names)
    assert (stems.names, stems.rest, stems.masks) == (expected, rest, masks)
    parts = stems.parts(FOUR_STEMS.names)
    assert sorted(sum(parts.values(), ())) == sorted(FOUR_STEMS.names)


@pytest.mark.parametrize("names", [(), ("voice",), ("drums", "drums"), ("accompaniment", "drums")])
def test_other_sets_are_refused(names: tuple[str, ...]):
    with pytest.raises(SeparatorError, match=r"^model\.stems: [^\n]+$"):
        StemSet(names)


def test_a_song_of_two_stems_lacks_those_of_four():
    assert FOUR_STEMS.lacking(TWO_STEMS.names) == ["drums", "bass"]
    assert StemSet(("vocals", "drums")).lacking(TWO_STEMS.names) == ["drums"]
    assert not TWO_STEMS.lacking(FOUR_STEMS.names)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=4, seconds=3.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    folder = tmp_path_factory.mktemp("four")
    words = ["train", *MICRO, "steps=2", f"data.roots=[{corpus}]", "loss.sdr=0.1", FOUR]
    assert cli.main([*words, "specaugment.time_blocks=1", f"run={folder}"]) == 0
    return folder


def test_training_and_validation_know_each_stem(run: Path):
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    scores = [rows[-1][f"valid/{name}_sdr_mean"] for name in FOUR_STEMS.names]
    assert rows[-1]["score"] == pytest.approx(np.mean(scores))
    assert len(set(scores)) == 4


def test_stems_add_up_to_the_mixture_however_they_are_made(run: Path, corpus: Path):
    model = Separator.load(run / "model.safetensors", "cpu")
    assert model.stems.names == ("vocals", "drums", "other", "bass")
    path = next(corpus.rglob("vocals.flac"))
    mixture, rate = audio.read(path), audio.probe(path).rate
    mixture = mixture + audio.read(path.with_name("drums.flac"))
    stems = model.separate_wave(mixture, rate)
    assert list(stems) == list(model.stems.names)
    torch.testing.assert_close(sum(stems.values()), mixture, atol=1e-6, rtol=0)
    assert min(wave.abs().max() for wave in stems.values()) > 1e-3
    mono = model.separate_wave(mixture[:1], rate)
    torch.testing.assert_close(sum(mono.values()), mixture[:1], atol=1e-6, rtol=0)
    pieces = list(model.stream(mixture.split(5000, dim=-1), rate, batch=2))
    streamed = torch.cat([piece for _, piece in pieces], dim=-1)
    torch.testing.assert_close(streamed.sum(0), mixture, atol=1e-6, rtol=0)
    torch.testing.assert_close(streamed, torch.stack(list(stems.values())), atol=1e-5, rtol=0)
    chunks = torch.randn(2, 2, 4000)
    torch.testing.assert_close(model(chunks).sum(1), chunks, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        ((), ("Bass", "Drums", "Other", "Vocals")),
        (("--stems",), ("Bass", "Drums", "Other", "Vocals")),
        (("--stems", "vocals", "drums"), ("Drums", "Vocals")),
        (("--stems", "instrumental"), ("Instrumental",)),
        (("--stems=Vocals,drums",), ("Drums", "Vocals")),
        (("--two-stems", "Vocals"), ("Instrumental", "Vocals")),
        (("--two-stems=drums",), ("Drums", "No drums")),
    ],
)
def test_the_stems_that_are_asked_for_are_written(
    words: tuple[str, ...], titles: tuple[str, ...], run: Path, corpus: Path, tmp_path: Path
):
    song = next(corpus.rglob("drums.flac"))
    model = str(run / "model.safetensors")
    options = ["-m", model, "-o", str(tmp_path), "--format", "wav", "--device", "cpu"]
    assert cli.main(["separate", *words, str(song), *options]) == 0
    files = {path.stem: audio.read(path) for path in tmp_path.glob("*.wav")}
    assert set(files) == {f"drums ({title})" for title in titles}
    stems = separator.separate(str(song), model=model, device="cpu")
    stems["instrumental"] = sum(wave for name, wave in stems.items() if name != "vocals")
    stems["no drums"] = sum(stems[name] for name in ("bass", "other", "vocals"))
    for title in titles:
        expected = stems[title.lower()]
        torch.testing.assert_close(files[f"drums ({title})"], expected, atol=1e-6, rtol=0)


def test_a_stem_that_the_model_lacks_is_one_line(run: Path, corpus: Path, capsys):
    song, model = str(next(corpus.rglob("drums.flac"))), str(run / "model.safetensors")
    assert cli.main(["separate", song, "-m", model, "--stems=guitar"]) == 2
    assert cli.main(["separate", song, "-m", model, "--two-stems=guitar"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "guitar" in line]
    assert len(errors) == 2 and all("has no guitar, only" in line for line in errors)


def test_each_stem_is_scored_and_the_accompaniment_beside_them(
    run: Path, corpus: Path, tmp_path: Path, capsys
):
    file = tmp_path / "report.json"
    words = [str(run / "model.safetensors"), f"--data={corpus}", f"--json={file}", "--jobs=1"]
    assert cli.main(["evaluate", *words, "--device=cpu"]) == 0
    assert "bass SDR" in capsys.readouterr().out
    report = json.loads(file.read_text())
    names = ["vocals", "drums", "other", "bass", "accompaniment"]
    assert report["stems"] == names == list(report["summary"]["ours"])
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
    for name in names:
        score = report["summary"]["ours"][name]["sdr_global_mean"]
        assert score == pytest.approx(rows[-1][f"valid/{name}_sdr_mean"], abs=1e-4)


def without_drums(corpus: Path, folder: Path) -> Path:
    for song in sorted(path.parent for path in corpus.rglob("vocals.flac")):
        (folder / song.name).mkdir(parents=True)
        for name, stem in (("vocals", "vocals"), ("accompaniment", "bass")):
            source = (song / f"{stem}.flac").read_bytes()
            (folder / song.name / f"{name}.flac").write_bytes(source)
    return folder


def test_data_without_a_stem_is_refused_in_one_line(
    run: Path, corpus: Path, tmp_path: Path, capsys
):
    root = without_drums(corpus, tmp_path / "two")
    words = ["train", *MICRO, f"data.roots=[{root}]", f"run={tmp_path / 'run'}"]
    assert cli.main([*words, FOUR]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(root) in error and "has no drums and no bass" in error and "model.stems" in error
    assert cli.main(["evaluate", str(run / "model.safetensors"), f"--data={root}"]) == 1
    assert "has no drums and no bass" in capsys.readouterr().err.splitlines()[-1]
    assert cli.main([*words, "steps=1"]) == 0


def test_a_model_of_two_stems_starts_one_of_four(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    words = ["train", *MICRO, "steps=1", f"data.roots=[{corpus}]"]
    assert cli.main([*words, f"run={tmp_path / 'two'}"]) == 0
    start = [f"pretrained={tmp_path / 'two' / 'model.safetensors'}", "head=keep"]
    assert cli.main([*words, FOUR, *start, f"run={tmp_path / 'four'}"]) == 0
    assert "the last layer starts anew for vocals, drums, other, bass" in caplog.text


def test_pretraining_has_one_mask(corpus: Path, capsys):
    assert cli.main(["pretrain", *MICRO, f"data.roots=[{corpus}]", FOUR]) == 2
    assert "model.stems: " in capsys.readouterr().err


@pytest.mark.parametrize("architecture", ["patch_transformer"])
def test_the_other_architecture_has_as_many_masks(architecture: str, corpus: Path, tmp_path: Path):
    words = ["train", *MICRO, "steps=1", f"data.roots=[{corpus}]", FOUR, f"run={tmp_path}"]
    words += [f"architecture={architecture}", "patch.width=16", "patch.depth=1", "patch.heads=2"]
    words += ["patch.ffn_dim=32", "patch.decoder_width=16", "patch.decoder_depth=1"]
    assert cli.main([*words, "patch.decoder_heads=2"]) == 0
    model = Separator.load(tmp_path / "model.safetensors", "cpu")
    assert model(torch.randn(1, 2, 4000)).shape == (1, 4, 2, 4000)
