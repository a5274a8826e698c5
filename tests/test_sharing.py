"""Models from a hub and from web addresses, against a local stand-in of their servers."""

import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from separator import cli, model_sources
from separator.api import load
from separator.errors import SeparatorError
from separator.inference.push import card
from tests.commands import Commands
from tests.songs import export_model, song
from tests.toys import read_model_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP API that uploading and downloading need, and plain files."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.path.startswith("/api/models/me/vocals/tree/main"):
            names = [name.removeprefix("me/vocals/") for name in self.server.files]
            self.json([{"type": "file", "path": n, "size": 1, "oid": "0"} for n in names])
            return
        name = re.sub(r"/resolve/[^/]+/", "/", self.path).strip("/")
        content = self.server.files.get(name)
        if name.startswith("moved"):
            self.answer(b"", 302, {"Location": "http://example.invalid/a.safetensors"})
            return
        if content is None:
            code = "EntryNotFound" if self.path.startswith("/me/vocals/") else "RepoNotFound"
            self.answer(b"", 404, {"X-Error-Code": code})
            return
        sent = content[: len(content) // 2] if name.startswith("cut") else content
        tag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self.answer(sent, 200, {**tag, "Content-Length": str(len(content))})

    def do_POST(self) -> None:
        self.server.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            rows = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            self.json({"files": rows})
        elif "/commit/" in self.path:
            for row in map(json.loads, body.splitlines()):
                value = row["value"]
                if row["key"] == "deletedFile":
                    del self.server.files[f"me/vocals/{value['path']}"]
                if row["key"] == "file":
                    self.server.files[f"me/vocals/{value['path']}"] = base64.b64decode(
                        value["content"]
                    )
            url = f"http://127.0.0.1:{self.server.server_port}/me/vocals/commit/{COMMIT}"
            self.json({"success": True, "commitOid": COMMIT, "commitUrl": url})
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.json({"url": "http://127.0.0.1/me/vocals", "name": "me/vocals"})
        else:  # the card is asked to be checked
            self.json({"errors": [], "warnings": []})

    def json(self, value: object) -> None:
        self.answer(json.dumps(value).encode(), 200, {"Content-Type": "application/json"})

    def answer(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(server: ThreadingHTTPServer) -> ThreadingHTTPServer:
    """The server as if it had just been started."""
    server.files, server.asked, server.created = {}, [], None
    return server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEPARATOR_MODELS", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def commands(
    server: ThreadingHTTPServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Commands]:
    """Commands with that hub: the library reads its address when it is imported."""
    folder = tmp_path_factory.mktemp("commands")
    settings = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_TOKEN": "hf_test",
        "HF_HOME": str(folder / "hub"),
        "SEPARATOR_MODELS": str(folder / "models"),
    }
    with Commands(Path(__file__).parents[1], **settings) as commands:
        yield commands


def test_a_model_goes_to_the_hub_and_comes_back(
    hub: ThreadingHTTPServer, commands: Commands, model: Path, tmp_path: Path
):
    pytest.importorskip("huggingface_hub")
    words = ["push", str(model), "me/vocals", "--license", "CC BY 4.0", "--private"]
    status, text = commands.run(tmp_path, *words)
    assert status == 0, text
    assert hub.files["me/vocals/model.safetensors"] == model.read_bytes()
    assert hub.created["visibility"] == "private"
    assert hub.files["me/vocals/README.md"].decode().startswith("---\nlicense: cc-by-4.0\n")
    status, text = commands.run(tmp_path, "pull", "hf:me/vocals")
    assert status == 0, text
    assert (tmp_path / "vocals.safetensors").read_bytes() == model.read_bytes()
    song(tmp_path / "song.wav")
    status, text = commands.run(tmp_path, "pull", "hf:me/other")
    assert status == 2 and "hf:me/other: no such repository" in text
    asked = len(hub.asked)
    status, text = commands.run(tmp_path, "separate", "song.wav", "-m", "hf:me/vocals")
    assert status == 0 and len(hub.asked) == asked, text  # the copy is used without a network


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
from separator.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_network_without_pytorch_comes_from_the_hub(
    hub: ThreadingHTTPServer, commands: Commands, model: Path, tmp_path: Path
):
    for package in ("huggingface_hub", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    song(tmp_path / "song.wav")
    hub.files["me/vocals/model.safetensors"] = model.read_bytes()
    words = ["separate", "song.wav", "-m", "hf:me/vocals"]
    variables = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words],
        cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "hf:me/vocals: has no model.onnx; its owner" in line and "separator[train]" in line
    push = ["push", str(model), "me/vocals", "--license", "mit", "--onnx"]
    status, text = commands.run(tmp_path, *push)
    assert status == 0, text
    for _ in range(2):  # the second time from the copy
        asked = len(hub.asked)
        status, text = commands.run(tmp_path, *words, "--backend", "onnx", "--overwrite")
        assert status == 0, text
    assert len(hub.asked) == asked
    assert commands.run(tmp_path, "pull", "hf:me/vocals", "-o", "x.onnx")[0] == 0
    assert (tmp_path / "x.onnx").read_bytes() == hub.files["me/vocals/model.onnx"]
    status, text = commands.run(tmp_path, *push[:-1])  # what is of another model goes
    assert status == 0, text
    assert sorted(hub.files) == ["me/vocals/README.md", "me/vocals/model.safetensors"]


def test_a_file_that_is_no_model_is_not_pushed(
    hub: ThreadingHTTPServer,
    commands: Commands,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    damaged = bytearray(model.read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    words = ["me/vocals", "--license", "mit"]
    assert commands.run(tmp_path, "push", "damaged.safetensors", *words)[0] == 1
    status, text = commands.run(tmp_path, "push", str(model), "me/vocals")
    assert status == 1 and "license: the file names none" in text
    assert commands.run(tmp_path, "push", str(model))[0] == 2
    (tmp_path / "last.pt").touch()
    assert cli.main(["push", str(tmp_path / "last.pt"), *words]) == 1
    assert "separator export" in capsys.readouterr().err
    assert not hub.files and not hub.asked


def test_a_foreign_file_is_refused(
    hub: ThreadingHTTPServer, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.ones(3)}, "foreign.safetensors", {"separator": "{}"})
    hub.files["foreign.safetensors"] = Path("foreign.safetensors").read_bytes()
    url = f"http://127.0.0.1:{hub.server_port}/foreign.safetensors"
    Path("there.safetensors").touch()
    for words in (
        *(["export", "foreign.safetensors", "-o", "new.safetensors"], ["pull", url, "-o", "new"]),
        ["push", "foreign.safetensors", "me/vocals", "--license", "mit"],
    ):
        assert cli.main(words) == 1
        assert "this version reads" in capsys.readouterr().err
    assert len(hub.asked) == 1
    assert cli.main(["pull", url, "-o", "there.safetensors"]) == 1
    assert len(hub.asked) == 1  # nothing is fetched that cannot be written
    assert sorted(path.name for path in tmp_path.glob("*.*")) == [
        "foreign.safetensors", "there.safetensors",
    ]  # fmt: skip


def test_the_card_says_what_is_known(model: Path, tmp_path: Path):
    from separator.inference.push import _scores

    _, description = read_model_file(model)
    report = {
        "n_tracks": 14, "split": "valid", "summary": {"ours": {"vocals": {"sdr_global_mean": 5.5}}},
        "model": {"description": {"digest": description["digest"]}},
    }  # fmt: skip
    (tmp_path / "scores.json").write_text(json.dumps(report))
    scores = _scores(str(tmp_path / "scores.json"), description["digest"])
    text = card("me/vocals", description, 1234, "MIT", scores)
    assert "vocals, mean global SDR over 14 songs of the split 'valid': 5.50 dB" in text
    assert "1,234 weights" in text and description["digest"] in text and "7.12 dB" in text
    assert "-m hf:me/vocals" in text
    with pytest.raises(SeparatorError, match="of another model"):
        _scores(str(tmp_path / "scores.json"), "another")
    (tmp_path / "scores.json").write_text("[1]")
    with pytest.raises(SeparatorError, match="not a file of `separator evaluate"):
        _scores(str(tmp_path / "scores.json"), "another")


def test_an_address_is_fetched_once_and_compared(hub: ThreadingHTTPServer, model: Path):
    hub.files["a/model.safetensors"] = model.read_bytes()
    url = f"http://127.0.0.1:{hub.server_port}/a/model.safetensors"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    for source in (url, f"{url}#sha256={digest}", Path(url), f"{url}#sha256={digest[:12]}"):
        assert model_sources.model_file(source).read_bytes() == model.read_bytes()
    assert len(hub.asked) == 1
    hub.files["a/model.safetensors"] = b"newer"
    assert model_sources.model_file(url, newest=True).read_bytes() == b"newer"
    hub.files["a/model.safetensors"] = b"newest"
    newest = f"{url}#sha256={hashlib.sha256(b'newest').hexdigest()}"
    assert model_sources.model_file(newest).read_bytes() == b"newest"
    assert len(hub.asked) == 3
    hub.files["a/model.onnx"] = b"no"
    url_of_network = f"{url.removesuffix('safetensors')}onnx"
    with pytest.raises(SeparatorError, match="no ONNX network"):  # it was fetched, and looked at
        load(f"{url_of_network}#sha256={hashlib.sha256(b'no').hexdigest()}")
    with pytest.raises(SeparatorError, match="its sha256 is"):
        model_sources.model_file(f"{url}#sha256={'0' * 64}")


def test_a_download_that_fails_leaves_nothing(
    hub: ThreadingHTTPServer, model: Path, tmp_path: Path
):
    base = f"http://127.0.0.1:{hub.server_port}"
    hub.files |= {"a.safetensors": model.read_bytes(), "cut.safetensors": model.read_bytes()}
    for source, words in {
        f"{base}/a.safetensors#sha256={'0' * 64}": "its sha256 is",
        f"{base}/cut.safetensors": "cannot be fetched|ended early",
        f"{base}/none.safetensors": "cannot be fetched",
        f"{base}/model.txt": "give the address of a .safetensors",
        "http://example.invalid/a.safetensors": "give https://",
        f"{base}/moved.safetensors": "example.invalid/a.safetensors: anyone on the way",
        "https://127.0.0.1:9/a.safetensors": "cannot be fetched",
        "https://host:port/a.safetensors": r"cannot be fetched \(InvalidURL: nonnumeric port",
        "hf:one": "give hf:OWNER/NAME",
    }.items():
        with pytest.raises(SeparatorError, match=words):
            model_sources.model_file(source)
    assert not [path for path in (tmp_path / "models").rglob("*") if path.is_file()]


def test_nothing_else_uses_the_network(model: Path, tmp_path: Path, monkeypatch):
    def forbidden(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    monkeypatch.chdir(tmp_path)
    song("song.wav")
    assert cli.main(["separate", "song.wav", "-m", str(model)]) == 0
    assert cli.main(["scan", str(tmp_path)]) == 0
    assert cli.main(["models"]) == 0
    assert torch.__version__
