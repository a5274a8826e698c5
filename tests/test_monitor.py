"""The page of runs: what it tells, that it follows a run, and that it writes nothing."""

import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from fastapi.testclient import TestClient

from separator import cli
from separator.cli import run_history
from separator.cli.monitor import make_app
from separator.cli.run_history import MAX_POINTS, Run, Runs
from separator.engine.cadence import validation_due, validations_left
from separator.engine.log import Log
from separator.engine.run_config import RunConfig
from separator.engine.task import Validation
from separator.errors import SeparatorError
from tests.chromium import PROGRAM, chromium

WAVE = torch.linspace(-0.5, 0.5, 8000).expand(2, -1)
IMAGE = torch.linspace(0, 1, 3 * 20 * 30).reshape(3, 20, 30)


def write_run(folder: Path, steps: int = 40, until: int = 30) -> Path:
    """A run as the trainers log it; its times are those of this machine."""
    folder.mkdir(parents=True)
    config = {"steps": steps, "validate_every": 10}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with Log(folder, 0, RunConfig(steps=steps)) as log:
        for step in range(1, until + 1):
            log.advance(3.0)
            log.train(step, {"loss": 1 / step, "optim/lr": 1e-3})
            if step % 10 == 0:
                audio = {"song/estimate": (WAVE * step / 100, 8000)}
                images = {"song/estimate": IMAGE * step / 100}
                log.validation(step, Validation({"valid/loss": 2 / step}, step / 10, images, audio))
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "runs" / "one")


def client(*roots: Path) -> TestClient:
    return TestClient(make_app(Runs(map(str, roots)), "127.0.0.1"), base_url="http://127.0.0.1")


def test_it_tells_the_time_left_and_the_cost_of_the_next_validation(tmp_path: Path):
    rows = [{"step": 1, "kind": "train", "loss": None}]  # of an older version, without times
    for step in range(10, 101, 10):
        rows.append({"step": step, "kind": "train", "loss": 0.5, "speed/steps_per_second": 2.0})
    times = {"score": 3.0, "speed/validation_seconds": 10.0}
    rows.append({"step": 50, "kind": "validation", "score": 4.0})
    rows.append({"step": 100, "kind": "validation", **times})
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "metrics.jsonl").write_text(text + '{"step": 110, "ki')
    (tmp_path / "config.yaml").write_text("steps: 1000\nvalidate_every: auto\n")
    (about,) = client(tmp_path).get("/api/runs").json()
    assert (about["step"], about["steps"], about["score"]) == (100, 1000, 3.0)
    assert about["best"] == [4.0, 50]
    assert about["validation"] == {"step": 500, "wait": 200.0, "seconds": 10.0}
    assert about["left"] == 900 / 2 + 2 * 10  # after steps 500 and 1000
    curves = client(tmp_path).get("/api/curves", params={"run": str(tmp_path)}).json()
    assert curves["train"]["loss"][:2] == [[1, None], [10, 0.5]]
    (tmp_path / "config.yaml").write_text("steps: [")
    assert client(tmp_path).get("/api/runs").json()[0]["left"] is None


@pytest.mark.parametrize("every", ["auto", 0, 1, 7, 500])
def test_validations_left(every):
    for steps in (1, 6, 7, 10, 600, 1000):
        for step in range(0, steps + 1, 3):
            later = [s for s in range(step + 1, steps + 1) if validation_due(s, every)]
            expected = len(set(later) | ({steps} if step < steps else set()))
            assert validations_left(step, every, steps) == expected


def test_a_run_keeps_its_times(run: Path):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(row["speed/steps_per_second"] > 0 for row in rows if row["kind"] == "train")
    costs = [row["speed/validation_seconds"] for row in rows if row["kind"] == "validation"]
    assert len(costs) == 3
    assert all(0 <= cost < 60 for cost in costs)


def test_curves_pictures_and_sounds_are_those_of_the_run_which_is_not_touched(run: Path):
    before = {path: (path.stat(), path.read_bytes()) for path in run.rglob("*")}
    page, name = client(run.parent), str(run)
    curves = page.get("/api/curves", params={"run": name}).json()
    assert curves["validation"]["score"] == [[10, 1.0], [20, 2.0], [30, 3.0]]
    assert curves["train"]["loss"] == [[step, 1 / step] for step in range(1, 31)]
    media = page.get("/api/media", params={"run": name}).json()
    tags = [("images", "spectrogram/song/estimate"), ("audio", "audio/song/estimate")]
    assert [(one["kind"], one["tag"], one["steps"]) for one in media] == [
        (*tag, [10, 20, 30]) for tag in tags
    ]
    for kind, tag in tags:
        wanted = {"run": name, "kind": kind, "tag": tag, "step": 20}
        answer = page.get("/api/medium", params=wanted)
        if kind == "audio":
            wave, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
            assert (answer.headers["content-type"], rate) == ("audio/wav", 8000)
            torch.testing.assert_close(torch.tensor(wave.T), WAVE / 5, atol=1e-4, rtol=0)
        else:
            assert answer.content.startswith(b"\x89PNG")
        assert page.get("/api/medium", params=wanted | {"step": 21}).status_code == 404
    after = {path: (path.stat(), path.read_bytes()) for path in run.rglob("*")}
    assert {path: data for path, (_, data) in after.items()} == {
        path: data for path, (_, data) in before.items()
    }
    assert all(after[path][0].st_mtime_ns == before[path][0].st_mtime_ns for path in before)


def test_long_curves_are_averaged(tmp_path: Path):
    rows = [{"step": step, "kind": "train", "loss": step % 2} for step in range(1, 5002)]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (run,) = Runs([str(tmp_path)]).find()
    points = run.curves()["train"]["loss"]
    assert len(points) <= MAX_POINTS + 1
    assert points[-1] == (5001, 1)
    assert len({step for step, _ in points}) == len(points)
    assert all(abs(value - 0.5) < 0.2 for _, value in points[:-2])


def test_a_known_run_is_not_searched_for_again(run: Path, monkeypatch):
    runs = Runs([str(run)])
    (known,) = runs.find()
    monkeypatch.setattr(run_history, "_run_folders", lambda root: [])
    assert runs.get(str(run)) is known


def test_nothing_else_is_shown(run: Path, tmp_path: Path):
    page = client(run)
    assert page.get("/api/runs", headers={"host": "evil.example"}).status_code == 403
    assert page.get("/api/runs", headers={"origin": "http://evil.example"}).status_code == 403
    for other in ("/etc", f"{run}/..", str(tmp_path)):
        answer = page.get("/api/curves", params={"run": other})
        assert answer.status_code == 400
        assert "not a run of this page" in answer.json()["error"]
    wanted = {"run": str(run), "kind": "scalars", "tag": "x", "step": 1}
    assert page.get("/api/medium", params=wanted).status_code == 404


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_without_a_run_is_a_line(folder: str, tmp_path: Path, capsys):
    (tmp_path / "empty").mkdir()
    assert cli.main(["monitor", str(tmp_path / folder), "--port", "0"]) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"separator: {tmp_path}/{folder}: ")
    assert line.count("\n") == 1


def test_a_run_without_a_log_is_found(tmp_path: Path):
    new = tmp_path / "runs" / "new"
    new.mkdir(parents=True)
    (new / "config.yaml").write_text("steps: 10\n")
    (new / "last.pt").touch()  # the first file of a run, by which its parent's runs are found
    for root in (new, new.parent):
        (about,) = client(root).get("/api/runs").json()
        assert (about["name"], about["step"], about["age"]) == (str(new), 0, None)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The page of two runs, in a server."""
    uvicorn = pytest.importorskip("uvicorn")
    for name in ("one", "other"):
        write_run(tmp_path / "runs" / name)
    app = make_app(Runs([str(tmp_path / "runs")]), "127.0.0.1")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=30)


@pytest.mark.skipif(not PROGRAM, reason="needs chromium")
def test_the_page_draws_runs_and_follows_them(site: str, tmp_path: Path):
    with chromium(tmp_path / "profile") as page:
        page.open(site)
        page.wait("document.body?.dataset.refreshed > 0")
        assert page.value("document.querySelectorAll('#runs tr').length") == 2
        drawn = "document.querySelectorAll('#charts svg path').length"
        assert page.value(drawn) == 2 * (1 + 2 + 1)  # score, losses, learning rate
        assert page.value("document.querySelectorAll('audio').length") == 2
        page.value("document.querySelector('img').scrollIntoView()")
        page.wait("document.querySelector('img').naturalWidth === 30")
        with (tmp_path / "runs" / "one" / "metrics.jsonl").open("a") as file:
            file.write('{"step": 31, "kind": "train", "loss": 0.25}\n')
        page.value("window.dispatchEvent(new Event('focus'))")
        page.wait("document.querySelector('#runs td:nth-child(2)').textContent === '31 of 40'")
        page.wait("document.querySelectorAll('#charts svg')[1].ariaLabel.includes('one 0.25')")
        page.value("document.querySelector('#runs tr:last-child input').click()")
        assert page.value(drawn) == 4
        hosts = "performance.getEntriesByType('resource').map(e => new URL(e.name).origin)"
        assert set(page.value(hosts)) == {site}
        assert page.value("document.querySelector('#message').hidden")


@pytest.mark.skipif(not PROGRAM, reason="needs chromium")
def test_the_page_shows_what_can_be_read(site: str, tmp_path: Path, monkeypatch):
    """Without a log, with a run that cannot be read, and before anything was read."""
    (tmp_path / "runs" / "new").mkdir()
    (tmp_path / "runs" / "new" / "last.pt").touch()
    ready, mended, read = threading.Event(), threading.Event(), Run.curves

    def curves(run: Run) -> dict:
        if run.folder.name == "one" and not mended.is_set():
            ready.wait(60)
            raise SeparatorError("one: cannot be read")
        return read(run)

    monkeypatch.setattr(Run, "curves", curves)
    rows = "[...document.querySelectorAll('#runs tr')].map(row => row.lastChild.textContent)"
    drawn = "document.querySelectorAll('#charts svg path').length"
    with chromium(tmp_path / "profile") as page:
        page.open(site)
        page.wait("document.querySelectorAll('#runs tr').length === 3")
        assert page.value(rows)[0] == "no log yet"
        assert page.value("document.querySelector('#reading').offsetHeight > 0")
        ready.set()
        page.wait("document.body.dataset.refreshed > 0")
        assert page.value("document.querySelector('#message').innerText") == "one: cannot be read"
        assert page.value("document.querySelector('#reading').offsetHeight") == 0
        assert page.value(drawn) == 4  # of the other run
        page.value("document.querySelector('#charts svg').id = 'first'")
        page.value("window.dispatchEvent(new Event('focus'))")
        page.wait("document.body.dataset.refreshed > 1")
        assert page.value("document.querySelector('#first') !== null")  # drawn once
        mended.set()
        page.value("window.dispatchEvent(new Event('focus'))")
        page.wait(f"{drawn} === 8")
        page.wait("document.querySelector('#message').hidden")
