"""Both training commands, from the words on the command line to the files they leave.

A child process runs this file too, to be stopped or killed.
"""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
import soundfile
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from separator import Separator
from separator.cli import main
from separator.data.corpus import write_corpus
from separator.engine import checkpoint
from separator.engine.model_file import load_model
from separator.train.step import TrainTask
from tests.conftest import rank_variables
from tests.toys import read_model_file

pytestmark = pytest.mark.usefixtures("one_thread")

COMMANDS = ("pretrain", "train")
WORDS = [
    *("rate=8000", "stft.n_fft=256", "stft.hop=128", "device=cpu", "seed=3", "log_every=1"),
    *("model.channels=[2,4,4]", "model.encoder_blocks=[0,1,1]", "model.decoder_blocks=[0,1,1]"),
    *("model.ffn_dim=[0,32,32]", "model.dropout=0.1", "optim.warmup_steps=2", "steps=6"),
    *("data.batch=2", "data.segment_seconds=1", "data.workers=0", "data.valid_share=0.34"),
    *("checkpoint_every=3", "validate_every=0"),
]
ONLY = {
    "pretrain": [
        "valid_crops=2",
        "mask.group=4",
        "mask.warmup_steps=4",
        "mask.clean_share=0.2",
    ],
    "train": ["valid_seconds=2", "loss.wave_l1=0.1"],
}


def words(command: str, corpus: Path, run: Path, *more: str) -> list[str]:
    return [command, *WORDS, *ONLY[command], f"data.roots=[{corpus}]", f"run={run}", *more]


def rows(run: Path, kind: str = "train") -> list[dict]:
    """Rows of metrics.jsonl without the numbers that a clock made."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = [{k: v for k, v in row.items() if not k.startswith("speed/")} for row in found]
    return [row for row in found if row["kind"] == kind]


def assert_same_run(left: Path, right: Path) -> None:
    """Bit-equal histories of training, and bit-equal weights at the end."""
    assert [row["step"] for row in rows(left)] == list(range(1, 7))
    assert rows(left) == rows(right)
    one, two = (checkpoint.load(run / "last.pt") for run in (left, right))
    for key in ("model", "ema"):
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)


class Ranks:
    """Two processes that are the ranks of one run after another: to start them takes longest."""

    def __init__(self) -> None:
        self.children = [start_child("ranks", []) for _ in range(2)]

    def run(self, role: str, command_words: list[str]) -> list[list[str]]:
        """Run a command on both; return the lines that each printed."""
        for child, variables in zip(self.children, rank_variables(), strict=True):
            child.stdin.write(f"{json.dumps([role, command_words, variables])}\n")
            child.stdin.flush()
        return [self._read(child) for child in self.children]

    def _read(self, child: subprocess.Popen) -> list[str]:
        lines = []
        while (line := child.stdout.readline()) != "done 0\n":
            assert line and not line.startswith("done"), "what went wrong stands above"
            lines.append(line)
        return lines

    def end(self) -> None:
        for child in self.children:
            child.communicate(timeout=60)


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    ranks = Ranks()
    yield ranks
    ranks.end()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=3, seconds=6.0)


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Uninterrupted runs of both commands, in folders of their names."""
    folder = tmp_path_factory.mktemp("whole")
    for command in COMMANDS:
        assert main(words(command, corpus, folder / command)) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_leaves_its_files(whole: Path, command: str):
    run = whole / command
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.out")}
    assert names == {
        *("last.pt", "best-6.pt", "model.safetensors", "metrics.jsonl", "config.yaml"),
        *(["mixture"] if command == "train" else []),  # a line of its own in TensorBoard
    }
    train, (valid,) = rows(run), rows(run, "validation")
    assert [row["step"] for row in train] == list(range(1, 7))
    assert {"loss", "optim/lr", "optim/norm", "guard/skipped"} < train[0].keys()
    state, description = read_model_file(run / "model.safetensors")
    assert description["stage"] == command
    assert description["rate"] == 8000
    assert description["trained"]["score"] == valid["score"]
    model, _, about = load_model(run / "last.pt")
    torch.testing.assert_close(state, dict(model.state_dict()), rtol=0, atol=0)
    assert about["model"] == description["model"]


def test_pretraining_logs_the_improvement_over_the_best_trivial_answer(whole: Path):
    train, (valid,) = rows(whole / "pretrain"), rows(whole / "pretrain", "validation")
    assert {"loss/masked", "loss/unmasked", "loss/mask", "loss/noise", "loss/keep"} < train[
        0
    ].keys()
    best = min(valid[f"valid/l1_{name}"] for name in ("zero", "bin_mean", "interpolation"))
    assert best > 0
    assert valid["score"] == valid["valid/improvement"]
    assert valid["score"] == pytest.approx(1 - valid["valid/l1_model"] / best)


def test_training_logs_the_sdr(whole: Path):
    train, (valid,) = rows(whole / "train"), rows(whole / "train", "validation")
    assert {"loss/magnitude_l1", "loss/wave_l1"} < train[0].keys()
    assert valid["valid/loss"] == pytest.approx(
        valid["valid/loss/magnitude_l1"] + 0.1 * valid["valid/loss/wave_l1"]
    )
    assert valid["score"] == valid["valid/accompaniment_sdr_mean"]
    assert {"valid/vocals_sdr_median", "valid/mixture_sdr_mean"} < valid.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_pictures_and_sound_are_logged(whole: Path, command: str):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(whole / command))
    board.Reload()
    tags = board.Tags()
    images = {tag.split("/")[-1] for tag in tags["images"]}
    sounds = {tag.split("/")[-1] for tag in tags["audio"]}
    assert {tag.split("/")[0] for tag in tags["images"]} == {"spectrogram"}
    assert {tag.split("/")[0] for tag in tags["audio"]} == {"audio"}
    if command == "pretrain":
        assert images == {"original", "masked", "reconstructed", "mask", "error"}
        assert sounds == images - {"mask", "error"}
        assert len(tags["images"]) == 20  # of two crops of validation and two of training
    else:
        assert images == sounds == {"mixture", "estimate", "target"}
    if command == "pretrain":  # no cell is covered by another crop
        assert {"2_loss_pretrain/mask", "loss_share/mask"} < {*tags["scalars"]}
        assert not {"2_loss_pretrain/other", "loss_share/other"} & {*tags["scalars"]}
    quality = {"pretrain": {"gain_over_trivial"}, "train": {"accompaniment_db", "vocals_db"}}
    drawn = {tag.removeprefix("1_quality/") for tag in tags["scalars"] if tag[0] == "1"}
    assert drawn == quality[command]
    losses = [event.value for event in board.Scalars(f"2_loss_{command}/total")]
    assert losses == pytest.approx([row["loss"] for row in rows(whole / command)])
    image = board.Images(tags["images"][0])[0]
    assert (image.height, image.width) == (320, 560)
    assert board.Audio(tags["audio"][0])[0].sample_rate == 8000


SHOWN_FIRST = {
    "pretrain": {"original", "masked", "reconstructed"},
    "train": {"mixture", "target"},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_step_0_shows_the_first_crops_of_a_new_run(
    corpus: Path, whole: Path, tmp_path: Path, command: str
):
    """A run that goes on does not repeat them."""
    first = {(f"training_crop{i}", kind) for i in range(2) for kind in SHOWN_FIRST[command]}
    sounds = media_of(whole / command, "audio")
    assert {name for name, step in sounds if step == 0} == first
    assert {name for name, step in sounds if name in first and step} == set()
    pictures = {name for name, step in media_of(whole / command, "images") if step == 0}
    assert pictures >= first
    shutil.copytree(whole / command, tmp_path / "run")
    assert main(words(command, corpus, tmp_path / "run", "steps=7")) == 0
    assert media_of(tmp_path / "run", "audio").keys() - sounds.keys() != set()
    again = media_of(tmp_path / "run", "audio")
    assert [place for place in again if place[1] == 0] == [p for p in sounds if p[1] == 0]
    assert {len(again[place]) for place in again if place[1] == 0} == {1}


def media_of(run: Path, kind: str) -> dict[tuple[tuple[str, str], int], list]:
    """Return TensorBoard's pictures or sounds of a run, by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run), size_guidance={kind: 0})
    board.Reload()
    found: dict = {}
    for tag in board.Tags()[kind]:
        for event in getattr(board, kind.capitalize())(tag):
            found.setdefault((tuple(tag.split("/")[1:]), event.step), []).append(event)
    return found


def test_the_sounds_of_step_0_are_what_training_begins_with(corpus: Path, whole: Path):
    from separator.config import parse
    from separator.train.config import TrainConfig

    task = TrainTask(parse(TrainConfig, words("train", corpus, whole / "train")[1:], "train"))
    batch = next(task.batches(0))
    sounds = media_of(whole / "train", "audio")
    for index in range(2):
        expected = {"mixture": batch.stems[index].sum(0), "target": batch.stems[index, :-1].sum(0)}
        for kind, wave in expected.items():
            (event,) = sounds[(f"training_crop{index}", kind), 0]
            samples, _ = soundfile.read(io.BytesIO(event.encoded_audio_string), dtype="float32")
            heard = torch.from_numpy(samples).T
            torch.testing.assert_close(heard, wave.clamp(-1, 1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("command", COMMANDS)
def test_step_0_does_not_change_the_training(
    corpus: Path, whole: Path, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        "separator.engine.loop.preview", lambda task, model, batches, *rest: batches
    )
    assert main(words(command, corpus, tmp_path / command)) == 0
    assert not [step for _, step in media_of(tmp_path / command, "audio") if step == 0]
    assert_same_run(tmp_path / command, whole / command)


def test_three_steps_and_three_more_are_six(corpus: Path, tmp_path: Path):
    """A longer `steps` continues the run; the schedule is one that does not look at the end."""
    command = "train"  # pretraining, with every objective, below
    flat = "optim.schedule=constant"
    assert main(words(command, corpus, tmp_path / "whole", flat)) == 0
    parts = words(command, corpus, tmp_path / "parts", flat)
    assert main([*parts, "steps=3"]) == 0
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1, 2, 3]
    assert main(parts) == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


EVERYTHING = [
    *("next.weight=0.1", "next.token=4", "labels.weight=[[0,0.1],[6,0.2]]", "labels.group=4"),
    *("labels.clusters=4", "labels.crops=8", "contrast.weight=0.1", "contrast.features=8"),
    *("mask.strategy=hard", "hard.weight=0.1", "mask.weighted_steps=6", "mask.mix=0.1"),
    *("mask.voice_share=0.6", "wave.weight=0.1"),
    *("adversary.weight=[[2,0],[4,0.1]]", "adversary.start=1", "adversary.lr=1e-4"),
    *("data.segment_seconds=2", "crop_frames=[[0,24],[4,56]]", "unmasked_weight=[[0,1],[5,0]]"),
]


def test_every_objective_and_curriculum_together_resumes_exactly(corpus: Path, tmp_path: Path):
    more = [*EVERYTHING, "optim.schedule=constant", "optim.warmup_steps=2", "optim.kind=muon"]
    more.append(f"mask.voices=[{corpus}]")
    assert main(words("pretrain", corpus, tmp_path / "whole", *more)) == 0
    parts = words("pretrain", corpus, tmp_path / "parts", *more)
    assert main([*parts, "steps=3"]) == 0
    assert main([*parts, "data.workers=1"]) == 0  # nor does the number of workers matter
    assert_same_run(tmp_path / "parts", tmp_path / "whole")
    one, two = (checkpoint.load(tmp_path / run / "last.pt") for run in ("whole", "parts"))
    torch.testing.assert_close(one["discriminator"], two["discriminator"], rtol=0, atol=0)
    row = rows(tmp_path / "whole")[-1]
    names = ("next", "labels", "contrast", "hard", "adversary", "wave")
    assert all(row[f"loss/{name}"] != 0 for name in names)
    assert row["guard/skipped"] == 0
    state, description = read_model_file(tmp_path / "whole" / "model.safetensors")
    assert description["architecture"] == "frame_transformer"
    assert not [name for name in state if name.startswith(("backbone", "heads"))]


@pytest.mark.slow
def test_the_number_of_ranks_changes_no_curriculum(corpus: Path, tmp_path: Path, ranks: Ranks):
    """Three steps of two ranks, three more of one process: every step has what one alone gives."""
    more = [*EVERYTHING, "optim.schedule=constant", "optim.warmup_steps=2", "device=cpu"]
    more.append(f"mask.voices=[{corpus}]")
    assert main(words("pretrain", corpus, tmp_path / "one", *more)) == 0
    parts = words("pretrain", corpus, tmp_path / "two", *more)
    said = [lines[-1] for lines in ranks.run("ranked", [*parts, "steps=3"])]
    assert said[0] == said[1]  # the same weights, clusters and discriminator on both
    assert said[0].startswith("state ")
    assert main(parts) == 0
    one, two = (rows(tmp_path / run) for run in ("one", "two"))
    assert [row["step"] for row in two] == list(range(1, 7))
    for alone, shared in zip(one, two, strict=True):
        assert alone.keys() == shared.keys()
        for key in ("optim/lr", "guard/skipped"):
            assert alone[key] == shared[key]
        for key in ("loss/adversary", "adversary/loss"):  # 0 until its turn comes
            assert bool(alone[key]) == bool(shared[key])
    # other crops, so another loss; but rank 0 fits the clusters on what one alone would read
    assert one[0]["loss"] != two[0]["loss"]
    one, two = (checkpoint.load(tmp_path / run / "last.pt")["model"] for run in ("one", "two"))
    clusters = {key for key in one if key.startswith("heads.labels.labeller.")}
    assert clusters
    assert all(torch.equal(one[key], two[key]) for key in clusters)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGHUP, 0)])
def test_a_stopped_command_exits_cleanly_and_resumes(
    corpus: Path, whole: Path, tmp_path: Path, workers: int, number: int, capfd
):
    command = "train"  # the loop is the same; being killed, below, is worse
    command_words = words(command, corpus, tmp_path / "run", f"data.workers={workers}")
    with start_child("stopped", command_words) as child:
        assert child.stdout.readline() == "in step 2\n"
        os.killpg(child.pid, number)  # SLURM and terminals signal the workers too
        time.sleep(1)  # what a worker does at a signal, it has done
        child.stdin.write("go on\n")
        child.stdin.flush()
        assert child.wait(timeout=60) == 128 + number
    said = capfd.readouterr().err
    assert "Traceback" not in said and "resource_tracker" not in said
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 2
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert main(command_words) == 0
    assert_same_run(tmp_path / "run", whole / command)


def test_killed_in_the_middle_of_a_save(corpus: Path, whole: Path, tmp_path: Path):
    command = "pretrain"
    command_words = words(command, corpus, tmp_path / "run", "checkpoint_every=2")
    with start_child("killed", command_words) as child:
        assert child.stdout.readline() == "half written\n"
        child.kill()
    assert list((tmp_path / "run").glob(".*.part.*"))
    assert checkpoint.load(tmp_path / "run" / "last.pt")["step"] == 2
    assert main(command_words) == 0
    assert not list((tmp_path / "run").glob(".*.part.*"))
    assert_same_run(tmp_path / "run", whole / command)


def test_memory_that_runs_out_names_what_the_run_goes_on_with(
    corpus: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def fail(task: TrainTask, model: object, batch: object, step: int, generator: object) -> dict:
        if step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole_step(task, model, batch, step, generator)

    whole_step = TrainTask.step
    command_words = words("train", corpus, tmp_path / "run", "validate_every=0", "steps=4")
    with monkeypatch.context() as patch:
        patch.setattr(TrainTask, "step", fail)
        assert main(command_words) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "give data.batch=1 accumulate=2, which keeps the samples of a step" in message
    assert message.endswith("; the run is saved after step 2")
    assert main([*command_words, "data.batch=1", "accumulate=2"]) == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == [1, 2, 3, 4]
    assert checkpoint.load(tmp_path / "run" / "last.pt")["micro_batches"] == 2
    assert main([*command_words, "data.batch=1", "accumulate=1", "steps=5"]) == 1
    assert "has 2 samples; give accumulate=2" in capsys.readouterr().err.splitlines()[-1]


def test_the_data_may_move(
    corpus: Path, whole: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "mnt").mkdir()
    shutil.copytree(corpus, tmp_path / "here")
    assert main(words("train", tmp_path / "here", tmp_path / "run", "steps=3")) == 0
    (tmp_path / "here").rename(tmp_path / "mnt" / "there")
    moved = words("train", Path("mnt/there"), tmp_path / "run", "optim.warmup_steps=2")
    monkeypatch.chdir(tmp_path)
    assert main([*moved, "steps=4"]) == 0
    monkeypatch.chdir(tmp_path / "mnt")
    assert main(words("train", Path("../mnt/there"), tmp_path / "run", "steps=5")) == 0
    capsys.readouterr()
    song = next((tmp_path / "mnt" / "there").iterdir())
    write_corpus(tmp_path / "other", songs=2, seconds=6.0, seed=9)
    shutil.rmtree(song)
    next((tmp_path / "other").iterdir()).rename(song)
    elsewhere = tmp_path / "mnt" / "there"
    assert main(words("train", elsewhere, tmp_path / "run", "steps=6")) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("separator: data.roots: ")
    assert "of which 2 are in this command's 3" in message


@pytest.mark.parametrize("command", COMMANDS)
def test_no_step_needs_double_precision_which_a_macs_gpu_lacks(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
):
    from separator.engine import loop

    found: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            out = function(*arguments, **(options or {}))
            kinds = {leaf.dtype for leaf in tree_leaves(out) if isinstance(leaf, Tensor)}
            if kinds & {torch.float64, torch.complex128}:
                found.add(str(function))
            return out

    def step(run: loop._Run, batches: Iterator[object]) -> dict[str, Tensor]:
        with Watch():
            return whole_step(run, batches)

    whole_step = loop._Run.step
    monkeypatch.setattr(loop._Run, "step", step)
    assert main(words(command, corpus, tmp_path / "run", "steps=1")) == 0
    assert not found


@pytest.mark.slow
def test_two_ranks_train_and_validate_as_one_does(corpus: Path, tmp_path: Path, ranks: Ranks):
    """Also with pictures, and with one rank going on where two stopped."""
    more = ["optim.schedule=constant", "data.valid_share=0.6", "validate_every=2", "steps=4"]
    assert main(words("train", corpus, tmp_path / "one", *more, "accumulate=2")) == 0
    parts = words("train", corpus, tmp_path / "two", *more)
    ranks.run("plain", [*parts, "steps=2"])
    assert main(parts) == 0
    for kind in ("train", "validation"):
        one, two = (rows(tmp_path / run, kind) for run in ("one", "two"))
        assert len(one) == len(two) > 1
        for left, right in zip(one, two, strict=True):
            del left["kind"], right["kind"]
            assert left == pytest.approx(right, rel=1e-3, abs=1e-4)
    one, two = (checkpoint.load(tmp_path / run / "last.pt")["model"] for run in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_ranks_pretrain_and_validate_as_one_does(corpus: Path, tmp_path: Path, ranks: Ranks):
    more = ["valid_crops=9", "contrast.weight=0.1", "contrast.features=8", "steps=2"]
    assert main(words("pretrain", corpus, tmp_path / "one", *more, "accumulate=2")) == 0
    parts = words("pretrain", corpus, tmp_path / "two", *more)
    ranks.run("plain", parts)
    for kind in ("train", "validation"):
        one, two = (rows(tmp_path / run, kind) for run in ("one", "two"))
        for left, right in zip(one, two, strict=True):
            gaps = {name for name, value in left.items() if value is None}
            assert gaps == {name for name, value in right.items() if value is None}
            for name in {"kind", *gaps}:
                del left[name], right[name]
            assert left == pytest.approx(right, rel=1e-3, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        ["pretrain/teacher.yaml", "teacher.models=[{model}]", "teacher.labels=[{corpus}]"],
        ["pretrain/mixit.yaml", "mixit.sources=3", "mixit.voices=[{corpus}]"],
    ],
    ids=["teacher", "mixit"],
)
def test_two_ranks_separate_in_pretraining_as_one_does(
    objective: list[str], corpus: Path, tmp_path: Path, ranks: Ranks
):
    assert main(words("train", corpus, tmp_path / "model", "steps=1")) == 0
    model = tmp_path / "model" / "model.safetensors"
    preset, *told = [word.format(corpus=corpus, model=model) for word in objective]
    more = [*told, "steps=2", "valid_crops=2", "data.valid_share=0.5"]
    _, *parts = words("pretrain", corpus, tmp_path / "one", *more, "accumulate=2")
    assert main(["pretrain", preset, *parts]) == 0
    _, *parts = words("pretrain", corpus, tmp_path / "two", *more)
    ranks.run("plain", ["pretrain", preset, *parts])
    for kind in ("train", "validation"):
        one, two = (rows(tmp_path / run, kind) for run in ("one", "two"))
        assert len(one) == len(two) > 0
        for left, right in zip(one, two, strict=True):
            del left["kind"], right["kind"]
            assert left == pytest.approx(right, rel=1e-3, abs=1e-3)
    one, two = (checkpoint.load(tmp_path / run / "last.pt")["model"] for run in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_fine_tuning_starts_from_the_pretrained_file(corpus: Path, whole: Path, tmp_path: Path):
    file = whole / "pretrain" / "model.safetensors"
    fine = words("train", corpus, tmp_path / "run", f"pretrained={file}", "layer_decay=0.5")
    assert main([*fine, "head=keep", "steps=1", "optim.lr=1e-9"]) == 0
    before, after = read_model_file(file)[0], read_model_file(tmp_path / "run/model.safetensors")[0]
    torch.testing.assert_close(before, after, rtol=1e-5, atol=1e-6)
    groups = checkpoint.load(tmp_path / "run" / "last.pt")["optimizer"]["param_groups"]
    assert {0.5**k for k in range(6)} <= {group["lr_scale"] for group in groups}
    separated = Separator.load(tmp_path / "run" / "model.safetensors", device="cpu")
    wave = torch.rand(2, 9000, generator=torch.Generator().manual_seed(0)) - 0.5
    out = separated.separate_wave(wave, 8000)
    torch.testing.assert_close(out["instrumental"] + out["vocals"], wave)


def test_a_resumed_fine_tuning_no_longer_needs_the_pretrained_file(
    corpus: Path, whole: Path, tmp_path: Path
):
    file = tmp_path / "pretrained.safetensors"
    file.write_bytes((whole / "pretrain" / "model.safetensors").read_bytes())
    fine = words("train", corpus, tmp_path / "run", f"pretrained={file}", "steps=2")
    assert main(fine) == 0
    file.unlink()
    assert main([*fine, "steps=3"]) == 0
    assert len(rows(tmp_path / "run")) == 3


def test_a_pretrained_file_of_other_sizes_is_refused(
    corpus: Path, whole: Path, tmp_path: Path, capsys
):
    file = whole / "pretrain" / "model.safetensors"
    fine = words("train", corpus, tmp_path / "run", f"pretrained={file}", "model.channels=[2,4,6]")
    assert main(fine) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"separator: model.channels: {file} was made with [2, 4, 4]")
    assert not (tmp_path / "run").exists()


def test_a_patch_transformer_is_fine_tuned_and_its_sizes_are_named(
    corpus: Path, tmp_path: Path, capsys
):
    patch = ["architecture=patch_transformer", "patch.patch=8", "patch.width=16", "patch.depth=1"]
    patch += ["patch.heads=2", "patch.ffn_dim=32", "patch.decoder_width=16"]
    patch += ["patch.decoder_depth=1", "patch.decoder_heads=2"]
    more = [*patch, "steps=1"]
    assert main(words("pretrain", corpus, tmp_path / "pretrain", *more)) == 0
    file = tmp_path / "pretrain" / "model.safetensors"
    fine = words(
        "train", corpus, tmp_path / "run", *more, f"pretrained={file}", "patch.dropout=0.1"
    )
    assert main([*fine, "patch.width=32"]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"separator: patch.width: {file} was made with 16, this run says 32")
    assert main(fine) == 0
    separated = Separator.load(tmp_path / "run" / "model.safetensors", device="cpu")
    wave = torch.rand(2, 9000, generator=torch.Generator().manual_seed(0)) - 0.5
    out = separated.separate_wave(wave, 8000)
    torch.testing.assert_close(out["instrumental"] + out["vocals"], wave)


def test_songs_without_stems_pretrain_and_do_not_train(corpus: Path, tmp_path: Path, capsys):
    library = tmp_path / "library"
    library.mkdir()
    for path in corpus.glob("*/other.flac"):
        (library / f"{path.parent.name}.flac").write_bytes(path.read_bytes())
    assert main(words("pretrain", library, tmp_path / "pretrain", "steps=1")) == 0
    capsys.readouterr()
    assert main(words("train", library, tmp_path / "train", "steps=1")) == 1
    assert "training needs stems" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "train").exists()  # the corrected command may be another


def start_child(role: str, command_words: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.test_trainers", role, *command_words],
        cwd=Path(__file__).parents[1],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def child_stopped(command_words: list[str]) -> int:
    """In the second step, say so and wait until the signal has come."""
    from separator.engine import loop

    whole_step = loop._Run.step

    def step(run: loop._Run, batches: Iterator[object]) -> dict[str, Tensor]:
        if run.state.step == 1:
            print("in step 2", flush=True)
            sys.stdin.readline()
        return whole_step(run, batches)

    loop._Run.step = step
    return main(command_words)


def child_killed(command_words: list[str]) -> int:
    """Train until the save after step 4, then wait inside it to be killed."""
    whole_save = torch.save

    def slow_save(payload: dict, file: BinaryIO) -> None:
        whole_save(payload, file)
        if payload["step"] == 4:
            file.flush()
            file.truncate(5000)
            print("half written", flush=True)
            signal.pause()

    torch.save = slow_save
    return main(command_words)


def child_ranked(command_words: list[str]) -> int:
    """Train to the end, then say what weights, clusters and discriminator are."""
    from separator.engine import loop

    whole_step, runs = loop._Run.step, []

    def step(run: loop._Run, batches: Iterator[object]) -> dict[str, Tensor]:
        runs.append(run)
        return whole_step(run, batches)

    loop._Run.step = step
    code = main(command_words)
    loop._Run.step = whole_step
    state, digest = runs[-1].state, hashlib.sha256()
    for module in (state.model, state.discriminator.network):
        for name, value in module.state_dict().items():
            digest.update(name.encode() + value.numpy().tobytes())
    print("state", digest.hexdigest(), flush=True)
    return code


def child_ranks(_: list[str]) -> int:
    """Be one of two ranks in each of the runs that are asked for."""
    for line in sys.stdin:
        role, command_words, variables = json.loads(line)
        os.environ.update(variables)  # another port for each run
        print("done", (child_ranked if role == "ranked" else main)(command_words), flush=True)
    return 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    roles = {"stopped": child_stopped, "killed": child_killed, "ranks": child_ranks}
    sys.exit(roles[sys.argv[1]](sys.argv[2:]))
