"""The program as a whole: its words, its exit statuses, its streams, and one line for any error."""

import errno
import importlib
import io
import json
import logging
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from datetime import datetime
from pathlib import Path

import pytest

import separator
from separator import cli, logs
from separator.cli import dispatch
from separator.cli.compare.config import CompareConfig
from separator.cli.demo import DemoConfig
from separator.commands import COMMANDS, LOG_OPTIONS, STATUSES
from separator.config import parse
from separator.engine.stop import OUT_OF_TIME
from separator.errors import SeparatorError, UsageError
from separator.pretrain.config import PretrainConfig
from separator.train.config import TrainConfig

ROOT = Path(__file__).parents[1]
HOSTILE = "a\x1b[2J\nseparator: all is well\r\x07\u202e.mp3"  # clears, forges, turns around
CONFIGS = {
    "pretrain": PretrainConfig,
    "train": TrainConfig,
    "compare": CompareConfig,
    "demo": DemoConfig,
}


def test_the_version_is_told_everywhere(capsys: pytest.CaptureFixture):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"separator {separator.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    dynamic = project["tool"]["setuptools"]["dynamic"]  # an editable install keeps an old number
    assert dynamic["version"] == {"attr": "separator.__version__"}


def test_the_package_lists_what_is_public():
    assert {"Separator", "separate", "SeparatorError", "__version__"} <= set(dir(separator))
    assert separator.SeparatorError is SeparatorError
    assert callable(separator.separate)
    with pytest.raises(AttributeError, match="no attribute 'seperate'"):
        _ = separator.seperate


def test_help_lists_commands_and_exit_statuses(capsys: pytest.CaptureFixture):
    texts = []
    for words in (["--help"], ["help"], ["help", "help"], ["help", "--help"], ["-h", "train"]):
        assert cli.main(words) == 0
        texts.append(capsys.readouterr().out)
    (text,) = set(texts)
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    for status in ("0 ", "1 ", "2 ", "3 ", "130, 143, 129 ", "141 "):
        assert f"\n  {status}" in text
    assert cli.main([]) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_ends_in_examples(name: str, capsys: pytest.CaptureFixture):
    texts = []
    for words in (["help", name], [name, "--help"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code in (0, None)
        texts.append(capsys.readouterr().out)
    text = texts[0]
    assert text == texts[1]
    _, _, end = text.partition("\nexamples:\n")
    examples, _, statuses = end.partition("\n\nexit status:\n")
    assert statuses.splitlines()[-1].startswith("  141 ")
    lines = re.sub(r" \\\n +", " ", examples).splitlines()  # as a shell joins them
    assert lines[0::2] == [f"  {command}" for command in examples_of(name)]
    assert all(re.match("      [a-z1]", purpose) for purpose in lines[1::2])
    for word in ("Literal[", "Optional[", "Union[", "tuple[", "list[", "null"):
        assert word not in text
    if name in ("scan", "separate"):
        assert "songs and folders" in text or "folders of music" in text  # of the bare words


@pytest.mark.parametrize(
    ("name", "words"),
    [("export", "MODEL"), ("push", "MODEL OWNER/NAME"), ("scan", "ROOTS [ROOTS ...]")],
)
def test_usage_shows_how_many_words_are_taken(name: str, words: str, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    usage = " ".join(capsys.readouterr().out.partition("\n\n")[0].split())
    assert usage.endswith(f"] {words}")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_each_thing_once(name: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    described = " ".join(text.split("\n\n")[1].split()).removesuffix(".")
    assert " ".join(text.split()).count(described) == 1
    assert ("a training reached its time limit" in text) == (name in ("pretrain", "train"))
    assert "Path to a configuration file" not in " ".join(text.split())
    if "key=value" not in text:
        assert not re.search(r"--\w+_", text)  # options have hyphens


def test_help_of_separate_begins_with_what_a_musician_needs(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        cli.main(["separate", "--help"])
    text = capsys.readouterr().out.split("\noptions:\n")[1].split("\noptions of every")[0]
    shown = re.findall(r"^  (?:-\w [A-Z]+, )?(--[\w-]+)|^(\w+)[a-z ,]*:$", text, re.MULTILINE)
    expected = """stems --stems --output --format --model --two-stems --mix --video --dry-run
        quality --bits --bitrate --shifts --average --weights
        whole --name --report --watch --overwrite --keep --strict --jobs
        speed --chunk --overlap --batch --backend --device"""
    assert [option or group for option, group in shown] == expected.split()
    for words in ("--mix STEM=DB ", "--name PATTERN ", "--jobs N ", "--chunk N "):
        assert words in text
    assert "(type: " not in text


def examples_of(name: str) -> list[str]:
    """Return the command lines among a command's examples, each in one line."""
    lines = COMMANDS[name].examples.replace(" \\\n          ", " ").splitlines()
    return [line.strip() for line in lines if line.startswith("        separator ")]


@pytest.mark.parametrize("line", [line for name in COMMANDS for line in examples_of(name)])
def test_examples_are_understood(line: str):
    program, name, *words = shlex.split(line)
    assert program == "separator"
    if name in CONFIGS:
        parse(CONFIGS[name], words, name)
    else:
        assert hasattr(importlib.import_module(COMMANDS[name].module), "main")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["help", "trian"], "unknown command 'trian'; did you mean 'train'?"),
        (["zzz"], f"unknown command 'zzz'; the commands are {', '.join(COMMANDS)}, help"),
        (
            ["pyproject.toml"],
            "unknown command 'pyproject.toml'; did you mean `separator separate pyp",
        ),
        (["hepl"], "unknown command 'hepl'; did you mean 'help'?"),
        (["--versoin"], "unknown option '--versoin' before a command; did you mean '--version'?"),
        (["--xyz"], "unknown option '--xyz' before a command; the options there are --help, --v"),
        (["help", "separate", "train"], "help: explains one command; leave 'train' out"),
        (["evaluate", "x"], "--data: is not given; --help has examples"),
        (["export", "a", "b", "-o", "x.onnx"], "b: is not expected; --help lists what is"),
        (["train", "stesp=1"], "unknown key 'stesp'; did you mean 'steps'?"),
        (["train", "data.roots=[a]", "steps=0"], "steps: 0 is not "),
        (["train", "nowhere.yaml"], "nowhere.yaml: no such file; give a YAML file that exists"),
    ],
)
def test_wrong_usage_is_a_line_and_status_2(words: list[str], line: str, capsys):
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"separator: {line}")
    assert (out, err.count("\n")) == ("", 1)


def raising(error: BaseException):
    def command(argv: list[str]) -> int:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (SeparatorError("song.wav: broken"), 1, "song.wav: broken"),
        (UsageError("steps: 0 is too few"), 2, "steps: 0 is too few"),
        (OSError(errno.EACCES, "Permission denied", "a.wav"), 1, "a.wav: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device", b"caf\xe9.wav"),
            1,
            "caf\\udce9.wav: No space left on device; free some space on that disk",
        ),
        (OSError(errno.EXDEV, "Not same", "a", None, "b"), 1, "a: b: Not same"),
        (MemoryError(), 1, "not enough memory"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            1,
            "not enough memory (Unable to allocate 9 TiB)",
        ),
        (
            ValueError("two\nlines"),
            1,
            "unexpected ValueError: two lines; SEPARATOR_DEBUG=1 shows where it happened",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt(signal.SIGTERM), 143, "stopped by SIGTERM"),
        (KeyboardInterrupt(signal.SIGHUP), 129, "stopped by SIGHUP"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_any_error_is_one_line(error: BaseException, status: int, line: str, monkeypatch, capsys):
    monkeypatch.delenv("SEPARATOR_DEBUG", raising=False)
    assert cli.guarded(raising(error), []) == status
    assert capsys.readouterr().err == f"separator: {line}\n"


def test_an_interruption_of_the_first_imports_is_quiet():
    code = """
import sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == "separator.cli.dispatch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupts())
from separator.__main__ import main
sys.exit(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("SEPARATOR_DEBUG", "1")
    assert cli.guarded(raising(ValueError("odd")), []) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert any("in command" in line for line in lines)
    assert lines[-1].startswith("separator: unexpected ValueError: odd")


def test_an_out_of_memory_error_of_the_gpu_is_told(capsys: pytest.CaptureFixture):
    import torch

    assert cli.guarded(raising(torch.OutOfMemoryError("CUDA: tried to allocate 2 GiB")), []) == 1
    expected = "separator: not enough memory on the GPU (CUDA: tried to allocate 2 GiB)\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("separate ''", "inputs: a word is empty"),
        ("separate --keep '' song.wav", "inputs: a word is empty"),
        ("separate song.wav -o ''", "-o"),
        ("separate song.wav --model=", "--model"),
        ("separate song.wav --two_stems=", "--two-stems"),
        ("separate song.wav --stems '' --report ''", "--stems"),
        ("scan . ''", "roots: a word is empty"),
        ("scan . --index ''", "--index"),
        ("evaluate '' --data .", "model: a word is empty"),
        ("evaluate tiny-vocals --data ''", "--data"),
        ("export '' -o x.onnx", "model: a word is empty"),
        ("monitor ''", "runs: a word is empty"),
        ("pull ''", "source: a word is empty"),
        ("serve -m ''", "-m"),
        ("demo --run ''", "--run"),
        ("train 'data.roots=[\"\"]'", "data.roots"),
        ("train data.roots=[a] run=", "run"),
        ("train data.roots=[a] 'run=\"\"'", "run"),
        ("train data.roots=[a] ''", "a word is empty; leave it out"),
        ("compare compare/masks.yaml library=[a] 'stems=[\"\"]'", "stems"),
        ("compare compare/masks.yaml 'songs={more: [\"\"]}'", "songs"),
        ("compare compare/masks.yaml run=", "run"),
    ],
)
def test_an_empty_word_is_no_path(line: str, name: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(shlex.split(line)) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"separator: {name}") and said.count("\n") == 1
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_hostile_name_forges_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / HOSTILE
    folder.mkdir()
    (folder / HOSTILE).write_bytes(b"no music")
    quoted = json.dumps([str(folder)])
    words = {
        "scan": [str(folder), "--report", "report.txt", "--jobs", "1"],
        "pretrain": [f"data.roots={quoted}"],
        "train": [f"data.roots={quoted}"],
        "separate": [str(folder), HOSTILE, "-m", HOSTILE],
        "evaluate": [HOSTILE, "--data", str(folder)],
        "compare": ['arms={"none": {}}', f"stems={json.dumps(['no' + HOSTILE])}"],
        "demo": ["--data", f"no{HOSTILE}"],
        "models": [HOSTILE],
        "doctor": ["-m", HOSTILE],
        "completion": [HOSTILE],
        "monitor": [HOSTILE],
        "serve": ["-m", HOSTILE],
        "push": [HOSTILE, "me/model"],
        "pull": [f"hf:{HOSTILE}"],
        "export": [HOSTILE, "-o", "x.safetensors"],
    }
    status = cli.main([name, *words[name]])
    assert status in ((0,) if name == "scan" else (1, 2))
    captured = capsys.readouterr()
    said = captured.out + captured.err
    assert said
    assert not set(said) & set("\x1b\x07\u202e"), said
    assert "\nseparator: all is well" not in said
    assert name == "scan" or said.count("\\n") >= 1


def test_a_log_line_stays_one(capsys: pytest.CaptureFixture):
    handler = logs._StderrHandler()
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        caught = sys.exc_info()
    record = logging.LogRecord("x", 20, "x", 1, "%s: read", (HOSTILE,), None)
    handler.emit(record)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "a\\x1b[2J\\nseparator: all is well\\r\\x07\\u202e.mp3: read"
    handler.emit(logging.LogRecord("x", 20, "x", 1, "why", (), caught))
    assert len(capsys.readouterr().err.splitlines()) > 2  # a traceback keeps its lines


def test_other_libraries_log_warnings_alone(monkeypatch, capsys: pytest.CaptureFixture):
    def command(argv: list[str]) -> int:
        for name in ("separator.toy", "library"):
            logging.getLogger(name).info("%s is at work", name)
            logging.getLogger(name).warning("%s is worried", name)
        return 0

    monkeypatch.setattr(logging.root, "handlers", [])
    assert cli.guarded(command, []) == 0
    assert capsys.readouterr().err.splitlines() == [
        "separator.toy is at work",
        "separator.toy is worried",
        "library is worried",
    ]


def worried(argv: list[str]) -> int:
    """A command that says something at each level, and fails."""
    toy = logging.getLogger("separator.toy")
    toy.debug("detail")
    logs.event(toy, "step 3", step=3, loss=0.5)
    toy.info("read %s", HOSTILE)
    toy.warning("worried")
    raise SeparatorError(f"{' '.join(argv)}: broken")


@pytest.mark.parametrize(
    ("option", "levels"),
    [
        (None, ["read", "worried", "separator:"]),
        ("--quiet", ["separator:"]),
        ("--verbose", ["detail", "step", "read", "worried", "Traceback", "separator:"]),
    ],
)
def test_quiet_and_verbose(option: str | None, levels: list[str], monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.delenv("SEPARATOR_DEBUG", raising=False)
    before = logs.ours.level
    assert cli.guarded(worried, ["a", *([option] if option else []), "b"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " " and "Error: " not in line] == levels
    assert lines[-1] == "separator: a b: broken"
    assert (logs.ours.level, os.environ.get("SEPARATOR_DEBUG")) == (before, None)


@pytest.mark.parametrize("words", [["--log-json"], []])
def test_machines_read_json_lines(words: list[str], monkeypatch, capsys):
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.delenv("SEPARATOR_DEBUG", raising=False)
    monkeypatch.setenv("SEPARATOR_LOG", "text" if words else "json")
    assert cli.guarded(worried, ["a", *words]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [row["level"] for row in rows] == ["info", "info", "warning", "error"]
    assert rows[0] | {"time": ""} == {
        "time": "", "level": "info", "message": "step 3", "step": 3, "loss": 0.5,
    }  # fmt: skip
    assert datetime.fromisoformat(rows[0]["time"]).tzinfo
    assert rows[1]["message"].endswith("\\u202e.mp3")
    assert rows[-1]["message"] == "a: broken"
    assert os.environ["SEPARATOR_LOG"] == ("text" if words else "json")
    monkeypatch.setenv("SEPARATOR_LOG", "xml")
    assert cli.main(["models"]) == cli.main(["models", "--quiet", "--verbose"]) == 2


def test_bars_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def drawn(stream: io.StringIO) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        for _ in logs.bar(range(2)):
            pass
        return stream.getvalue()

    monkeypatch.delenv("SEPARATOR_LOG", raising=False)
    assert "2/2" in drawn(Terminal())
    assert "\x1b" not in drawn(Terminal())  # no colours, with or without NO_COLOR
    assert drawn(io.StringIO()) == ""
    with logs.configured(["--quiet"]):
        assert drawn(Terminal()) == ""
    with logs.configured(["--log-json"]):
        assert drawn(Terminal()) == ""


def test_the_guide_lists_statuses_and_options_as_the_help_does():
    page = (Path(__file__).parents[1] / "docs" / "guide" / "commands.md").read_text("utf-8")
    for name, text in {**STATUSES, **LOG_OPTIONS}.items():
        code = ", ".join(f"`{part}`" for part in name.split(", "))
        assert f"| {code} | {text} |" in page
    for command in COMMANDS:
        assert f"`{command}`" in page
    codes = {dispatch.DONE, dispatch.FAILED, dispatch.WRONG_USAGE, dispatch.READER_GONE}
    codes |= {OUT_OF_TIME, *(128 + s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))}
    assert {int(code) for row in STATUSES for code in row.split(", ")} == codes


BASH = """source {script}
COMP_WORDS=(separator {words}); COMP_CWORD=$(({count})); _shtab_separator
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def test_completion_leaves_out_the_options_of_commands_that_lack_a_package(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, COMMANDS["pretrain"].module, raising=False)
    monkeypatch.setattr(importlib, "import_module", lacking(COMMANDS["pretrain"].module, "einops"))
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    assert "--output" in script and "--objective" not in script


def lacking(module: str, package: str):
    """Import as if a module needed a package that is not installed."""
    load = importlib.import_module

    def imported(name: str, *rest):
        if name == module:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return load(name, *rest)

    return imported


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "song.mp3").touch()
    expected = {
        "sep": ["separate"],
        "separate so": ["song.mp3"],
        "separate song.mp3 --format m": ["mp3", "m4a"],
        "separate -m so": ["song.mp3"],
        "separate -m so -m ti": ["tiny-vocals"],
        "separate --stems = vo": ["vocals"],
        "separate song.mp3 --stems vocals dr": ["drums"],
        "separate --stems vocals so": ["song.mp3"],
        "separate --stems vocals --two": ["--two-stems"],
        "separate --two-stems d": ["drums"],
        "separate --output = so": ["song.mp3"],  # as bash passes --output=so
        "separate song.mp3 --format = m": ["mp3", "m4a"],
        "separate --backend =": ["auto", "torch", "onnx"],
        "separate --qui": ["--quiet"],
        "separate --two": ["--two-stems"],
        "separate --device c": ["cpu", "cuda"],
        "evaluate --split va": ["valid"],
        "evaluate --valid": ["--valid-share"],
        "train train/vo": ["train/vocals.yaml", "train/vocals_stft.yaml"],
        "train tiny.yaml --optim.k": ["--optim.kind"],
        "compare compare/ma": ["compare/masks.yaml"],
        "compare ti": [],
    }
    for words, found in expected.items():
        script = BASH.format(script="./script", words=words, count=len(words.split()))
        bash = ["bash", "-c", script]
        done = subprocess.run(bash, cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.split() == found, words
    for shell in ("zsh", "fish"):
        assert cli.main(["completion", shell]) == 0
        assert all(command in capsys.readouterr().out for command in ["train/vocals.yaml"])
    assert cli.main(["completion", "csh"]) == 2


COMPLETED = [  # what is typed, and the words that it becomes
    ("sepa", "separate"),
    ("help sepa", "help separate"),
    ("separate --bac", "separate --backend"),
    ("separate --backend on", "separate --backend onnx"),
    ("separate son", "separate song.wav"),
    ("separate a.wav son", "separate a.wav song.wav"),
    ("separate a.wav --keep -m son", "separate a.wav --keep -m song.wav"),
    ("separate -m tiny-vocals -m son", "separate -m tiny-vocals -m song.wav"),
    ("separate -m ti", "separate -m tiny-vocals"),
    ("separate --stems voc", "separate --stems vocals"),
    ("separate a.wav --stems vocals dr", "separate a.wav --stems vocals drums"),
    ("separate --stems vocals drums son", "separate --stems vocals drums song.wav"),
    ("separate --stems vocals -m ti", "separate --stems vocals -m tiny-vocals"),
    ("separate --stems vocals --bac", "separate --stems vocals --backend"),
    ("separate --two-stems dr", "separate --two-stems drums"),
    ("export ti", "export tiny-vocals"),
    ("train train/voc", "train train/vocals.yaml"),
    ("train train/vocals.yaml ti", "train train/vocals.yaml tiny.yaml"),
    ("models ti", "models tiny-vocals"),
]


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_completes_on_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["completion", "zsh"]) == 0
    (tmp_path / "_separator").write_text(capsys.readouterr().out)
    (tmp_path / "song.wav").touch()
    setup = (
        f"fpath=({tmp_path} $fpath); autoload -Uz compinit && compinit -u -D; "
        "setopt menu_complete; separator() { print -r -- G''OT: $@ :T''OG }"
    )
    terminal, end = os.openpty()
    shell = subprocess.Popen(
        ["zsh", "-f", "-i"], stdin=end, stdout=end, stderr=end, cwd=tmp_path,
        env={**os.environ, "TERM": "dumb"}, start_new_session=True,
    )  # fmt: skip
    try:
        os.write(terminal, f"{setup}\n".encode())
        for typed, completed in COMPLETED:
            os.write(terminal, f"separator {typed}\t\n".encode())
            said = b""
            while b" :TOG" not in said.rpartition(b"GOT: ")[2]:
                assert select.select([terminal], [], [], 60)[0], said
                said += os.read(terminal, 1 << 16)
            words = said.rpartition(b"GOT: ")[2].partition(b" :TOG")[0].decode()
            assert words.strip() == completed
    finally:
        shell.kill()
        shell.wait()
        os.close(terminal)
        os.close(end)


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_completes(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["completion", "fish"]) == 0
    (tmp_path / "script.fish").write_text(capsys.readouterr().out)
    (tmp_path / "song.wav").touch()
    asked = "; ".join(f"complete -C 'separator {typed}'; echo" for typed, _ in COMPLETED)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"function separator; end; source script.fish; {asked}"],
        cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    for answer, (_, completed) in zip(done.stdout.split("\n\n"), COMPLETED, strict=False):
        assert completed.split()[-1] in [line.split("\t")[0] for line in answer.splitlines()]
    assert done.stdout.count("\n\n") == len(COMPLETED)


@pytest.mark.parametrize(
    ("place", "waits"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "0", "RANK": "4"}, False),
        ({"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": "1", "RANK": "1"}, True),
        ({"LOCAL_RANK": "1", "RANK": "1"}, False),  # not torchrun: its words may be others
    ],
)
def test_the_first_rank_tells_wrong_usage(place: dict[str, str], waits, monkeypatch, capsys):
    waited: list[str] = []  # what had been told by then
    monkeypatch.setattr(dispatch.time, "sleep", lambda _: waited.append(capsys.readouterr().err))
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_RANK", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["train", "stesp=1"]) == 2
    assert waited == ([""] if waits else [])
    assert capsys.readouterr().err.count("\n") == 1  # nobody ended it: it tells it itself
    assert cli.guarded(raising(SeparatorError("only here")), []) == 1
    assert "only here" in capsys.readouterr().err
    assert len(waited) == waits


class _Broken(io.StringIO):
    """A stream that fails like a pipe without a reader, a full disk, or a closed file."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [BrokenPipeError(errno.EPIPE, "Broken pipe"), OSError(errno.EIO, "I/O"), ValueError("closed")],
    ids=lambda error: type(error).__name__,
)
def test_without_standard_error_commands_work_in_silence(error, monkeypatch, capsys):
    for stream in (None, _Broken(error)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", stream)
            assert cli.main(["trian"]) == 2
            assert cli.main(["--version"]) == 0
            assert sys.stderr is stream
    assert capsys.readouterr().out.count("separator") == 2


def test_without_standard_output_commands_work_in_silence(monkeypatch, capsys):
    for stream in (None, _Broken(ValueError("closed"))):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert cli.main(["--version"]) == 0
    assert capsys.readouterr().err == ""


def test_a_reader_that_went_away_ends_a_command_quietly(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", _Broken(BrokenPipeError(errno.EPIPE, "Broken pipe")))
        assert cli.main(["--help"]) == 141
    assert capsys.readouterr().err == ""


def test_another_pipe_that_broke_is_an_error(capsys: pytest.CaptureFixture):
    assert cli.guarded(raising(BrokenPipeError(errno.EPIPE, "Broken pipe")), []) == 1
    assert capsys.readouterr().err == "separator: Broken pipe\n"


def test_results_that_cannot_be_written_are_an_error(monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", _Broken(OSError(errno.ENOSPC, "No space left on device")))
        assert cli.main(["--help"]) == 1
    assert capsys.readouterr().err == "separator: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("redirection", "status"),
    [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0), (">/dev/full", 1), ("2>/dev/full", 0)],
)
def test_closed_and_full_streams_of_a_process(redirection: str, status: int):
    command = f"{shlex.quote(sys.executable)} -m separator --help {redirection}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_process_whose_reader_went_away():
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "separator", "--help"], stdout=writer, stderr=subprocess.PIPE
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_locale_that_is_not_utf_8_is_no_traceback(locale: str, tmp_path: Path):
    environment = {**os.environ, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for words in (["Dvořák".encode()], ["--help"]):
        done = subprocess.run(
            [sys.executable.encode(), b"-m", b"separator", *words],
            capture_output=True,
            env=environment,
        )
        assert b"Traceback" not in done.stderr
        assert done.returncode in (0, 2)
        assert (done.stdout + done.stderr).isascii()


def test_names_that_the_locale_lacks_are_escaped(monkeypatch: pytest.MonkeyPatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        assert cli.main(["Dvořák"]) == 2
    assert raw.getvalue().startswith(b"separator: unknown command 'Dvo\\u0159\\xe1k'")


def test_songs_are_separated_although_their_list_cannot_be_written(tmp_path, monkeypatch, capsys):
    import soundfile

    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav"):
        soundfile.write(name, [[0.1, 0.1]] * 4410, 44100)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", _Broken(OSError(errno.ENOSPC, "No space left on device")))
        assert cli.main(["separate", "a.wav", "b.wav", "--device", "cpu"]) == 1
    assert len(list(Path("stems").glob("*.flac"))) == 2
    complaints = [line for line in capsys.readouterr().err.splitlines() if "space" in line]
    assert complaints == ["separator: standard output: No space left on device"]
