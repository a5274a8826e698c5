"""Pretraining from a teacher: its stems, the crops that are left out, and what is learned."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from separator import cli
from separator.config import parse
from separator.data.corpus import write_corpus
from separator.data.reader import load_stems
from separator.pretrain.config import PretrainConfig
from separator.pretrain.objectives.primary.teacher import TeacherConfig
from separator.pretrain.teacher_task import TeacherBatch, TeacherTask, selected
from separator.stems import FOUR_STEMS, TWO_STEMS
from tests.toys import MICRO, seeded


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=4, seconds=3.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    run = tmp_path_factory.mktemp("model")
    assert cli.main(["train", *MICRO, f"data.roots=[{corpus}]", "steps=2", f"run={run}"]) == 0
    return run / "model.safetensors"


FOUR = "model.stems=[vocals,drums,bass,other]"  # the augmentation expects another order


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """A model that separates four stems."""
    run = tmp_path_factory.mktemp("four")
    words = [*MICRO, FOUR, f"data.roots=[{corpus}]", "steps=2", f"run={run}"]
    assert cli.main(["train", *words]) == 0
    return run / "model.safetensors"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The other stem of each song, as mixed songs without stems."""
    folder = tmp_path_factory.mktemp("library")
    for path in corpus.rglob("vocals.flac"):
        (folder / f"{path.parent.name}.flac").write_bytes(path.read_bytes())
    return folder


def config_of(roots: Path, *models: Path, more: tuple[str, ...] = ()) -> PretrainConfig:
    named = ",".join(map(str, models))
    words = [*MICRO, f"data.roots=[{roots}]", f"teacher.models=[{named}]", "data.valid_share=0.3"]
    return parse(PretrainConfig, ["pretrain/teacher.yaml", *words, *more], "pretrain")


def test_stems_are_the_mean_of_the_teachers_estimates(corpus: Path, model: Path):
    more = ("teacher.sounding_db=0", "data.augment.remix=0", "data.augment.gain_db=0")
    more += ("data.augment.swap=0", "data.augment.polarity=0")
    task = TeacherTask(config_of(corpus, model, model, more=more))
    whole = task.teachers[1]
    task.teachers[1] = Teacher(lambda mixture: halved(mixture, whole(mixture)[:, 0]))
    batch = next(task.batches(0)).songs
    assert batch.stems.shape[1] == 1  # true stems, which the corpus has, are not read
    stems = task.stems(TeacherBatch(batch), seeded())
    true = task.teachers[0](batch.mixture)[:, 0]
    torch.testing.assert_close(stems[:, 0], 0.75 * true, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(stems.sum(1), batch.mixture, rtol=1e-4, atol=1e-5)
    assert task.step(task.model, TeacherBatch(batch), 0, seeded())["loss"].isfinite()


class Teacher:
    """A model that answers as a function does."""

    stems = TWO_STEMS

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, mixture: Tensor) -> Tensor:
        return self.function(mixture)


def halved(mixture: Tensor, accompaniment: Tensor) -> Tensor:
    """Stems (b 2 c t) of which the accompaniment is half as loud."""
    return torch.stack([0.5 * accompaniment, mixture - 0.5 * accompaniment], dim=1)


UNCHANGED = ("teacher.sounding_db=0", "data.augment.remix=0", "data.augment.gain_db=0",
             "data.augment.swap=0", "data.augment.polarity=0")  # fmt: skip


def test_four_stems_are_learned_from_teachers_of_four(library: Path, corpus: Path, four: Path):
    more = (*UNCHANGED, FOUR, "data.augment.drop_vocals=1", f"teacher.labels=[{corpus}]")
    task = TeacherTask(config_of(library, four, four, more=(*more, "data.batch=4")))
    batch = next(task.batches(0))
    stems, estimates = task.stems(batch, seeded()), task.teachers[0](batch.songs.mixture)
    assert stems.shape[:2] == (4, 4)
    torch.testing.assert_close(stems[:2, 1:], estimates[:, 1:], rtol=1e-4, atol=1e-5)
    assert estimates[:, 0].abs().max() > 0 and not stems[:2, 0].any()  # the vocals are dropped
    for place, name in enumerate(("drums", "bass", "other"), 1):
        given = batch.labels.stems[:, batch.labels.names.index(name)]
        torch.testing.assert_close(stems[2:, place], given)
    assert task.step(task.model, batch, 0, seeded())["loss"].isfinite()
    track = task.valid[0]
    read = task.read_stems(track, 8000)
    assert list(read) == ["vocals", "drums", "bass", "other"]
    mixture = load_stems(track, 8000, 0, 8000)["mixture"]
    torch.testing.assert_close(sum(read.values()), mixture, rtol=1e-4, atol=1e-5)
    assert task.validate(task.model, 0).scalars["valid/drums_sdr_mean"] is not None


def test_two_stems_are_learned_from_a_teacher_of_four(library: Path, four: Path, model: Path):
    task = TeacherTask(config_of(library, four, model, more=UNCHANGED))
    batch = next(task.batches(0))
    vocals = [
        task.teachers[0](batch.songs.mixture)[:, 0],
        task.teachers[1](batch.songs.mixture)[:, 1],
    ]
    torch.testing.assert_close(task.stems(batch, seeded())[:, 1], sum(vocals) / 2)


def test_a_teacher_must_give_all_stems(library: Path, model: Path, four: Path, capsys):
    words = [*MICRO, f"data.roots=[{library}]", "data.valid_share=0.3", FOUR]
    words += [f"teacher.models=[{four},{model}]"]
    assert cli.main(["pretrain", "pretrain/teacher.yaml", *words]) == 1
    assert f"{model} has no drums and no bass" in capsys.readouterr().err


def test_songs_with_too_few_stems_are_no_labels(tmp_path: Path, corpus: Path, four: Path, capsys):
    for path in corpus.rglob("vocals.flac"):
        folder = tmp_path / path.parent.name
        folder.mkdir()
        (folder / "vocals.flac").write_bytes(path.read_bytes())
        (folder / "accompaniment.flac").write_bytes((path.parent / "bass.flac").read_bytes())
    words = [*MICRO, f"data.roots=[{corpus}]", "data.valid_share=0.3", FOUR]
    words += [f"teacher.models=[{four}]", f"teacher.labels=[stems:{tmp_path}]"]
    assert cli.main(["pretrain", "pretrain/teacher.yaml", *words]) == 1
    assert "has no drums and no bass" in (error := capsys.readouterr().err)
    assert "remove it from teacher.labels" in error


def test_crops_of_one_stem_of_four_are_left_out():
    stems = torch.randn(1, 2, 4, 2, 8000, generator=seeded())
    stems[0, :, 1:3] *= 1e-3
    stems[0, 1, 3] *= 1e-3
    config = replace(limits(sounding_db=30.0), objective="teacher")
    config = replace(config, model=replace(config.model, stems=FOUR_STEMS.names))
    assert selected(stems, config).tolist() == [True, False]


def test_stems_are_shuffled_between_songs(corpus: Path, model: Path):
    more = ("teacher.sounding_db=0", "data.augment.remix=1", "data.batch=8")
    more += ("data.augment.gain_db=0", "data.augment.swap=0", "data.augment.polarity=0")
    task = TeacherTask(config_of(corpus, model, more=more))
    batch = next(task.batches(0))
    stems = task.stems(batch, seeded())
    mixtures = batch.songs.mixture.abs()
    apart = [(stem.sum(0).abs() - mixtures).abs().amax((1, 2)).min() for stem in stems]
    assert max(apart) > 0.01  # at least one new mixture is none of the old ones


def estimates_of(vocals: list[float], crops: int = 3) -> Tensor:
    """One teacher's stems (1 b 2 c t): noise, and noise at a level of so many decibels."""
    stems = torch.randn(1, crops, 2, 2, 8000, generator=seeded())
    stems[0, :, 1] *= torch.tensor([10 ** (level / 20) for level in vocals])[:, None, None]
    return stems


def limits(**values: float) -> PretrainConfig:
    none = TeacherConfig(models=["x"], sounding_db=0.0)
    config = parse(PretrainConfig, [*MICRO, "data.roots=[x]"], "pretrain")
    return replace(config, teacher=replace(none, **values))


def test_crops_of_one_stem_are_left_out():
    stems = estimates_of([0.0, -40.0, 40.0])
    assert selected(stems, limits()).tolist() == [True, True, True]
    assert selected(stems, limits(sounding_db=30.0)).tolist() == [True, False, False]
    all_lost = selected(stems[:, 1:], limits(sounding_db=30.0))
    assert all_lost.tolist() == [True, True]  # no batch is empty


def test_crops_that_are_left_out_are_not_learned_from(corpus: Path, model: Path):
    more = ("data.batch=4", "data.augment.remix=0")
    task = TeacherTask(config_of(corpus, model, more=more))
    batch = next(task.batches(0))

    def estimate(mixture: Tensor) -> Tensor:  # no voice in two of the crops
        whole = mixture * torch.tensor([1.0, 0.5, 1.0, 0.5])[:, None, None]
        return torch.stack([whole, mixture - whole], dim=1)

    task.teachers[0] = Teacher(estimate)
    stems = task.stems(batch, seeded())
    assert len(stems) == 2 and (stems[:, 1].abs().amax((1, 2)) > 0).all()


def test_crops_on_which_teachers_differ_are_left_out():
    one = estimates_of([0.0, 0.0, 0.0])
    other = one.clone()
    other[0, 1, 1] += 2 * torch.randn(2, 8000, generator=seeded(1))
    other[0, 2, 1] += 0.1 * torch.randn(2, 8000, generator=seeded(2))
    both = torch.cat([one, other])
    assert selected(both, limits(agreement_db=3.0)).tolist() == [True, False, True]
    # by hand: the mean is half a deviation d from each, so its SDR is 10 log10(|mean|² / |d / 2|²)
    mean, half = both[:, 2, 1].mean(0), (one - other)[0, 2, 1] / 2
    ratio = 10 * math.log10(mean.square().sum() / half.square().sum())
    assert selected(both, limits(agreement_db=ratio - 0.1)).tolist()[2]
    assert not selected(both, limits(agreement_db=ratio + 0.1)).tolist()[2]


def test_crops_in_which_no_stem_is_ever_alone_are_left_out():
    stems = estimates_of([0.0, 0.0, 0.0])
    stems[0, 1, 1, :, 1600:2400] = 0  # a tenth of a second without a voice
    assert selected(stems, limits(contrast_db=30.0)).tolist() == [False, True, False]


class Fixed(nn.Module):
    """Answers with masks of given heights, one for each crop."""

    def __init__(self, heights: list[float]) -> None:
        super().__init__()
        self.heights = nn.Parameter(torch.tensor(heights))

    def forward(self, x: Tensor) -> Tensor:
        return self.heights[:, None, None, None].expand_as(x)


def test_the_worst_crops_of_a_batch_are_dropped(corpus: Path, model: Path):
    task = TeacherTask(config_of(corpus, model, more=("teacher.drop=0.4",)))
    wave = torch.randn(5, 2, 8000, generator=seeded())
    network = Fixed([1.0, 0.2, 0.9, 0.1, 0.95])
    task.stems = lambda batch, generator: torch.stack([wave, torch.zeros_like(wave)], dim=1)
    losses = task.step(network, TeacherBatch(next(task.batches(0)).songs), 0, seeded())
    losses["loss"].backward()
    assert (network.heights.grad != 0).tolist() == [True, False, True, False, True]


def test_part_of_each_batch_is_songs_with_their_true_stems(
    library: Path, corpus: Path, model: Path
):
    more = (f"teacher.labels=[{corpus}]", "data.batch=8", "teacher.label_share=0.25")
    more += ("teacher.sounding_db=0", "data.augment.remix=0", "data.augment.gain_db=0")
    more += ("data.augment.swap=0", "data.augment.polarity=0", "data.augment.speed=0")
    task = TeacherTask(config_of(library, model, more=more))
    batch = next(task.batches(0))
    assert batch.songs.stems.shape[:2] == (6, 1) and len(batch.labels.stems) == 2
    assert batch.seconds(8000) == 8.0
    stems = task.stems(batch, seeded())
    true = batch.labels.stems
    torch.testing.assert_close(stems[6:, 1], true[:, -1])
    torch.testing.assert_close(stems[6:].sum(1), true.sum(1))
    torch.testing.assert_close(stems[:6].sum(1), batch.songs.mixture, rtol=1e-4, atol=1e-5)
    assert {track.root for track in task.labelled} == {str(corpus)}
    assert not {track.name for track in task.labelled if track.split != "train"}
    fewer = TeacherTask(config_of(library, model, more=(*more, "teacher.label_fraction=0.4")))
    assert len(fewer.labelled) == 1 < len(task.labelled)
    assert len(task.songs()) == len(fewer.songs()) + len(task.labelled) - 1


def test_crops_with_true_stems_are_never_dropped(corpus: Path, model: Path):
    task = TeacherTask(config_of(corpus, model, more=("teacher.drop=0.7",)))
    wave = torch.randn(5, 2, 8000, generator=seeded())
    heights = torch.tensor([0.9, 1.0, 0.8, 0.1, 0.2])[:, None, None, None]
    estimate = heights[..., 0].square() * wave
    assert task.best(estimate, wave, 2).tolist() == [1, 3, 4]
    assert task.best(estimate, wave, 0).tolist() == [1, 0]


def test_labels_are_songs_with_stems(library: Path, corpus: Path, model: Path, capsys):
    words = ["pretrain", "pretrain/teacher.yaml", *MICRO, f"data.roots=[{library}]"]
    words += [f"teacher.models=[{model}]", "data.valid_share=0.3"]
    assert cli.main([*words, f"teacher.labels=[{library}]"]) == 1
    assert "teacher.labels: no songs with stems" in capsys.readouterr().err
    assert cli.main([*words, f"teacher.labels=[{corpus}]", "data.batch=1"]) == 2
    assert "data.batch: teacher.labels" in capsys.readouterr().err


def test_songs_without_stems_are_scored_against_the_teacher(library: Path, model: Path):
    task = TeacherTask(config_of(library, model))
    track = task.valid[0]
    stems = task.read_stems(track, 8000)
    mixture = load_stems(track, 8000, 0, 8000)["mixture"]
    assert set(stems) == {"accompaniment", "vocals"}
    torch.testing.assert_close(stems["accompaniment"] + stems["vocals"], mixture)
    teacher = task.teachers[0].model
    result = task.validate(teacher, 0)
    assert result.scalars["valid/accompaniment_sdr_mean"] > 40  # the teacher against itself


def test_songs_with_stems_are_validated_with_where_there_are_some(
    library: Path, corpus: Path, model: Path
):
    task = TeacherTask(config_of(library, model, more=(f"data.roots=[{library},{corpus}]",)))
    assert task.valid and all("mixture" not in track.names for track in task.valid)
    assert {track.kind for track in task.train} == {"library", "stems"}


def test_a_teacher_of_another_rate_is_refused(corpus: Path, model: Path, capsys):
    words = [*MICRO, "rate=16000", f"data.roots=[{corpus}]", f"teacher.models=[{model}]"]
    assert cli.main(["pretrain", "pretrain/teacher.yaml", *words]) == 1
    assert "give rate=8000" in capsys.readouterr().err


def test_songs_without_stems_need_a_teacher(library: Path, capsys):
    words = ["pretrain", "pretrain/teacher.yaml", *MICRO, f"data.roots=[{library}]"]
    assert cli.main([*words, "data.valid_share=0.3"]) == 1
    assert f"teacher.models: there is none, and {library} has" in capsys.readouterr().err


def test_without_a_teacher_stems_are_those_of_the_files(corpus: Path):
    more = ("teacher.sounding_db=0", f"teacher.labels=[{corpus}]", "data.batch=8")
    task = TeacherTask(config_of(corpus, more=more))
    batch = next(task.batches(0))
    stems = task.stems(batch, seeded())
    given = torch.cat([batch.songs.stems, batch.labels.stems])  # drums, bass, other, vocals
    torch.testing.assert_close(stems[:, 1], given[:, -1])
    torch.testing.assert_close(stems.sum(1), given.sum(1))
    assert task.step(task.model, batch, 0, seeded())["loss"].isfinite()
    track = task.valid[0]
    true = load_stems(track, 8000, 0, 8000)["vocals"]
    torch.testing.assert_close(task.read_stems(track, 8000)["vocals"], true)


def test_without_a_teacher_crops_of_one_stem_are_left_out(corpus: Path):
    task = TeacherTask(config_of(corpus, more=("data.batch=8",)))
    batch = next(task.batches(0))
    batch.songs.stems[2, -1] *= 1e-4
    stems = task.stems(batch, seeded())
    others = [place for place in range(8) if place != 2]
    torch.testing.assert_close(stems[:, 1], batch.songs.stems[others, -1])


@pytest.mark.parametrize("labels", [False, True])
def test_a_run_is_the_same_in_one_piece_and_in_two(
    library: Path, corpus: Path, model: Path, tmp_path: Path, labels: bool
):
    states = []
    for parts in ([4], [2, 4]):
        run = tmp_path / f"run{len(parts)}"
        for steps in parts:
            words = [*MICRO, f"data.roots=[{library}]", f"teacher.models=[{model}]"]
            words += ["data.valid_share=0.3", f"steps={steps}", "optim.schedule=constant"]
            words += [f"run={run}", "device=cpu"]
            words += [f"teacher.labels=[{corpus}]"] if labels else []
            assert cli.main(["pretrain", "pretrain/teacher.yaml", *words]) == 0
        states.append(torch.load(run / "last.pt", weights_only=True)["model"])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
