"""Batches: a pure function of (seed, number), whole, labelled, and never made of zeros."""

import itertools
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from separator import audio, machine
from separator.data import dataset, workers
from separator.data.config import AugmentConfig, DataConfig
from separator.data.corpus import write_corpus
from separator.data.dataset import Batch, batches
from separator.data.roots import parse_root
from separator.data.tracks import Track, config_tracks, find_tracks, training_tracks
from separator.errors import SeparatorError
from separator.stems import FOUR_STEMS, TWO_STEMS

RATE = 44100
PLAIN = AugmentConfig(gain_db=0.0, swap=0.0, polarity=0.0, remix=0.0)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), songs=4, seconds=2.0)


@pytest.fixture(scope="module")
def tracks(corpus) -> list[Track]:
    return find_tracks(corpus)


def config(root: Path | str, **changes) -> DataConfig:
    values = {"segment_seconds": 0.5, "batch": 3, "workers": 0} | changes
    return DataConfig(roots=[str(root)], **values)


def take(count: int, *arguments, **options) -> list[Batch]:
    return list(itertools.islice(batches(*arguments, **options), count))


def same(one: list[Batch], two: list[Batch]) -> bool:
    return all(
        torch.equal(a.stems, b.stems) and torch.equal(a.valid, b.valid)
        for a, b in zip(one, two, strict=True)
    )


def noise(path: Path, seconds: float, seed: int, level: float = 0.1) -> torch.Tensor:
    wave = level * torch.randn(
        2, round(seconds * RATE), generator=torch.Generator().manual_seed(seed)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with audio.Writer(path, RATE, 2) as writer:
        writer.write(wave)
    return wave


def test_batches_have_the_four_stems_and_their_sum(corpus, tracks):
    (batch,) = take(1, tracks, config(corpus), RATE, seed=0)
    assert batch.stems.shape == (3, 4, 2, RATE // 2)
    assert batch.names == FOUR_STEMS.names
    assert batch.valid.tolist() == [RATE // 2] * 3
    assert torch.equal(batch.mixture, batch.stems.sum(1))


def test_worker_count_changes_nothing(corpus, tracks):
    alone = take(4, tracks, config(corpus), RATE, seed=3)
    helped = take(4, tracks, config(corpus, workers=2, memory_mb=1.0), RATE, seed=3)
    assert same(alone, helped)


def test_starting_later_equals_skipping(corpus, tracks):
    whole = take(8, tracks, config(corpus), RATE, seed=3)
    assert same(whole[5:], take(3, tracks, config(corpus), RATE, seed=3, start=5))


def test_ranks_share_the_batches_of_one(corpus, tracks):
    whole = take(8, tracks, config(corpus), RATE, seed=3)
    for rank in (0, 1, 2):
        part = take(2, tracks, config(corpus), RATE, seed=3, start=2 + rank, stride=3)
        assert same(part, whole[2 + rank :: 3])


def test_seeds_and_steps_differ(corpus, tracks):
    plain = config(corpus, augment=PLAIN)
    drawn = [batch.stems for seed in (0, 1) for batch in take(6, tracks, plain, RATE, seed=seed)]
    for one, two in itertools.combinations(drawn, 2):
        assert not torch.equal(one, two)


def test_segments_are_slices_of_the_songs(corpus, tracks):
    (batch,) = take(1, tracks, config(corpus, augment=PLAIN), RATE, seed=0)
    songs = torch.stack([audio.read(t.stems[3][1][0].path) for t in tracks])
    for item in batch.stems[:, 3]:
        windows = songs.unfold(-1, RATE // 2, 1)[..., :4]
        found = (windows == item[None, :, None, :4]).all(-1).all(1)
        assert found.any()


def test_a_short_song_is_padded_at_its_end_and_says_so(tmp_path):
    wave = noise(tmp_path / "s" / "vocals.wav", 0.3, 0)
    noise(tmp_path / "s" / "drums.wav", 0.3, 1)
    tracks = find_tracks(tmp_path)
    (batch,) = take(1, tracks, config(tmp_path, augment=PLAIN), RATE, seed=0)
    assert batch.names == TWO_STEMS.names
    assert batch.valid.tolist() == [13230] * 3
    assert torch.equal(batch.stems[0, 1, :, :13230], wave)
    assert not batch.stems[..., 13230:].any()


def test_a_bad_file_is_drawn_again_and_logged_once(tmp_path, caplog, monkeypatch):
    for song in ("good", "bad"):
        for name in ("vocals", "drums"):
            noise(tmp_path / song / f"{name}.wav", 2.0, len(song))
    tracks = find_tracks(tmp_path)
    noise(tmp_path / "bad" / "drums.wav", 0.01, 0)  # cut off after it was found
    asked, load_stems = [], dataset.load_stems
    monkeypatch.setattr(dataset, "load_stems", lambda *a: asked.append(a) or load_stems(*a))
    with caplog.at_level(logging.WARNING):
        drawn = take(8, tracks, config(tmp_path), RATE, seed=0)
    assert len(asked) > 8 * 3 + 3
    assert all((batch.stems.abs().amax((2, 3)) > 0).all() for batch in drawn)
    assert sum("drums.wav" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_is_one_line(tmp_path, workers):
    for name in ("vocals", "drums"):
        noise(tmp_path / "s" / f"{name}.wav", 2.0, 0)
    tracks = find_tracks(tmp_path)
    (tmp_path / "s" / "vocals.wav").unlink()
    with pytest.raises(SeparatorError, match=r"vocals\.wav") as caught:
        take(1, tracks, config(tmp_path, workers=workers), RATE, seed=0)
    assert "\n" not in str(caught.value)


class Trouble(Dataset):
    """Segments that go wrong in one way, in a worker."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __getitem__(self, number: int) -> Callable:
        if self.kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "failed":
            raise KeyError("tempo")
        return lambda: None  # cannot be sent to another process


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("killed", r"^data\.workers: worker \d+ was killed or crashed; .*data\.memory_mb"),
        ("unsent", r"^data\.workers: worker \d+ was killed or crashed"),
        ("failed", r"^a worker that reads songs failed: KeyError: 'tempo'"),
    ],
)
def test_a_worker_that_ends_is_one_line_and_no_wait(kind, message):
    troubled = DataLoader(
        Trouble(kind),
        batch_sampler=([number] for number in itertools.count()),
        num_workers=1,
        collate_fn=list,
        worker_init_fn=workers.start_worker,
        multiprocessing_context=workers.context_of(1),
    )
    start = time.monotonic()
    with pytest.raises(SeparatorError, match=message) as caught:
        next(workers.received(troubled, True))
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("room", ["none", "taken later"])
def test_without_shared_memory_batches_come_through_pipes(
    corpus, tracks, monkeypatch, caplog, room
):
    whole = take(3, tracks, config(corpus), RATE, seed=3)
    monkeypatch.setattr(workers, "shared_memory", lambda: 1e5 if room == "none" else 1e12)
    if room == "taken later":
        monkeypatch.setattr(workers, "Stack", NoRoom)
    with caplog.at_level(logging.WARNING):
        piped = take(3, tracks, config(corpus, workers=1), RATE, seed=3)
    assert same(whole, piped)
    lines = [line for line in caplog.messages if "pipes" in line]
    assert len(lines) == 1
    assert ("--shm-size" in lines[0]) == (room == "none")


@dataclass(frozen=True)
class NoRoom(workers.Stack):
    """Finds shared memory full in the worker, whatever was seen before."""

    def __call__(self, waves: Sequence[torch.Tensor]) -> torch.Tensor:
        workers.default_collate = self.fail
        return super().__call__(waves)

    @staticmethod
    def fail(waves: list) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space")


def test_a_batch_larger_than_the_memory_is_refused(tracks, corpus, monkeypatch):
    monkeypatch.setattr(workers, "memory", lambda: 10**6)
    with pytest.raises(SeparatorError, match=r"^data\.batch, data\.segment_seconds: a batch takes"):
        batches(tracks, config(corpus, batch=64), RATE, seed=0)


def test_all_ranks_of_a_machine_share_its_memory(monkeypatch):
    monkeypatch.setattr(workers, "shared_memory", lambda: 1000)
    assert workers.fits_shared(160, 2)  # four ahead and two in use
    assert not workers.fits_shared(170, 2)
    assert workers.fits_shared(10**9, 0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert not workers.fits_shared(160, 2)


def test_where_processes_get_no_locks_the_trainer_reads(corpus, tracks, monkeypatch, caplog):
    def refuse(self: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(multiprocessing.context.ForkServerContext, "Lock", refuse)
    whole = take(2, tracks, config(corpus), RATE, seed=3)
    with caplog.at_level(logging.WARNING):
        assert same(whole, take(2, tracks, config(corpus, workers=2), RATE, seed=3))
    assert "data.workers: " in caplog.text
    assert "Read-only file system" in caplog.text


def test_a_worker_that_leaves_signals_to_the_trainer_can_be_ended():
    worker = workers.context_of(1).Process(target=time.sleep, args=(600,), daemon=True)
    worker.start()
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(1)
    assert worker.exitcode is None
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_a_container_with_little_shared_memory(corpus):
    """The process as it is in Docker: torch's own words and the system's own limits."""
    mount = f"mount -t tmpfs -o size=200k tmpfs {machine.SHARED}"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    script = TRAINER.replace("    time.sleep(600)\n", "").replace(
        "next(stream)", "[next(stream), next(stream)]"
    )
    command = f"{mount} && exec {sys.executable} -c '{script}' {corpus}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", command], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "reading\n", done.stderr
    assert "Traceback" not in done.stderr


TRAINER = """
import sys, time
from separator.data.config import DataConfig
from separator.data.dataset import batches
from separator.data.tracks import find_tracks

if __name__ == "__main__":
    config = DataConfig(roots=[sys.argv[1]], segment_seconds=0.5, batch=1, workers=1)
    stream = batches(find_tracks(sys.argv[1]), config, 44100, 0)
    next(stream)
    print("reading", flush=True)
    time.sleep(600)
"""


def test_workers_do_not_outlive_a_trainer_that_is_killed(corpus, tmp_path):
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    command = [sys.executable, str(script), str(corpus)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout.readline() == "reading\n"
        trainer.kill()
        # its helpers hold the same pipe, which ends when the last of them is gone
        rest, _ = trainer.communicate(timeout=60)
    assert rest == ""


def test_silence_is_drawn_again(tmp_path):
    for name in ("vocals", "drums"):
        wave = noise(tmp_path / "s" / f"{name}.wav", 0.8, 0)
        wave[:, int(0.4 * RATE) :] = 0
        with audio.Writer(tmp_path / "s" / f"{name}.wav", RATE, 2) as writer:
            writer.write(wave)
    tracks = find_tracks(tmp_path)

    def silent(level: float) -> int:
        drawn = take(20, tracks, config(tmp_path, segment_seconds=0.1, silence_db=level), RATE, 0)
        return sum(int((~batch.stems.flatten(1).any(1)).sum()) for batch in drawn)

    assert silent(-1000.0) > 15  # of 60, 43 % of the starts
    assert silent(-60.0) <= 5  # 0.43 ** 5 of 60 is 0.9


def test_pools_are_mixed_and_mixtures_can_be_had_of_anything(tmp_path, corpus):
    for i in range(3):
        noise(tmp_path / "pool" / "instrumentals" / f"i{i}.wav", 1.0, i)
        noise(tmp_path / "pool" / "vocals" / f"v{i}.wav", 0.4, i + 9)
    both = DataConfig(
        roots=[f"pool:{tmp_path / 'pool'}@3", str(corpus)],
        segment_seconds=0.5,
        batch=8,
        workers=0,
        augment=PLAIN,
    )
    tracks = [track for track in config_tracks(both) if track.split == "train"]
    (batch,) = take(1, tracks, both, RATE, seed=0)
    assert batch.names == FOUR_STEMS.names  # of the corpus; a pool's song has two of them
    pooled = torch.tensor([tracks[song].kind == "pool" for song in batch.songs])
    assert 0 < pooled.sum() < 8
    sounding = batch.stems.abs().amax((2, 3)) > 0
    assert sounding[~pooled].all()
    assert sounding[pooled].tolist() == [[False, False, True, True]] * int(pooled.sum())
    (mixed,) = take(1, tracks, both, RATE, seed=0, mixtures=True)
    assert mixed.names == ("mixture",)
    assert torch.allclose(mixed.stems[:, 0], batch.mixture, atol=1e-6)


def test_what_two_roots_hold_is_taken_from_the_first(tmp_path, caplog):
    for i in range(12):
        noise(tmp_path / "one" / f"s{i}.flac", 0.1, i)
        (tmp_path / "two").mkdir(exist_ok=True)
        shutil.copyfile(tmp_path / "one" / f"s{i}.flac", tmp_path / "two" / f"copy of {i}.flac")
    noise(tmp_path / "two" / "another.flac", 0.1, 99)
    for song in "ab":
        for name in ("vocals", "drums"):
            noise(tmp_path / "stems" / "artist" / song / f"{name}.wav", 0.1, len(name))
    roots = [tmp_path / name for name in ("one", "two", "stems", "stems/artist")]
    alone = find_tracks(roots[0], valid_share=0.3)
    with caplog.at_level(logging.WARNING):
        tracks = config_tracks(DataConfig([*map(str, roots)], valid_share=0.3))
    assert tracks[:12] == alone
    assert [track.name for track in tracks[12:]] == ["another.flac", "artist/a", "artist/b"]
    assert "two: left out: 12 songs that a root before it has too" in caplog.text
    assert "artist: left out: 2 " in caplog.text


def test_a_fraction_of_the_songs_is_part_of_any_larger_one(tmp_path):
    for i in range(40):
        for name in ("vocals", "drums"):
            noise(tmp_path / "stems" / f"song{i}" / f"{name}.wav", 0.05, i)
    for kind in ("instrumentals", "vocals"):
        for i in range(10):
            noise(tmp_path / "pool" / kind / f"{i}.wav", 0.05, i)
    for i in range(3):
        for name in ("vocals", "drums"):
            noise(tmp_path / "more" / f"other{i}" / f"{name}.wav", 0.05, 100 + i)
    roots = [str(tmp_path / name) for name in ("stems", "pool", "more")]
    whole, valid = training_tracks(DataConfig(roots))
    names = {}
    for fraction in (0.001, 0.1, 0.25, 1.0):
        train, others = training_tracks(DataConfig(roots, fraction=fraction))
        assert others == valid
        assert [t for t in train if t.kind == "pool"] == [t for t in whole if t.kind == "pool"]
        assert train == [track for track in whole if track in train]
        assert sum(track.root == roots[2] for track in train) >= 1
        names[fraction] = {track.name for track in train if track.root == roots[0]}
    stems = sum(track.root == roots[0] for track in whole)
    assert [len(n) for n in names.values()] == [1, round(0.1 * stems), round(0.25 * stems), stems]
    assert names[0.001] < names[0.1] < names[0.25] < names[1.0]
    places = sorted(int(name.removeprefix("song")) for name in names[0.25])
    assert places != list(range(places[0], places[0] + len(places)))  # not the first by name
    for fraction in (0, 1.1):
        with pytest.raises(SeparatorError, match=r"^fraction: "):
            DataConfig(roots, fraction=fraction)


def test_training_on_a_library_is_refused_with_the_fix(tmp_path):
    path = tmp_path / "a.wav"
    wave = noise(path, 1.0, 0)
    from separator.data.tracks import Source

    source = Source(path, wave.shape[1], RATE)
    song = Track(
        "a", "train", (("mixture", (source,)),), wave.shape[1], RATE, "library", str(tmp_path)
    )
    with pytest.raises(SeparatorError, match="training needs stems"):
        batches([song], config(tmp_path), RATE, seed=0)
    (batch,) = take(1, [song], config(tmp_path), RATE, seed=0, mixtures=True)
    assert batch.stems.shape == (3, 1, 2, RATE // 2)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("music", ("music", "auto", 1.0)),
        ("stems:music", ("music", "stems", 1.0)),
        ("pool:/a/b@2.5", ("/a/b", "pool", 2.5)),
        ("C:/music", ("C:/music", "auto", 1.0)),
        ("me@home", ("me@home", "auto", 1.0)),
    ],
)
def test_roots_are_kind_path_weight(text, parsed):
    assert parse_root(text) == parsed


def test_a_folder_whose_name_looks_like_a_weight_or_a_kind_is_a_folder(tmp_path, monkeypatch):
    (tmp_path / "a@2").mkdir()
    assert parse_root(str(tmp_path / "a@2")) == (str(tmp_path / "a@2"), "auto", 1.0)
    with pytest.raises(SeparatorError, match="weight"):
        parse_root("a@0")
    with pytest.raises(SeparatorError, match="'tracks' is none of musdb18, "):
        parse_root("tracks:/nowhere")
    for text in ("stems:", "@2", ""):
        with pytest.raises(SeparatorError, match=f"^{text}: names no folder"):
            parse_root(text)
    live = tmp_path / "Live: 1999"
    live.mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse_root("Live: 1999@2") == ("Live: 1999", "auto", 2.0)
    assert parse_root("C:\\Music") == ("C:\\Music", "auto", 1.0)


@pytest.mark.parametrize(
    "bad",
    [{"roots": []}, {"batch": 0}, {"workers": -1}, {"segment_seconds": 0.0}, {"valid_share": 1.0}],
)
def test_values_out_of_range_are_named(bad):
    with pytest.raises(SeparatorError, match=rf"{next(iter(bad))}"):
        DataConfig(**({"roots": ["x"]} | bad))


@pytest.mark.parametrize("speed", [0.05, 0.25, 0.6, float("nan")])
def test_speeds_are_tenths(speed):
    with pytest.raises(SeparatorError, match=r"speed: tenths from 0 to 0\.5, got"):
        AugmentConfig(speed=speed)
