"""The page of `separator serve` in a real browser.

`python -m tests.test_serve_page docs/guide` makes the guide's pictures.
"""

import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import uvicorn
from torch import Tensor

import separator
from separator import audio, cli
from separator.data import corpus
from separator.inference.serve import worker
from separator.inference.serve.app import make_app
from separator.inference.serve.command import ServeConfig
from separator.inference.serve.store import Store
from separator.inference.serve.worker import Models
from tests.chromium import PROGRAM, Page, chromium
from tests.songs import export_model, song

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM, reason="no chromium on this machine"),
    pytest.mark.usefixtures("one_thread"),
]

TAP = (Path(__file__).parent / "serve_tap.js").read_text("utf-8")
MINUS = "\u2212"


class Held:
    """Lets songs whose names begin with "held" wait after each second of sound."""

    def __init__(self) -> None:
        self.step = threading.Semaphore(0)
        self.stems = worker._stems

    def __call__(self, model, blocks, rate):
        if rate != 22050:  # of the songs that are to wait
            yield from self.stems(model, blocks, rate)
            return
        for block in blocks:
            for piece in np.split(block, range(rate, block.shape[-1], rate), axis=-1):
                self.step.acquire(timeout=30)
                yield torch.from_numpy(np.stack([piece, np.zeros_like(piece)]))


class Site:
    """A server with a small model, a browser, and songs."""

    def __init__(self, url: str, store: Store, page: Page, songs: Path, held: Held) -> None:
        self.url, self.store, self.page, self.songs, self.held = url, store, page, songs, held

    def songs_kept(self) -> set[str]:
        """Names of the songs whose files are on the disk or wanted."""
        wanted = {one.path.name for one in self.store._all()}
        # os.walk passes over folders that go meanwhile
        return wanted | {name for _, _, names in os.walk(self.store.folder) for name in names}

    def user(self) -> "User":
        return User(self, self.page.of_another_user())


class User:
    """Somebody at the page."""

    def __init__(self, site: Site, page: Page) -> None:
        self.site, self.page = site, page
        page.ask("Page.enable")
        page.ask("Page.setBypassCSP", enabled=True)  # for the tap
        page.ask("Page.addScriptToEvaluateOnNewDocument", source=TAP)
        page.open(site.url)
        page.wait("document.querySelector('#model')?.value")

    def send(self, *names: str) -> None:
        self.page.choose("#files", *(self.site.songs / name for name in names))

    def card(self, name: str, selector: str = "") -> str:
        """JavaScript for a part of a song's card."""
        card = f"[...document.querySelectorAll('.song')].find(c => c.ariaLabel === {name!r})"
        return f"{card}?.querySelector({selector!r})" if selector else card

    def click(self, name: str, selector: str) -> None:
        self.page.value(f"{self.card(name, selector)}.click()")

    def state(self, name: str) -> str:
        return self.page.value(f"{self.card(name, '.state')}?.textContent ?? ''")

    def wait(self, name: str, words: str) -> str:
        text = f"({self.card(name, '.state')}?.textContent ?? '')"
        return self.page.wait(f"{text}.includes({words!r}) && {text}", 30)

    def heard(self) -> Tensor:
        """All that was played so far, (c t), from its first sample that is not zero."""
        import base64

        data = np.frombuffer(base64.b64decode(self.page.value("sound()")), "<f4")
        wave = data.reshape(-1, 2, 128).transpose(1, 0, 2).reshape(2, -1)
        return torch.from_numpy(wave[:, np.flatnonzero(wave.any(0))[0] :].copy())

    def downloads(self, folder: Path) -> Callable[[str], bytes]:
        """Let downloads go to a folder; returns how to wait for one by its name."""
        folder.mkdir()
        self.page.ask("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

        def fetch(name: str) -> bytes:
            until((folder / name).exists)
            return (folder / name).read_bytes()

        return fetch

    def problems(self) -> list[str]:
        return self.page.value("problems")


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    songs, model = folder / "songs", str(export_model(folder / "random.safetensors"))
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("SEPARATOR_MODEL", model)
        held = Held()
        patch.setattr(worker, "_stems", held)
        song(songs / "song.wav", 3.0)
        song(songs / "short.mp3", 1.0)
        for name in ("held.wav", "held too.wav"):
            song(songs / name, 4.0, rate=22050)
        (songs / "text.mp3").write_text("this is no song\n" * 100)
        store = stack.enter_context(Store(ServeConfig(max_queue=3, max_megabytes=60.0)))
        config = uvicorn.Config(make_app(store, Models("", "cpu", 1)), port=0, log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        page = stack.enter_context(chromium(folder / "profile"))
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Site(f"http://127.0.0.1:{port}", store, page, songs, held)
        held.step.release(1000)
        server.should_exit = True
        thread.join(timeout=30)


def test_a_song_is_sent_played_and_downloaded(site: Site, tmp_path: Path):
    stems = separator.separate(site.songs / "song.wav")
    mixture = sum(stems.values())
    user, name = site.user(), "song.wav"
    fetch = user.downloads(tmp_path / "downloads")
    user.send(name)
    user.wait(name, "Ready, 0:03")
    user.click(name, ".play")
    play = user.card(name, ".play")
    user.page.wait(f"{play}.textContent === 'Pause'")
    user.page.wait(f"{play}.textContent === 'Play'")  # it ended
    heard = user.heard()[:, : mixture.shape[1]]
    torch.testing.assert_close(heard, mixture, atol=1e-5, rtol=0)  # in step, pieces joined

    user.page.value("heard.length = 0")
    user.click(name, ".karaoke")
    user.click(name, ".play")
    user.page.wait(f"{user.card(name, '.position')}.value > 1")
    levels = f"[...{user.card(name)}.querySelectorAll('.balance output')].map(o => o.textContent)"
    assert user.page.value(levels) == ["0 dB", f"{MINUS}12 dB"]
    user.click(name, ".stem[data-stem=instrumental] .mute")  # while it plays
    user.page.wait(f"{play}.textContent === 'Play'")
    heard = user.heard()[:, : mixture.shape[1]]
    vocals = 10 ** (-12 / 20) * stems["vocals"]
    early, late = slice(0, 40_000), slice(-44_100, None)
    expected = stems["instrumental"] + vocals
    torch.testing.assert_close(heard[:, early], expected[:, early], atol=1e-5, rtol=0)
    torch.testing.assert_close(heard[:, late], vocals[:, late], atol=1e-5, rtol=0)

    user.page.value("document.querySelector('#format').value = 'wav'")
    user.click(name, ".mix")
    data = fetch("song (Mix).wav")
    (tmp_path / "mix.wav").write_bytes(data)
    torch.testing.assert_close(audio.read(tmp_path / "mix.wav"), vocals, atol=1e-6, rtol=0)
    user.click(name, ".all")
    names = zipfile.ZipFile(io.BytesIO(fetch("song.zip"))).namelist()
    assert names == ["song (Instrumental).wav", "song (Vocals).wav"]
    user.click(name, ".stem[data-stem=vocals] .save")
    assert len(fetch("song (Vocals).wav")) > 4 * 44100 * 4
    assert user.problems() == []


def test_seeking_and_pausing(site: Site):
    user, name = site.user(), "song.wav"
    user.send(name)
    user.wait(name, "Ready")
    box = f"{user.card(name, '.mixture')}.getBoundingClientRect()"
    click = "new MouseEvent('click', {clientX: b.left + b.width / 2})"
    user.page.value(f"(b => {user.card(name, '.mixture')}.dispatchEvent({click}))({box})")
    assert user.page.value(f"{user.card(name, '.time')}.textContent") == "0:02 of 0:03"
    user.click(name, ".play")
    position = f"Number({user.card(name, '.position')}.value)"
    user.page.wait(f"{position} > 2")
    user.click(name, ".play")  # pauses
    at = user.page.value(position)
    time.sleep(0.2)
    assert user.page.value(position) == at < 3
    heard = user.heard()
    mixture = audio.read(site.songs / name)[:, 66_000:]  # 150 samples before the middle
    pieces = mixture[:, :1000].unfold(1, 500, 1)  # c, offset, t
    offset = int((pieces - heard[:, None, :500]).abs().sum((0, 2)).argmin())
    assert abs(offset - 150) <= 50  # the click falls on a pixel, and the time on a digit
    count = round((at - 1.6) * 44100)
    assert count > 10_000
    expected = mixture[:, offset : offset + count]
    torch.testing.assert_close(heard[:, :count], expected, atol=1e-5, rtol=0)


def test_progress_and_cancel(site: Site):
    user = site.user()
    user.send("held.wav", "held too.wav", "short.mp3")
    user.wait("held too.wav", "Waiting for 1 song")
    user.wait("short.mp3", "Waiting for 2 songs")
    site.held.step.release()
    text = user.wait("held.wav", "Separating, 25 %")
    assert "about 0:0" in text and text.endswith("left")
    user.click("held.wav", ".remove")
    user.page.wait(f"!({user.card('held.wav')})")
    until(lambda: "held.wav" not in {one.path.name for one in site.store._all()})
    site.held.step.release()  # the worker notices
    user.wait("held too.wav", "Separating")
    assert "held.wav" not in site.songs_kept()
    user.click("short.mp3", ".remove")  # one that waits
    user.page.wait(f"!({user.card('short.mp3')})")
    until(lambda: "short.mp3" not in site.songs_kept())
    site.held.step.release(4)
    user.wait("held too.wav", "Ready")
    user.page.open(site.url)  # a reload keeps what is done
    user.wait("held too.wav", "Ready")
    user.page.value("document.querySelector('#clear').click()")
    user.page.wait("!document.querySelector('.song')")
    until(lambda: "held too.wav" not in site.songs_kept())
    assert user.problems() == []


def test_a_reload_keeps_levels_and_settings(site: Site):
    user, name = site.user(), "short.mp3"
    user.send(name)
    user.wait(name, "Ready")
    user.click(name, ".karaoke")
    user.click(name, ".stem[data-stem=instrumental] .mute")
    format = "document.querySelector('#format')"
    user.page.value(f"{format}.value = 'ogg', {format}.dispatchEvent(new Event('change'))")
    user.page.value("document.querySelector('#stems input[value=vocals]').click()")
    user.page.open(site.url)
    user.wait(name, "Ready")
    level = user.card(name, ".stem[data-stem=vocals] output")
    mute = user.card(name, ".stem[data-stem=instrumental] .mute")
    assert user.page.value(f"{level}.textContent") == f"{MINUS}12 dB"
    assert user.page.value(f"{mute}.ariaPressed") == "true"
    assert user.page.value(f"{format}.value") == "ogg"
    assert user.page.value(f"{user.card(name, '.all')}.textContent") == "Download instrumental"
    user.page.value("sessionStorage.setItem('model', '\"gone\"')")
    user.page.open(site.url)
    user.wait(name, "Ready")
    assert user.problems() == []


def test_cancel_of_an_upload(site: Site):
    user = site.user()
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 100_000}
    user.page.ask("Network.enable")
    user.page.ask("Network.emulateNetworkConditions", **slow)
    (site.songs / "large.wav").write_bytes(bytes(5_000_000))
    user.send("large.wav")
    user.wait("large.wav", "Sending")
    user.click("large.wav", ".remove")
    user.page.wait("!document.querySelector('.song')")
    until(lambda: "large.wav" not in site.songs_kept())


def test_errors_are_the_command_lines(site: Site, capsys: pytest.CaptureFixture):
    assert cli.main(["separate", str(site.songs / "text.mp3"), "-o", "/nowhere"]) == 1
    line = capsys.readouterr().err.splitlines()[-1].removeprefix("separator: ")
    user = site.user()
    user.send("text.mp3", "short.mp3")
    user.wait("text.mp3", "is no audio file")
    assert line == f"{site.songs}/text.mp3: {user.state('text.mp3')}"
    role = f"{user.card('text.mp3', '.state')}.getAttribute('role')"
    assert user.page.value(role) == "alert"
    user.wait("short.mp3", "Ready")  # the other song is done
    user.click("text.mp3", ".remove")
    user.page.wait(f"!({user.card('text.mp3')})")
    huge = site.songs / "huge.wav"
    with huge.open("wb") as file:
        file.truncate(61_000_000)
    user.send("huge.wav")
    user.wait("huge.wav", "larger than 60 MB")


def test_a_full_queue_is_told_of_a_large_song_too(site: Site):
    user = site.user()
    song(site.songs / "50 MB.wav", 140.0)
    others = [f"held {number}.wav" for number in range(3)]
    for name in others:
        song(site.songs / name, 1.0, rate=22050)
    user.send(*others)
    user.wait(others[-1], "Waiting")
    user.send("50 MB.wav")
    user.wait("50 MB.wav", "the queue is full (3 songs)")
    site.held.step.release(3)
    user.wait(others[-1], "Ready")
    assert user.page.value("!document.querySelector('#everything').hidden")


def test_two_users_at_once(site: Site):
    one, other = site.user(), site.user()
    one.send("song.wav")
    other.send("short.mp3")
    one.wait("song.wav", "Ready")
    other.wait("short.mp3", "Ready")
    for user, count in ((one, 1), (other, 1)):
        user.page.open(site.url)
        user.page.wait("!!document.querySelector('.player:not([hidden])')")
        assert user.page.value("document.querySelectorAll('.song').length") == count
    path = one.page.value("fetch('api/songs').then(a => a.json()).then(s => s[0].id)")
    status = f"fetch('api/songs/{path}/waveform').then(a => a.status)"
    assert (one.page.value(status), other.page.value(status)) == (200, 404)


def test_dropping(site: Site):
    user = site.user()
    data = json.dumps(list((site.songs / "short.mp3").read_bytes()))
    user.page.value(f"""(() => {{
      const dataTransfer = new DataTransfer();
      const bytes = new Uint8Array({data});
      for (const name of ["a.mp3", "b.mp3"]) dataTransfer.items.add(new File([bytes], name));
      const options = {{ dataTransfer, bubbles: true, cancelable: true }};
      document.querySelector("#drop").dispatchEvent(new DragEvent("drop", options));
    }})()""")
    user.wait("a.mp3", "Ready")
    user.wait("b.mp3", "Ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(site: Site, scheme: str):
    """By keyboard and with a screen reader, on a telephone, in the dark, without a network."""
    user, name = site.user(), "song.wav"
    page = user.page
    page.ask("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2,
             mobile=True)  # fmt: skip
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.ask("Emulation.setEmulatedMedia", features=features)
    user.send(name, "text.mp3")
    user.wait(name, "Ready")
    user.wait("text.mp3", "is no audio file")
    reason = page.value(f"{user.card('text.mp3', '.state')}.textContent")
    assert reason == "is no audio file, or is too damaged to be read; check that it plays"
    assert page.value("document.documentElement.scrollWidth") == 360
    ends = f"[...{user.card(name)}.querySelectorAll('.balance span')].map(end => end.textContent)"
    assert page.value(ends) == ["off", "+6"] * 2  # of the sliders
    colours = page.value("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    light = [sum(map(int, colour[4:-1].split(","))) > 384 for colour in colours]
    assert light == ([True, False] if scheme == "dark" else [False, True])
    for node in page.ask("Accessibility.getFullAXTree")["nodes"]:
        role = node["role"]["value"]
        if not node["ignored"] and role in (
            "button",
            "slider",
            "checkbox",
            "combobox",
            "progressbar",
        ):
            assert node["name"]["value"].strip(), node
    page.value(f"{user.card(name, '.play')}.focus()")
    for kind in ("keyDown", "keyUp"):
        page.ask("Input.dispatchKeyEvent", type=kind, key=" ", code="Space", text=" ",
                 windowsVirtualKeyCode=32)  # fmt: skip
    page.wait(f"{user.card(name, '.play')}.textContent === 'Pause'")
    page.value(f"{user.card(name, '.stem[data-stem=vocals] input')}.focus()")
    for kind in ("keyDown", "keyUp"):
        page.ask("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft",
                 windowsVirtualKeyCode=37)  # fmt: skip
    level = f"{user.card(name, '.stem[data-stem=vocals] output')}.textContent"
    assert page.value(level) == f"{MINUS}0.5 dB"
    hosts = "performance.getEntriesByType('resource').map(e => new URL(e.name).origin)"
    assert set(page.value(hosts)) == {site.url}
    assert user.problems() == []


def test_the_bundled_model_and_the_pictures(tmp_path: Path):
    shots = pictures(tmp_path)
    assert all(10_000 < len(shot) < 150_000 for shot in shots.values())


def pictures(folder: Path) -> dict[str, bytes]:
    """Separate a generated song with the command as users start it; returns pictures of it."""
    wave = torch.tensor(sum(corpus.song(20.0, seed=3).values())).float()
    path = folder / "A song made by arithmetic.flac"
    with audio.Writer(path, corpus.RATE, 2) as writer:
        writer.write(wave)
    command = [sys.executable, "-m", "separator", "serve", "--port", "0", "-m", "tiny-vocals"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    shots = {}
    try:
        url = server.stdout.readline().split()[0]
        with chromium(folder / "profile") as page:
            size = {"height": 660, "deviceScaleFactor": 1, "mobile": False}
            page.ask("Emulation.setDeviceMetricsOverride", width=900, **size)
            page.open(url)
            page.wait("document.querySelector('#model')?.value")
            shots["serve-start.png"] = page.screenshot()
            page.choose("#files", path)
            page.wait("!!document.querySelector('.player:not([hidden])')")
            page.wait("document.querySelector('canvas.mixture').width > 400")
            page.value("document.querySelector('.karaoke').click()")
            page.value("document.querySelector('.play').click()")
            page.wait("document.querySelector('.position').value > 3")
            page.value("document.querySelector('#songs').scrollIntoView({block: 'end'})")
            shots["serve-song.png"] = page.screenshot()
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stdout.close()
    return shots


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        for name, shot in pictures(Path(made)).items():
            Path(sys.argv[1], name).write_bytes(shot)
