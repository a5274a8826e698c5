"""Weights & Biases beside TensorBoard; what it leaves on the disk is read without its own code."""

import dataclasses
import errno
import io
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import types
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import wandb
from PIL import Image

from separator.config import parse
from separator.engine.log import Log
from separator.engine.loop import fit
from separator.engine.run_config import LogConfig, RunConfig
from separator.engine.task import Validation
from separator.engine.wandb import WandB
from separator.errors import SeparatorError
from tests.test_loop import Toy, assert_same, history, interrupt_once, run, toy_config, weights

WANDB = LogConfig(wandb=True, project="toys")
MEDIA = {"spectrogram/toy/image": "image-file", "audio/toy/tone": "audio-file"}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """Nothing here may leave this machine or be written to the user's own folders."""
    home = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("HOME", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, home)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
        yield patch
        wandb.teardown()


@pytest.fixture
def fresh() -> Iterator[None]:
    """Let wandb read the environment, which it does once, in a test and again after it."""
    wandb.teardown()
    yield
    wandb.teardown()


def records(path: Path) -> Iterator:
    """Yield what is in W&B's file: a LevelDB log (blocks of 32 KiB) of protobuf messages."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, message = path.read_bytes(), 7, b""
    assert data[:7] == b":W&B" + struct.pack("<HB", 0xBEE1, 0)
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # too little left in the block for a header
            at += 32768 - at % 32768
            continue
        checksum, size, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + 7 : at + 7 + size]
        assert checksum == zlib.crc32(bytes([kind]) + part)
        message += part
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(message)
            message = b""
        at += 7 + size


def files(folder: Path) -> list[Path]:
    """Return W&B's files in a run folder, oldest first, once its process has written them."""
    wandb.teardown()
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda p: p.stat().st_mtime)


def rows(path: Path) -> list[dict]:
    """Return the history in a W&B file: for each row its step and the values by name."""
    found = []
    for record in records(path):
        if record.WhichOneof("record_type") == "history":
            row = {}
            for item in record.history.item:
                keys, leaf = list(item.nested_key) or [item.key], row
                for key in keys[:-1]:
                    leaf = leaf.setdefault(key, {})
                leaf[keys[-1]] = json.loads(item.value_json)
            found.append(row)
    return found


def series(folder: Path) -> tuple[dict[tuple[str, int], float], dict[tuple[str, int], bytes]]:
    """Return the numbers and the media files of a run's only W&B file, by name and step."""
    (path,) = files(folder)
    numbers, media = {}, {}
    for row in rows(path):
        for name, value in row.items():
            if name in MEDIA:
                assert value["_type"] == MEDIA[name]
                media[name, row["_step"]] = (path.parent / "files" / value["path"]).read_bytes()
            elif not name.startswith("_"):
                numbers[name, row["_step"]] = value
    return numbers, media


def board(folder: Path) -> tuple[dict[tuple[str, int], float], dict[tuple[str, int], bytes]]:
    """The same of a run's TensorBoard files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0, "audio": 0})
    events.Reload()
    tags = events.Tags()
    numbers = {(tag, e.step): e.value for tag in tags["scalars"] for e in events.Scalars(tag)}
    media = {(t, e.step): e.encoded_image_string for t in tags["images"] for e in events.Images(t)}
    media |= {(t, e.step): e.encoded_audio_string for t in tags["audio"] for e in events.Audio(t)}
    return numbers, media


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, offline: pytest.MonkeyPatch) -> Path:
    return run(tmp_path_factory.mktemp("logged") / "run", log=WANDB)


def test_it_holds_what_tensorboard_holds(logged: Path):
    (numbers, media), (expected, expected_media) = series(logged), board(logged)
    assert {name for name, _ in numbers} > {
        "2_loss_train/total",
        "toy/bias",
        "toy/error",
        "optim/lr",
    }
    assert numbers == pytest.approx(expected, rel=1e-6)  # TensorBoard's are 32-bit
    assert media.keys() == expected_media.keys() == {(n, step) for n in MEDIA for step in (8, 12)}
    for step in (8, 12):
        here, there = (m["spectrogram/toy/image", step] for m in (media, expected_media))
        pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in (here, there)]
        assert pixels[0].shape == (4, 5, 3)
        np.testing.assert_array_equal(*pixels)
        here, there = (m["audio/toy/tone", step] for m in (media, expected_media))
        sounds = [soundfile.read(io.BytesIO(data)) for data in (here, there)]
        assert sounds[0][1] == sounds[1][1] == 8000
        assert sounds[0][0].shape == (99, 2)
        np.testing.assert_allclose(sounds[0][0], sounds[1][0], atol=1.01 / 32768)  # 16-bit


def test_the_run_is_described_and_finished(logged: Path):
    found = {record.WhichOneof("record_type"): record for record in records(files(logged)[0])}
    described = found["run"].run
    assert (described.project, described.display_name) == ("toys", "run")
    assert described.run_id == (logged / "wandb.id").read_text()
    assert described.resume
    values = {item.key: json.loads(item.value_json) for item in described.config.update}
    assert (values["steps"], values["optim"]["lr"]) == (12, 0.01)
    assert not described.git.commit
    assert found["exit"].exit.exit_code == 0
    assert "output_raw" not in found  # the console
    kept = {path.name for path in files(logged)[0].parent.glob("files/*")}
    assert kept <= {"media", "requirements.txt", "wandb-metadata.json"}


def test_the_data_of_a_new_run_are_there_as_step_0(tmp_path: Path):
    images, audio = {"toy/image": torch.rand(3, 4, 5)}, {"toy/tone": (torch.rand(2, 99), 8000)}
    with Log(tmp_path, 0, RunConfig(steps=1, log=WANDB)) as log:
        log.preview(Validation({}, 0.0, images, audio))
        log.train(1, {"loss": 1.0})
    media, expected = series(tmp_path)[1], board(tmp_path)[1]
    assert media.keys() == expected.keys() == {(name, 0) for name in MEDIA}
    (row,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(row)["step"] == 1


def test_training_is_not_touched(logged: Path, tmp_path: Path):
    run(tmp_path)
    assert history(tmp_path) == history(logged)
    assert_same(weights(tmp_path), weights(logged))


def test_a_resumed_run_is_the_same_run(tmp_path: Path):
    run(tmp_path, steps=3)  # the logging of a run may change
    run(tmp_path, steps=5, log=WANDB)
    number = (tmp_path / "wandb.id").read_text()
    run(tmp_path, steps=9, log=dataclasses.replace(WANDB, project="other"))
    first, second = files(tmp_path)
    assert first.name == second.name == f"run-{number}.wandb"
    steps = [row["_step"] for path in (first, second) for row in rows(path)]
    assert steps == [4, 5, 6, 7, 8, 9]
    assert (tmp_path / "wandb.id").read_text() == number


def test_other_folders_are_other_runs(logged: Path, tmp_path: Path):
    run(tmp_path, steps=1, log=WANDB)
    assert (tmp_path / "wandb.id").read_text() != (logged / "wandb.id").read_text()


def test_an_interrupted_and_a_failed_run_are_finished(tmp_path: Path):
    config = toy_config(tmp_path / "stopped", log=WANDB)
    before = signal.getsignal(signal.SIGINT), sys.excepthook, sys.exit
    fit(Toy(config, before_step=interrupt_once(3, signal.SIGINT)), config)
    assert before == (signal.getsignal(signal.SIGINT), sys.excepthook, sys.exit)
    assert [row["_step"] for row in rows(files(tmp_path / "stopped")[0])] == [1, 2, 3, 4]
    config = toy_config(tmp_path / "failed", log=WANDB)
    with pytest.raises(ZeroDivisionError):
        fit(Toy(config, before_step=lambda step: 1 // (3 - step)), config)
    codes = [
        record.exit.exit_code
        for folder in ("stopped", "failed")
        for record in records(files(tmp_path / folder)[0])
        if record.WhichOneof("record_type") == "exit"
    ]
    assert codes == [0, 1]


def test_only_the_first_rank_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    run(tmp_path / "run", log=WANDB, steps=2)
    assert not list(tmp_path.rglob("*wandb*"))


@pytest.mark.parametrize("module", [None, types.ModuleType("wandb")])
def test_without_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module):
    """An empty module is what Python finds where a folder happens to be called wandb."""
    monkeypatch.setitem(sys.modules, "wandb", module)
    steps = []
    config = toy_config(tmp_path, log=WANDB)
    with pytest.raises(SeparatorError, match=r"^log\.wandb: .*`pip install wandb`") as caught:
        fit(Toy(config, before_step=steps.append), config)
    assert "\n" not in str(caught.value)
    assert steps == []
    run(tmp_path)
    assert not list(tmp_path.glob("wandb*"))


@pytest.mark.parametrize("mode", ["online", "sideways"])
@pytest.mark.usefixtures("fresh")
def test_a_refusal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str):
    """Nobody is logged in; there is no such mode."""
    monkeypatch.setenv("WANDB_MODE", mode)
    hooks = sys.excepthook, sys.exit
    with pytest.raises(SeparatorError, match=r"^log\.wandb: .*WANDB_MODE=offline$") as caught:
        run(tmp_path, log=WANDB)
    assert "\n" not in str(caught.value)
    assert hooks == (sys.excepthook, sys.exit)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("busy", [False, True])
def test_a_refusal_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: bool):
    """Even where W&B still writes into a folder, which then stays, its reason is told."""

    def refuse(**options: object) -> None:
        Path(options["dir"], "wandb", "run-1").mkdir(parents=True)
        raise wandb.Error("the server does not answer")

    def not_empty(*path: object, **options: object) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(wandb, "init", refuse)
    run(tmp_path, steps=2)
    before = {*tmp_path.rglob("*")}
    if busy:
        monkeypatch.setattr(os, "rmdir", not_empty)
    with pytest.raises(SeparatorError, match=r"^log\.wandb: the server does not answer; "):
        run(tmp_path, steps=4, log=WANDB)
    assert busy or {*tmp_path.rglob("*")} == before


class Service:
    """Stands for a W&B run on a server that has steps up to 4, and whose process can die."""

    def __init__(self) -> None:
        self.starting_step, self.rows, self.dead = 5, [], False

    def log(self, row: dict, step: int) -> None:
        if self.dead:
            raise ConnectionResetError("Connection lost")
        self.rows.append((step, row))


def test_steps_that_are_there_are_not_repeated_and_its_death_is_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    writer, service = WandB(tmp_path, RunConfig(log=WANDB)), Service()
    writer.close(failed=False)
    writer._run = service
    for step in (3, 4, 5, 6):
        writer.add_scalars({"loss": step / 2}, step)
    assert service.rows == [(5, {"loss": 2.5}), (6, {"loss": 3.0})]
    service.dead = True
    for step in (7, 8):
        writer.add_scalars({"loss": 1.0}, step)
    writer.close(failed=False)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "log.wandb: ConnectionResetError: Connection lost; training goes on without it"
    ]


def test_the_keys():
    config = parse(RunConfig, ["log.wandb=true", "log.project=mine"], "toy")
    assert config.log == LogConfig(wandb=True, project="mine")
    assert not RunConfig().log.wandb


def test_wandb_neither_speaks_nor_litters_nor_calls(tmp_path: Path):
    """A process of its own, in an empty folder, with every way out leading to our socket."""
    folder, work = tmp_path / "run", tmp_path / "work"
    work.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = "http://{}:{}".format(*server.getsockname())
        ways = ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        environment = {**os.environ, **dict.fromkeys(ways, url), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[1])
        environment.pop("WANDB_SERVICE", None)  # else it would use this process's helper
        child = [sys.executable, "-W", "error", "-m", "tests.test_log"]
        done = subprocess.run(
            [*child, str(folder)], cwd=work, env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
        server.settimeout(60)
        environment |= {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40}
        with subprocess.Popen([*child, str(folder)], cwd=work, env=environment) as online:
            server.accept()[0].close()  # this is how a call shows
            online.kill()
    assert list(work.iterdir()) == []
    (row,) = rows(files(folder)[0])
    assert (row["_step"], row["2_loss_train/total"]) == (1, 1.0)
    assert (row["1_quality/toy_db"], row["1_quality/toy_db_of_mixture"]) == (7.0, 3.0)


def child_logs(folder: Path) -> None:
    """Log one step, speak, and exit with a status."""
    folder.mkdir(exist_ok=True)
    with Log(folder, 0, RunConfig(steps=1, log=WANDB)) as log:
        log.train(1, {"loss": 1.0})
        quality = {"toy_db": {"model": 7.0, "mixture": 3.0}}
        log.validation(1, Validation({}, 0.0, {"toy/image": torch.rand(3, 4, 5)}, {}, quality))
        print("out", flush=True)
        print("err", file=sys.stderr, flush=True)
    sys.exit(3)


if __name__ == "__main__":
    child_logs(Path(sys.argv[1]))
