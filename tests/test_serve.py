"""`separator serve`: its interface, as a page uses it."""

import concurrent.futures
import contextlib
import dataclasses
import errno
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import mutagen
import numpy as np
import pytest
import soundfile
import torch
from fastapi.testclient import TestClient

import separator
from separator import audio, cli
from separator.engine.model_file import export
from separator.inference.serve import app, downloads, worker
from separator.inference.serve.app import SERVE_FILES, make_app
from separator.inference.serve.command import ServeConfig
from separator.inference.serve.session import Song, State, safe_name
from separator.inference.serve.spool import BARS, Spool
from separator.inference.serve.store import Store
from separator.inference.serve.temporary import PREFIX, remove_abandoned
from separator.inference.serve.web import PAGE, RefusedError
from separator.inference.serve.worker import Models
from separator.models.build import describe
from separator.models.frame_transformer import FrameTransformer
from separator.stems import FOUR_STEMS
from tests.songs import in_tmp, model, song  # noqa: F401
from tests.toys import STFT, TINY, seeded

pytestmark = pytest.mark.usefixtures("in_tmp", "one_thread")
URL = "http://127.0.0.1:8765"


class Server:
    """A server, and any number of browsers that use it."""

    def __init__(self, store: Store, models: Models) -> None:
        self.store, self.app = store, make_app(store, models)

    def user(self) -> TestClient:
        client = TestClient(self.app, base_url=URL)
        assert client.post("/api/session").status_code == 200
        return client

    def files(self) -> list[Path]:
        return [path for path in self.store.folder.rglob("*") if path.is_file()]


@pytest.fixture
def serve(model: Path) -> Iterator[Callable[..., Server]]:  # noqa: F811
    """Start servers with options."""
    with contextlib.ExitStack() as stack:

        def start(**options: object) -> Server:
            store = stack.enter_context(Store(ServeConfig(**options)))
            server = Server(store, Models(str(model), "cpu", 1))
            stack.enter_context(TestClient(server.app, base_url=URL))  # runs its workers
            return server

        yield start


def send(client: TestClient, path: str | Path, name: str = "", **query: str):
    query = {"name": name or Path(path).name, **query}
    return client.put("/api/songs", params=query, content=Path(path).read_bytes())


def done(client: TestClient, count: int = 1) -> list[dict]:
    """Wait until so many songs are neither waiting nor being separated."""
    end = time.monotonic() + 30
    while True:
        songs = client.get("/api/songs").json()
        if sum(one["state"] in ("ready", "failed") for one in songs) >= count:
            return songs
        assert time.monotonic() < end, songs
        time.sleep(0.02)


def stems_of(client: TestClient, view: dict) -> dict[str, torch.Tensor]:
    """What the page plays."""
    step, data, start = 30000, b"", 0
    while start < view["samples"]:
        piece = client.get(f"/api/songs/{view['id']}/samples?start={start}&count={step}").content
        data, start = data + piece, start + step
    frames = np.frombuffer(data, "<f4").reshape(-1, len(view["stems"]), view["channels"])
    waves = torch.from_numpy(frames.copy()).permute(1, 2, 0)
    return dict(zip(view["stems"], waves, strict=True))


def made(client: TestClient, **wanted: object) -> list[dict]:
    """Ask for a download until it is made; returns the answers."""
    answers: list[dict] = []
    while "url" not in (answers or [{}])[-1]:
        answer = client.post("/api/downloads", json=wanted)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
    return answers


def fetch(client: TestClient, **wanted: object) -> tuple[str, bytes]:
    about = made(client, **wanted)[-1]
    return about["name"], client.get(f"/{about['url']}").content


def test_the_page_is_told_how_far_a_download_is(serve, monkeypatch):
    song("song.wav", 15.0)
    client = serve().user()
    send(client, "song.wav")
    (view,) = done(client)
    monkeypatch.setattr(app, "PATIENCE_SECONDS", 0.005)
    wanted = {"songs": [view["id"]], "stems": view["stems"], "format": "mp3"}
    answers = made(client, **wanted)
    parts = [answer["progress"] for answer in answers[:-1]]
    assert parts == sorted(parts)
    assert 0 <= parts[0] < parts[-1] <= 1
    assert answers[-1]["name"] == "song.zip"
    assert client.get(f"/{answers[-1]['url']}").content.startswith(b"PK")
    assert made(client, **wanted)[-1] == answers[-1]  # it is kept


@pytest.mark.parametrize(("channels", "rate"), [(1, 8000), (2, 44100), (6, 48000)])
def test_what_is_played_is_what_python_gives(serve, channels: int, rate: int):
    noise = torch.randn(channels, round(1.5 * rate), generator=seeded()) / 10
    soundfile.write("song.wav", noise.T.numpy(), rate, "FLOAT")
    client = serve().user()
    assert send(client, "song.wav").status_code == 201
    (view,) = done(client)
    assert (view["state"], view["rate"], view["channels"]) == ("ready", rate, min(channels, 2))
    played, expected = stems_of(client, view), separator.separate("song.wav")
    assert played.keys() == expected.keys()
    for name, wave in expected.items():
        torch.testing.assert_close(played[name], wave, atol=1e-6, rtol=0)
    assert view["notices"] == ["6 channels are folded to stereo"] * (channels == 6)


@pytest.mark.parametrize("format", ["flac", "mp3", "input"])
def test_downloads_are_the_command_lines_files(serve, format: str):
    song("song.m4a", 1.0)
    tags = mutagen.File("song.m4a", easy=True)
    tags["title"], tags["artist"] = "Song", "Somebody"
    tags.save()
    assert cli.main(["separate", "song.m4a", "--stems", "--format", format]) == 0
    client = serve().user()
    send(client, "song.m4a")
    (view,) = done(client)
    name, data = fetch(client, songs=[view["id"]], stems=view["stems"], format=format)
    assert name == "song.zip"
    archive = zipfile.ZipFile(io.BytesIO(data))
    expected = sorted(path for path in Path("stems").iterdir() if path.suffix != ".jsonl")
    assert sorted(archive.namelist()) == [path.name for path in expected]
    for path in expected:
        archive.extract(path.name, "page")
        ours = Path("page", path.name)
        assert torch.equal(audio.read(ours), audio.read(path))
        assert audio.probe(ours).subtype == audio.probe(path).subtype
        both = [mutagen.File(one, easy=True) for one in (ours, path)]
        assert [one["title"][0] for one in both] == [f"Song ({path.stem[6:-1]})"] * 2
        assert both[0]["artist"] == both[1]["artist"] == ["Somebody"]


def test_a_song_may_have_any_name(serve):
    wave = song("song.wav", 0.3)
    client = serve().user()
    for name in ("stems.wav", ".stems.wav", "a/b.wav", "% #?&'.wav"):
        assert send(client, "song.wav", name).status_code == 201
    for view in done(client, 4):
        mixture = sum(stems_of(client, view).values())
        torch.testing.assert_close(mixture, wave, atol=1e-6, rtol=0)
        fetch(client, songs=[view["id"]], stems=["vocals"], format="input")


def test_a_model_of_four_stems(tmp_path: Path):
    config = dataclasses.replace(TINY, stems=FOUR_STEMS.names)
    torch.manual_seed(0)
    weights = FrameTransformer(config, STFT.bins).state_dict()
    path = tmp_path / "four.safetensors"
    export(path, weights, {"stage": "train", **describe(config, STFT, 44100)})
    wave = song("song.wav", 1.0)
    with Store(ServeConfig()) as store:
        server = Server(store, Models(str(path), "cpu", 1))
        with TestClient(server.app, base_url=URL) as client:
            first, second, *_ = client.post("/api/session").json()["models"]
            assert (first["name"], first["stems"]) == ("four", list(FOUR_STEMS.names))
            assert second["stems"] == ["instrumental", "vocals"]
            send(client, "song.wav")
            (view,) = done(client)
            stems, expected = stems_of(client, view), separator.separate("song.wav", model=path)
            assert list(stems) == list(expected)
            for name, stem in expected.items():
                torch.testing.assert_close(stems[name], stem, atol=1e-6, rtol=0)
            torch.testing.assert_close(sum(stems.values()), wave, atol=1e-6, rtol=0)
            assert client.get(f"/api/songs/{view['id']}/waveform").json().keys() == {
                "mixture",
                *stems,
            }
            _, data = fetch(client, songs=[view["id"]], gains={"drums": 0.0}, format="wav")
    Path("mix.wav").write_bytes(data)
    mix = sum(stem for name, stem in stems.items() if name != "drums")
    torch.testing.assert_close(audio.read("mix.wav"), mix, atol=1e-6, rtol=0)


def test_a_full_disk_is_a_line(serve, monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    song("song.wav", 0.3)
    client = serve().user()
    monkeypatch.setattr(Spool, "write", full)
    send(client, "song.wav")
    assert done(client)[0]["error"] == "song.wav: No space left on device"
    monkeypatch.setattr(Store, "check_size", full)
    answer = send(client, "song.wav")
    assert answer.status_code == 500
    assert answer.json()["error"].startswith("No space left on device; free some space")


def test_one_stem_is_a_file_and_two_songs_of_a_name_are_both_in_the_zip(serve):
    song("song.wav", 0.3)
    song("other/song.wav", 0.4, seed=3)
    client = serve().user()
    send(client, "song.wav"), send(client, "other/song.wav")
    ids = [view["id"] for view in done(client, 2)]
    name, data = fetch(client, songs=ids[:1], stems=["vocals"], format="wav")
    assert name == "song (Vocals).wav"
    Path(name).write_bytes(data)
    torch.testing.assert_close(audio.read(name), separator.separate("song.wav")["vocals"])
    name, data = fetch(client, songs=ids, stems=["vocals"], format="wav")
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert (name, names) == ("stems.zip", ["song (Vocals).wav", "song (Vocals) 2.wav"])


def test_the_balance_is_mixed_from_the_stems(serve):
    song("song.wav", 1.0)
    stems = separator.separate("song.wav")
    client = serve().user()
    send(client, "song.wav")
    (view,) = done(client)
    wanted = {"songs": [view["id"]], "gains": {"vocals": 0.25, "instrumental": 1.0}}
    name, data = fetch(client, **wanted, format="wav")
    assert name == "song (Mix).wav"
    Path("mix.wav").write_bytes(data)
    mix = stems["instrumental"] + 0.25 * stems["vocals"]
    torch.testing.assert_close(audio.read("mix.wav"), mix, atol=1e-6, rtol=0)
    loud = {name: 10.0 for name in stems}
    _, data = fetch(client, songs=[view["id"]], gains=loud, format="flac")
    Path("loud.flac").write_bytes(data)  # integers cannot hold it: lowered, not clipped
    expected = 10 * sum(stems.values())
    torch.testing.assert_close(audio.read("loud.flac"), expected / expected.abs().max(),
                               atol=1e-6, rtol=0)  # fmt: skip
    none = client.post("/api/downloads", json={"songs": [view["id"]], "stems": []})
    assert none.status_code == 400 and "none of these stems" in none.json()["error"]


def test_a_damaged_song_and_a_bad_file_get_the_command_lines_words(serve, capsys, caplog):
    song("whole.flac", 6.0)
    whole = Path("whole.flac").read_bytes()
    middle = len(whole) // 2
    Path("hurt.flac").write_bytes(whole[:middle] + bytes(3000) + whole[middle + 3000 :])
    Path("text.mp3").write_text("this is no song\n" * 100)
    Path("empty.wav").write_bytes(b"")
    with audio.Writer("nan.wav", 44100, 2) as writer:
        writer.write(torch.full((2, 1000), float("nan")))
    bad = ["text.mp3", "empty.wav", "nan.wav"]
    assert cli.main(["separate", *bad, "hurt.flac"]) == 1
    lines = capsys.readouterr().err.splitlines()
    said = {line.removeprefix("separator: ") for line in lines if line.startswith("separator: ")}
    warned = [one.getMessage() for one in caplog.records if one.getMessage().startswith("hurt")]
    client = serve().user()
    answers = [send(client, name) for name in [*bad, "hurt.flac"]]
    assert [answer.status_code for answer in answers] == [422, 422, 201, 201]
    failed, hurt = done(client, 2)
    shown = {answers[0].json()["error"], answers[1].json()["error"], failed["error"]}
    assert shown == said
    assert [f"hurt.flac: {notice}" for notice in hurt["notices"]] == warned != []


def test_limits_of_size_length_queue_and_disk(serve, monkeypatch):
    song("song.wav", 1.0)
    size = Path("song.wav").stat().st_size / 1e6
    held = Held(monkeypatch)
    refusals = [
        ({"max_megabytes": size / 2}, 413, "larger than "),
        ({"max_minutes": 0.01}, 422, "song.wav: longer than 0.01 minutes"),
        ({"max_disk": size / 2e3}, 507, "no room on the disk"),
        ({"max_disk": size / 9e2}, 507, "no room on the disk"),  # for the song, but not its stems
        ({"max_queue": 1}, 503, "the queue is full (1 songs)"),
    ]
    for options, status, words in refusals:
        server = serve(**options)
        client, before = server.user(), 0
        if "max_queue" in options:
            assert send(client, "song.wav").status_code == 201
            before = 1
        answer = send(server.user(), "song.wav")
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
        assert len([path for path in server.files() if path.suffix == ".wav"]) == before
    held.step.release(2)


def test_a_body_without_a_length_is_cut_at_the_limit(serve):
    server = serve(max_megabytes=0.1)
    client = server.user()
    pieces = (bytes(50_000) for _ in range(10))
    answer = client.put("/api/songs", params={"name": "a.wav"}, content=pieces)
    assert answer.status_code == 413
    assert server.files() == []


def test_the_disks_limit_counts_downloads_and_songs_that_are_being_sent(serve):
    song("song.wav", 1.0)
    size = Path("song.wav").stat().st_size
    stems = 2 * 44100 * 2 * 4  # float samples of two stems
    server = serve(max_disk=(size + 2.9 * stems) / 1e9)  # its downloads beside it, but once
    client, other = server.user(), server.user()
    send(client, "song.wav")
    (view,) = done(client)
    stored = {"songs": [view["id"]], "format": "wav"}
    first = made(client, **stored, stems=view["stems"])[-1]["url"]
    assert send(other, "song.wav").status_code == 507
    second = made(client, **stored, gains={"vocals": 0.5})[-1]["url"]  # half as large
    third = made(client, **stored, stems=view["stems"][:1])[-1]["url"]  # takes the first's room
    statuses = [client.get(f"/{url}").status_code for url in (first, second, third)]
    assert statuses == [404, 200, 200]
    store, session = server.store, next(iter(server.store._sessions.values()))
    with store.receiving(session, size), pytest.raises(RefusedError, match="no room on the disk"):
        store.make_room(session, round(1.9 * stems))
    with pytest.raises(RefusedError):
        store.make_room(session, 2 * stems)
    assert len(session.downloads) == 2  # none is removed in vain
    assert send(client, "song.wav").status_code == 201  # takes the room of its user's downloads
    assert not session.downloads
    with pytest.raises(RefusedError), store.receiving(session, 0):  # might become --max-megabytes
        pass
    assert not store._uploads


def test_a_download_in_the_making_counts_with_all_its_files():
    with Store(ServeConfig(max_disk=1e-3)) as store:
        session = store.session(store.open_session())
        info = audio.AudioInfo(Path("a.wav"), "wav", "", 10_000, 100, 1)
        folder = Path(tempfile.mkdtemp(dir=session.folder))
        (folder / "a.wav").write_bytes(b"")
        one = Song(folder, folder / "a.wav", info, stems=("instrumental", "vocals"))
        one.spool = Spool(folder / "stems", one.stems, 1, 10_000)
        one.spool.write(torch.zeros(2, 1, 10_000))
        store.add(session, one)
        request = downloads.Request((one,), one.stems, {}, "wav")
        assert request.bytes == 3 * 40_000  # two files, and one of them in the zip as well
        future = concurrent.futures.Future()
        session.making[request.id] = request, future
        assert session.download_bytes == request.bytes
        with pytest.raises(RefusedError):  # it cannot be removed to make room
            store.make_room(session, 900_000)
        session.downloads[request.id] = one.path, (one,)
        assert session.download_bytes == 0  # the size of the file
        future.set_result(one.path)
        session.downloads.clear()
        assert session.download_bytes == 0


class Held:
    """Stands for the separation of a song, which goes on when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.order: list[float] = []
        self.step = threading.Semaphore(0)
        monkeypatch.setattr(worker, "_stems", self._stems)

    def _stems(self, separator, blocks, rate):
        for block in blocks:
            for piece in torch.from_numpy(block).split(rate, dim=-1):
                self.step.acquire(timeout=30)
                self.order.append(round(piece.shape[-1] / rate, 2))
                yield torch.stack([piece, torch.zeros_like(piece)])


def test_cancel_leaves_nothing_and_the_next_song_is_done(serve, monkeypatch):
    held = Held(monkeypatch)
    song("long.wav", 3.0)
    song("next.wav", 0.5)
    server = serve()
    client = server.user()
    first, second = (send(client, name).json()["id"] for name in ("long.wav", "next.wav"))
    held.step.release()
    while not (view := client.get("/api/songs").json()[0])["progress"]:
        time.sleep(0.01)
    assert (view["state"], round(view["progress"], 2)) == ("separating", 0.33)
    assert 0 < view["left"] < 60
    waiting = client.get("/api/songs").json()[1]
    assert (waiting["state"], waiting["ahead"]) == ("waiting", 1)
    assert client.delete(f"/api/songs/{first}").status_code == 200
    assert [one["id"] for one in client.get("/api/songs").json()] == [second]
    held.step.release(5)
    assert done(client)[0]["state"] == "ready"
    assert {path.parent.name for path in server.files()} == {second}
    assert client.delete("/api/songs").status_code == 200
    assert server.files() == client.get("/api/songs").json() == []


def test_each_user_has_a_turn(serve, monkeypatch):
    held = Held(monkeypatch)
    server = serve()
    one, other = server.user(), server.user()
    for number in (1, 2, 3):
        song(f"{number}.wav", number / 10)
        send(one, f"{number}.wav")
    song("4.wav", 0.4)
    send(other, "4.wav")
    ahead = [view["ahead"] for view in one.get("/api/songs").json()]
    assert ahead[-1] == 3 and other.get("/api/songs").json()[0]["ahead"] == 1
    held.step.release(10)
    done(one, 3)
    assert held.order == [0.1, 0.4, 0.2, 0.3]


def test_nobody_gets_anothers_songs(serve):
    song("song.wav", 0.3)
    server = serve()
    owner, other, nobody = server.user(), server.user(), TestClient(server.app, base_url=URL)
    send(owner, "song.wav")
    id = done(owner)[0]["id"]
    wanted = {"songs": [id], "stems": ["vocals"], "format": "wav"}
    url = made(owner, **wanted)[-1]["url"]
    for client, status in ((owner, 200), (other, 404), (nobody, 403)):
        for path in (f"/api/songs/{id}/waveform", f"/api/songs/{id}/samples?start=0&count=9",
                     f"/{url}"):  # fmt: skip
            assert client.get(path).status_code == status, path
        assert client.post("/api/downloads", json=wanted).status_code == status
    assert other.get("/api/songs").json() == []
    assert nobody.get("/api/songs").status_code == 403
    assert other.delete(f"/api/songs/{id}").status_code == 404
    assert nobody.delete("/api/songs").status_code == 403
    nobody.cookies.set("separator-8765", "guessed")
    assert nobody.get("/api/songs").status_code == 403
    other.delete("/api/songs")
    assert len(owner.get("/api/songs").json()) == 1


def test_the_cookie_is_for_this_page_alone(serve):
    client = TestClient(serve().app, base_url=URL)
    cookie = client.post("/api/session").headers["set-cookie"]
    assert re.match(r"separator-8765=[\w-]{40,};", cookie)
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert "set-cookie" not in client.post("/api/session").headers  # it stays


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:8765"}, 200),
        ({"host": "192.168.1.2"}, 200),
        ({"host": "evil.example:8765"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"origin": URL}, 200),
        ({"origin": "http://127.0.0.1:9"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_other_sites_are_refused(serve, headers: dict[str, str], status: int):
    client = serve().user()
    if "host" in headers:  # a cookie of that name too, lest it fails for want of one
        port = headers["host"].rpartition(":")[2] if ":" in headers["host"] else "80"
        token = next(iter(client.cookies.values()))
        headers = headers | {"cookie": f"separator-{port}={token}"}
    answer = client.get("/api/songs", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"].startswith(("Host: ", "Origin: "))
    answer = client.get("/", headers={"sec-fetch-site": "cross-site"})
    assert answer.status_code == 200  # a link to the page


def test_the_page_needs_no_other_host(serve):
    client = serve().user()
    for path in [PAGE / name for name in SERVE_FILES]:
        answer = client.get("/" if path.name == "index.html" else f"/{path.name}")
        assert answer.text == path.read_text("utf-8")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not re.findall(r"(?:https?:)?//\w|@import|url\(", re.sub(r"// .*", "", answer.text))
    for path in ("/docs", "/redoc", "/openapi.json", "/page.js/../../app.py"):
        assert client.get(path).status_code == 404


def test_files_go_with_a_session_that_is_not_used(serve, monkeypatch):
    song("song.wav", 0.3)
    server = serve(keep_minutes=5)
    client = server.user()
    send(client, "song.wav")
    view = done(client)[0]
    fetch(client, songs=[view["id"]], stems=["vocals"], format="wav")
    server.store.expire()
    assert len(server.files()) == 3
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 301)
    server.store.expire()
    assert list(server.store.folder.iterdir()) == []
    assert client.get("/api/songs").status_code == 403


def test_downloads_do_not_pile_up(serve):
    song("song.wav", 0.1)
    server = serve()
    client = server.user()
    send(client, "song.wav")
    id = done(client)[0]["id"]
    for gain in range(8):
        fetch(client, songs=[id], gains={"vocals": gain / 10}, format="wav")
    assert sum("(Mix)" in path.name for path in server.files()) == 4
    client.delete(f"/api/songs/{id}")
    assert server.files() == []


@pytest.mark.parametrize(
    "query", [{"start": -1, "count": 1}, {"start": 0, "count": -1}, {"start": 10**30, "count": 1}]
)
def test_nonsense_is_refused_in_one_line(serve, query: dict):
    song("song.wav", 0.1)
    client = serve().user()
    send(client, "song.wav")
    id = done(client)[0]["id"]
    path = f"/api/songs/{id}/samples"
    assert client.get(path, params=query).status_code == 422
    beyond = client.get(path, params={"start": 10**9, "count": 10})
    assert (beyond.status_code, beyond.content) == (200, b"")
    for wanted in ({"songs": [id], "format": "exe"}, {"songs": []}, {"songs": [id], "gains":
                   {"vocals": -1}}, {"songs": [id], "gains": {"vocals": 1e9}}):  # fmt: skip
        answer = client.post("/api/downloads", json=wanted)
        assert answer.status_code == 422 and "\n" not in answer.json()["error"]
    assert send(client, "song.wav", model="/etc/passwd").status_code == 422
    large = client.post("/api/downloads", json={"songs": [id] * 10_000})
    assert large.status_code == 403 and large.json()["error"].startswith("Content-Length: ")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("song.mp3", "song.mp3"),
        ("../../etc/passwd", "passwd"),
        ("C:\\music\\a song.mp3", "a song.mp3"),
        ("a\nb\x1b.mp3", "a_b_.mp3"),
        (".hidden", "hidden"),
        ("..", "song"),
        ("", "song"),
        ("ü" * 200 + ".flac", "ü" * 72 + ".flac"),
    ],
)
def test_names_are_made_safe(name: str, safe: str):
    assert safe_name(name) == safe


def test_waveforms_are_the_peaks(tmp_path: Path):
    waves = {name: torch.randn(2, 10_007) / 4 for name in ("a", "b", "c")}
    spool = Spool(tmp_path / "spool", tuple(waves), 2, 9_000)  # fewer than come
    for start in range(0, 10_007, 777):
        spool.write(torch.stack([wave[:, start : start + 777] for wave in waves.values()]))
    assert spool.bar == 9_000 // BARS
    expected = {"mixture": sum(waves.values()), **waves}
    for name, bars in spool.waveform().items():
        parts = expected[name].abs().amax(0).split(spool.bar)
        assert bars == [round(min(part.max().item(), 1) * 255) for part in parts], name
    whole = torch.cat(list(spool.blocks()), dim=-1)
    assert torch.equal(whole, torch.stack(list(waves.values())))


def test_the_time_left_counts_those_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "monotonic", lambda: 9.0)
    with Store(ServeConfig()) as store:
        session = store.session(store.open_session())
        infos = [audio.AudioInfo(Path("a.wav"), "wav", "", s * 100, 100, 2) for s in (10, 20, 40)]
        for number, info in enumerate(infos):
            folder = session.folder / str(number)
            folder.mkdir()
            (folder / "a.wav").write_bytes(b"")
            store.add(session, Song(folder, folder / "a.wav", info, stems=("vocals",)))
        assert [view["left"] for view in store.view(session)] == [None] * 3
        first = store.take()
        first.done, first.started = 4.0, 7.0
        store.speed = 2.0
        left = [view["left"] for view in store.view(session)]
        assert left == pytest.approx([3.0, 13.0, 33.0], rel=0.01)
        first.spool = Spool(first.folder / "stems", first.stems, 2, 1000)
        store.finish(first)
        assert store.speed == pytest.approx(2.0, rel=0.01)
        assert [view["state"] for view in store.view(session)][1:] == [State.WAITING] * 2


def test_files_of_killed_servers_are_removed(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for owner in (dead.pid, os.getpid(), "other"):
        (tmp_path / f"{PREFIX}{owner}-x" / "session").mkdir(parents=True)
    remove_abandoned(tmp_path)
    left = sorted(path.name for path in tmp_path.glob(f"{PREFIX}*"))
    assert left == sorted(f"{PREFIX}{owner}-x" for owner in (os.getpid(), "other"))


def test_without_the_extra_a_line_names_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert cli.main(["serve"]) == 2
    line = "separator: serve needs fastapi; install it with pip install 'separator[serve]'\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--port", "70000"], 2, "--port: 70000 is not in [0, 65535]"),
        (["--max_minutes", "0"], 2, "--max-minutes: 0.0 is not above 0"),
        (["--max-minutes", "0"], 2, "--max-minutes: 0.0 is not above 0"),
        (["--hots", "x"], 2, "unknown option '--hots'; did you mean '--host'?"),
        (["song.mp3"], 2, "song.mp3: is not expected; --help lists what is"),
        (["--host", "192.0.2.1", "--port", "0"], 1, "--host: cannot listen on 192.0.2.1 "),
        (["-m", "nowhere.safetensors"], 2, "nowhere.safetensors: "),
    ],
)
def test_wrong_usage_is_a_line(words: list[str], status: int, line: str, capsys):
    assert cli.main(["serve", *words]) == status
    assert capsys.readouterr().err.startswith(f"separator: {line}")


def test_a_port_in_use_is_a_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert cli.main(["serve", "--port", str(port)]) == 1
    assert capsys.readouterr().err.startswith(f"separator: --port: {port} is in use; choose")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)  # to be asked for again
    return folder


def send_to(url: str, folder: Path) -> None:
    """Send a song to a server, whose files are in a folder."""
    with httpx.Client(base_url=url, trust_env=False) as client:
        client.post("/api/session")
        send(client, "song.wav")
    assert len(list(folder.rglob("song.wav"))) == 1


def test_a_service_manager_ends_it_and_its_files_go(temporary: Path):
    song("song.wav", 60.0, rate=8000)
    command = [sys.executable, "-m", "separator", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=-1, stderr=-1, text=True) as server:
        send_to(server.stdout.readline().split()[0], temporary)
        server.terminate()
        assert server.wait(timeout=30) == 128 + signal.SIGTERM
        assert server.stderr.read() == ""
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_of_a_terminal_remove_all_files(number: int, temporary: Path):
    song("song.wav", 60.0, rate=8000)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def end() -> None:
        try:
            for _ in range(100):
                with contextlib.suppress(httpx.ConnectError):
                    return send_to(f"http://127.0.0.1:{port}", temporary)
                time.sleep(0.1)
        finally:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=end)
    thread.start()
    assert cli.main(["serve", "--port", str(port), "--host", "localhost"]) == 128 + number
    thread.join()
    assert list(temporary.iterdir()) == []
