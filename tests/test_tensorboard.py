"""Runs as TensorBoard's server and its page in a browser show them."""

import io
import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch import Tensor

from separator.engine.log import Log
from separator.engine.pictures import LEFT, TOP, with_axes
from separator.engine.run_config import RunConfig
from separator.engine.task import Validation
from tests.chromium import PROGRAM, chromium

RATE = 8000
SONGS = "a song", "Another, with ümlaut"
KINDS = "mixture", "estimate", "target"
COLOURS = {  # of the pictures, to find them in a screenshot
    f"{song}/{kind}": colour
    for (song, kind), colour in zip(
        [(song, kind) for song in SONGS for kind in KINDS],
        [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255), (0, 255, 255), (128, 0, 64)],
        strict=True,
    )
}


def sound(name: str) -> Tensor:
    """Return two channels that differ."""
    pitch = 200.0 * (1 + list(COLOURS).index(name))
    time_axis = torch.arange(RATE) / RATE
    return torch.stack([(pitch * k * 6.283 * time_axis).sin() / 2 for k in (1, 2)])


def picture(name: str) -> Tensor:
    plain = torch.tensor(COLOURS[name]).float()[:, None, None] / 255
    return with_axes(plain.expand(3, 20, 30), 1.0, RATE)


def level(name: str, step: int) -> float:
    """Estimates change from step to step, the others do not."""
    return step / 4 if name.endswith("estimate") else 1.0


def training(step: int) -> Validation:
    db = step / 2
    return Validation(
        {"valid/accompaniment_sdr_mean": db},
        db,
        {name: picture(name) * level(name, step) for name in COLOURS},
        {name: (sound(name) * level(name, step), RATE) for name in COLOURS},
        {"accompaniment_db": {"model": db, "mixture": 3.0}},
    )


def write_runs(root: Path) -> None:
    """Write a run that was killed after step 4 and resumed after step 2, and a pretraining."""
    config = RunConfig(steps=4)
    for start, stop in ((0, 4), (2, 4)):
        with Log(root / "vocals", start, config) as log:
            for step in range(start + 1, stop + 1):
                log.train(step, {"loss": step + start / 10, "loss/sdr": 1.0})
                log.validation(step, training(step))
    with Log(root / "before", 0, config, "pretrain") as log:
        for step in (1, 2):
            kinds = {"loss/mask": 0.5, "loss/noise": float("nan") if step == 1 else 0.25}
            log.train(step, {"loss": 0.1, **kinds, "loss/keep": float("nan")})
        gain = {"gain_over_trivial": {"model": 0.025}}
        log.validation(2, Validation({"valid/improvement": 0.025}, 0.025, quality=gain))


class Board:
    """A TensorBoard server's data."""

    def __init__(self, url: str) -> None:
        self.url = url

    def fetch(self, path: str, **query: str) -> bytes:
        words = f"?{urllib.parse.urlencode(query)}" if query else ""
        with urllib.request.urlopen(f"{self.url}data/{path}{words}", timeout=30) as answer:
            return answer.read()

    def ask(self, path: str, **query: str) -> Any:
        return json.loads(self.fetch(path, **query))

    def scalars(self, run: str, tag: str) -> list[tuple[int, float]]:
        rows = self.ask("plugin/scalars/scalars", run=run, tag=tag)
        return [(step, value) for _, step, value in rows]

    def blobs(self, plugin: str, names: tuple[str, str], run: str, tag: str) -> list[bytes]:
        """Return what the page shows of a tag: one file for each step."""
        listed, single = names
        rows = self.ask(f"plugin/{plugin}/{listed}", run=run, tag=tag, sample="0")
        paths = [f"plugin/{plugin}/{single}?{row['query']}" for row in rows]
        return [self.fetch(path) for path in paths]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    root = tmp_path_factory.mktemp("board") / "runs"
    write_runs(root)
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(root), "--port", "0"]
    server = subprocess.Popen([*command, "--host", "127.0.0.1"], stderr=subprocess.PIPE, text=True)
    try:
        line = next(line for line in server.stderr if " at http://" in line)
        found = Board(line.split(" at ")[1].split()[0])
        end = time.monotonic() + 60
        while found.ask("plugin/images/tags").get("vocals", {}).keys() < {*tags("spectrogram")}:
            assert time.monotonic() < end, "TensorBoard has read nothing"
            time.sleep(0.2)
        yield found
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stderr.close()


def tags(area: str) -> list[str]:
    return [f"{area}/{name}" for name in COLOURS]


def test_runs_have_their_folders_names(board: Board):
    assert set(board.ask("runs")) == {"before", "vocals", "vocals/mixture"}


def test_the_quality_comes_first_and_has_the_mixtures_line(board: Board):
    found = {run: sorted(of) for run, of in board.ask("plugin/scalars/tags").items()}
    assert found["vocals"][0] == found["vocals/mixture"][0] == "1_quality/accompaniment_db"
    assert found["vocals/mixture"] == ["1_quality/accompaniment_db"]
    assert found["before"][0] == "1_quality/gain_over_trivial"
    (key, model), (_, mixture) = [
        (run, board.scalars(run, "1_quality/accompaniment_db"))
        for run in ("vocals", "vocals/mixture")
    ]
    assert key == "vocals"
    assert model == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert mixture == [(step, 3.0) for step in (1, 2, 3, 4)]


def test_a_resumed_run_shows_each_step_once(board: Board):
    losses = board.scalars("vocals", "2_loss_train/total")
    assert len(losses) == 4
    assert dict(losses) == pytest.approx({1: 1.0, 2: 2.0, 3: 3.2, 4: 4.2})


def test_losses_of_the_stages_are_apart_and_what_did_not_occur_is_a_gap(board: Board):
    found = board.ask("plugin/scalars/tags")
    losses = {run: {tag for tag in found[run] if "loss" in tag} for run in ("vocals", "before")}
    assert losses["vocals"] == {"2_loss_train/total", "2_loss_train/sdr"}
    assert losses["before"] == {f"2_loss_pretrain/{part}" for part in ("total", "mask", "noise")}
    assert board.scalars("before", "2_loss_pretrain/mask") == [(1, 0.5), (2, 0.5)]
    assert board.scalars("before", "2_loss_pretrain/noise") == [(2, 0.25)]


def steps_of(name: str) -> list[int]:
    """What has not changed is written once by each process."""
    return [1, 2, 3, 4] if name.endswith("estimate") else [1, 3]


def test_every_picture_is_there(board: Board):
    assert set(board.ask("plugin/images/tags")["vocals"]) == set(tags("spectrogram"))
    for name in COLOURS:
        names = "images", "individualImage"
        blobs = board.blobs("images", names, "vocals", f"spectrogram/{name}")
        steps = steps_of(name)
        assert len(blobs) == len(steps)
        for blob, step in zip(blobs, steps, strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(blob)))
            assert pixels.shape == (320, 560, 3)
            colour = tuple(int(part * level(name, step)) for part in COLOURS[name])
            assert tuple(pixels[TOP, LEFT]) == tuple(pixels[200, 400]) == colour


def test_every_sound_is_there(board: Board):
    assert set(board.ask("plugin/audio/tags")["vocals"]) == set(tags("audio"))
    for name in COLOURS:
        blobs = board.blobs("audio", ("audio", "individualAudio"), "vocals", f"audio/{name}")
        steps = steps_of(name)
        assert len(blobs) == len(steps)
        for blob, step in zip(blobs, steps, strict=True):
            samples, rate = soundfile.read(io.BytesIO(blob))
            assert rate == RATE
            expected = sound(name).T.numpy() * level(name, step)
            np.testing.assert_allclose(samples, expected, atol=1.01 / 32768)


DEEP = """
(() => {
  const found = [];
  const walk = (node) => {
    for (const child of node.querySelectorAll("*")) {
      if (child.matches("%s")) found.push(child);
      if (child.shadowRoot) walk(child.shadowRoot);
    }
  };
  walk(document);
  return %s;
})()
"""


@pytest.mark.slow
def test_a_browser_shows_the_pictures_and_plays_the_sounds(board: Board, tmp_path: Path):
    if not PROGRAM:
        pytest.skip("no chromium on this machine")
    with chromium(tmp_path / "profile") as page:
        page.open(f"{board.url}#images")
        shown = "found.filter(i => i.complete && i.naturalWidth === 560).length"
        page.wait(f"{DEEP % ('img', shown)} >= {len(COLOURS)}")
        assert missing_colours(page.screenshot()) == []
        page.open(f"{board.url}#audio")
        playable = "found.filter(a => a.readyState > 0 && a.duration === 1).length"
        page.wait(f"{DEEP % ('audio', playable)} >= {len(COLOURS)}")


def missing_colours(screenshot: bytes) -> list[str]:
    """Return the pictures that take no noticeable part of a screenshot."""
    pixels = np.asarray(Image.open(io.BytesIO(screenshot)).convert("RGB"))
    parts = {name: (pixels == colour).all(-1).mean() for name, colour in COLOURS.items()}
    return [name for name, part in parts.items() if part < 0.002]
