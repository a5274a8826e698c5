"""`.ci/setup` and the Makefile, with programs that only pretend: what they install, and say."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from separator.torchaudio_import import fix, functional

ROOT = Path(__file__).parents[1]

# a Python that knows as much as setup asks: its facts, venv, ensurepip, pip, and what is installed
PYTHON = r"""#!/bin/sh
echo "${0##*/} $*" >>"$STATE/calls"
version=${FAKE_VERSION:-3.12.4}
case "$1 $2" in
  "-c import platform"*)
    minor=${version#3.}; minor=${minor%%.*}
    set -- "${FAKE_SYSTEM:-Linux}" "${FAKE_MACHINE:-x86_64}"
    echo "$((300 + minor)) $1 $2 $version $STATE/packages" ;;
  "-c "*"m.version"*) [ -e "$STATE/torch" ] ;;
  "-c import torchaudio"*) [ ! -e "$STATE/mismatch" ] ;;
  "-c "*"fix(version"*) echo "pip install torchaudio==2.11.0" ;;
  "-m venv")
    [ ! "${FAKE_NO_VENV:-}" ] || [ -e "$STATE/venv-package" ] || exit 1
    for folder; do :; done
    mkdir -p "$folder/bin" && cp "$0" "$folder/bin/python" && touch "$folder/pyvenv.cfg" ;;
  "-m ensurepip") [ "${FAKE_PIP:-}" = ensurepip ] && touch "$STATE/pip" ;;
  "-m pip")
    [ "${FAKE_PIP:-}" != ensurepip ] && [ "${FAKE_PIP:-}" != none ] || [ -e "$STATE/pip" ] || exit 1
    [ "$3" = install ] || exit 0
    case "$*" in *torchaudio==*) rm -f "$STATE/mismatch" ;; esac
    if [ "${FAKE_FAILURE:-}" ]; then echo "$FAKE_FAILURE" >&2; exit 1; fi ;;
  "--version "*) echo "Python $version" ;;
esac
"""
SAYS_IT_WAS_CALLED = '#!/bin/sh\necho "${0##*/} $*" >>"$STATE/calls"\n'
APT = SAYS_IT_WAS_CALLED + 'case "$*" in *venv*) touch "$STATE/venv-package" ;; esac\n'
DF = "#!/bin/sh\necho Filesystem\necho disk 1 1 ${FAKE_FREE_KB:-99000000} 1% /\n"
OTHERS = {"id": "#!/bin/sh\necho ${FAKE_UID:-0}\n", "uname": "#!/bin/sh\necho Linux\n", "df": DF}
REAL = [
    *("awk", "cat", "cksum", "cp", "dirname", "env", "grep", "make", "mkdir", "mktemp", "pwd"),
    *("rm", "sed", "sh", "tail", "touch"),
]


class Machine:
    """A folder with a checkout and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.bin = folder / "my checkout", folder / "state", folder / "bin"
        for path in (self.folder / ".ci", self.state / "packages", self.bin):
            path.mkdir(parents=True)
        shutil.copy(ROOT / ".ci" / "setup", self.folder / ".ci" / "setup")
        shutil.copy(ROOT / "Makefile", self.folder / "Makefile")
        shutil.copy(ROOT / "pyproject.toml", self.folder / "pyproject.toml")
        for name in REAL:
            (self.bin / name).symlink_to(shutil.which(name))
        for name in ("python3", "python3.12"):
            self.program(name, PYTHON)
        self.program("apt-get", APT)
        for name, text in OTHERS.items():
            self.program(name, text)

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        """Run a command there, `sh .ci/setup` if none is given."""
        environment = {"PATH": str(self.bin), "STATE": str(self.state), **environment}
        return subprocess.run(
            words or ("sh", ".ci/setup"),
            cwd=self.folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip

    def calls(self) -> list[str]:
        """What was called since the last time."""
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def installed(self) -> list[str]:
        """What was installed since the last time."""
        return [
            line.partition(" install ")[2].replace("--quiet --disable-pip-version-check ", "")
            for line in self.calls()
            if " install " in line
        ]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def sentence(done: subprocess.CompletedProcess) -> str:
    """The one line with which setup gave up."""
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    return line


def test_a_fresh_machine(machine: Machine):
    done = machine.run()
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert lines[0] == "setup: making .venv with Python 3.12.4"
    assert "5.4 GB" in lines[1] and "whl/cpu" in lines[1]
    assert lines[2].startswith("setup: installing the system package ffmpeg with apt-get")
    assert machine.installed() == ["-e .[train]", "-y -qq ffmpeg"]
    machine.program("ffmpeg", SAYS_IT_WAS_CALLED)
    done = machine.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert machine.installed() == []


def test_the_demo_installs_no_development_tools_and_the_tests_do(machine: Machine):
    machine.program("ffmpeg", SAYS_IT_WAS_CALLED)
    (machine.state / "torch").touch()
    assert machine.run("make", "demo").returncode == 0
    assert "python -m separator demo" in machine.calls()
    (machine.state / "calls").unlink(missing_ok=True)
    assert machine.run("make", "test").returncode == 0
    assert machine.installed() == ["-e .[dev]", "-y -qq chromium"]
    machine.program("chromium-browser", SAYS_IT_WAS_CALLED)
    assert machine.run("make", "demo", "lint").returncode == 0
    assert machine.installed() == []


def test_what_belongs_to_another_pyproject_is_installed_again(machine: Machine):
    assert machine.run().returncode == 0
    machine.calls()
    with (machine.folder / "pyproject.toml").open("a") as file:
        file.write("# another\n")
    assert machine.run().returncode == 0
    assert machine.installed()[0] == "-e .[train]"


@pytest.mark.parametrize(
    ("environment", "used"),
    [
        ({"VIRTUAL_ENV": "venv"}, "venv/bin/python"),
        ({"CONDA_PREFIX": "conda", "CONDA_DEFAULT_ENV": "music"}, "conda/bin/python"),
        ({"CONDA_PREFIX": "conda", "CONDA_DEFAULT_ENV": "base"}, ".venv/bin/python"),
        (
            {"VIRTUAL_ENV": "venv", "CONDA_PREFIX": "conda", "CONDA_DEFAULT_ENV": "music"},
            "venv/bin/python",
        ),
        ({"PYTHON": "venv/bin/python", "CONDA_PREFIX": "x"}, "venv/bin/python"),
        ({}, ".venv/bin/python"),
    ],
)
def test_the_active_environment_is_used(environment: dict, used: str, machine: Machine):
    for name in ("venv", "conda"):
        (machine.folder / name / "bin").mkdir(parents=True)
        shutil.copy(machine.bin / "python3", machine.folder / name / "bin" / "python")
    done = machine.run("make", "demo", **environment)
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[-1] == f'"{used}" -m separator demo'
    assert (machine.folder / ".venv").exists() == (used[0] == ".")


@pytest.mark.parametrize("remedy", ["ensurepip", "uv"])
def test_an_environment_without_pip(remedy: str, machine: Machine):
    (machine.folder / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(machine.bin / "python3", machine.folder / ".venv" / "bin" / "python")
    mine = machine.folder / ".venv" / "mine"
    mine.touch()
    if remedy == "uv":
        machine.program("uv", SAYS_IT_WAS_CALLED)
    done = machine.run(FAKE_PIP="ensurepip" if remedy == "ensurepip" else "none")
    assert done.returncode == 0, done
    calls = machine.calls()
    if remedy == "uv":
        assert "uv pip install --quiet --python .venv/bin/python -e .[train]" in calls
    else:
        assert "python -m pip install --quiet --disable-pip-version-check -e .[train]" in calls
    assert mine.exists()  # nobody's environment is made anew


def test_no_pip_at_all_is_a_sentence(machine: Machine):
    assert "has no pip and no ensurepip" in sentence(machine.run(FAKE_PIP="none"))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("OSError: [Errno 28] No space left on device", "is full; PyTorch with CUDA takes 5.4 GB"),
        (
            "WARNING: Retrying: NewConnectionError: Failed to establish a new connection\n"
            "ERROR: No matching distribution found for torch",
            "the package index cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch<2.16", "there is no PyTorch 2.11 or new"),
        ("error: externally-managed-environment", "belongs to the system"),
    ],
)
def test_a_failure_of_pip_is_a_sentence(said: str, reason: str, machine: Machine):
    assert reason in sentence(machine.run(FAKE_FAILURE=said))
    assert not list((machine.state / "packages").iterdir())  # the next run tries again


def test_another_failure_of_pip_is_shown(machine: Machine):
    done = machine.run(FAKE_FAILURE="\n".join(["error: odd"] * 20), TMPDIR=str(machine.state))
    assert done.returncode == 1
    *said, last = done.stderr.splitlines()
    assert said == ["error: odd"] * 5
    log = Path(last.rpartition(" ")[2])
    assert log.read_text().count("odd") == 20


def test_too_little_space_is_said_before_anything_is_fetched(machine: Machine):
    line = sentence(machine.run(FAKE_FREE_KB="3145728"))
    assert line.startswith("setup: 3.0 GB are free")
    assert "5.4 GB" in line and "whl/cpu" in line
    assert machine.installed() == []
    (machine.state / "torch").touch()  # nothing large is wanted
    assert machine.run(FAKE_FREE_KB="3145728").returncode == 0


@pytest.mark.parametrize("words", [(), ("env", "PYTHON=python3", "sh", ".ci/setup")])
def test_python_3_10_is_told_how_to_get_a_newer_one(words: tuple[str, ...], machine: Machine):
    line = sentence(machine.run(*words, FAKE_VERSION="3.10.12"))
    assert "needs Python 3.11 or newer" in line and "3.10.12" in line
    assert "uv venv --python 3.12 .venv" in line
    assert not (machine.folder / ".venv").exists()


def test_an_intel_mac_is_told_before_anything_is_made(machine: Machine):
    facts = {"FAKE_SYSTEM": "Darwin", "FAKE_MACHINE": "x86_64"}
    assert "no longer made for Intel Macs" in sentence(machine.run(**facts))
    assert not (machine.folder / ".venv").exists()
    (machine.state / "torch").touch()  # from conda-forge, say
    assert machine.run(**facts).returncode == 0
    assert machine.run(**{**facts, "FAKE_MACHINE": "arm64"}).returncode == 0


def test_system_packages_are_announced_or_asked_for(machine: Machine):
    done = machine.run(FAKE_NO_VENV="1")
    assert done.returncode == 0, done
    announced = [line for line in done.stdout.splitlines() if "system package" in line]
    assert ["python3.12-venv" in announced[0], "ffmpeg" in announced[1]] == [True, True]
    shutil.rmtree(machine.folder / ".venv")
    (machine.state / "venv-package").unlink()
    line = sentence(machine.run(FAKE_NO_VENV="1", FAKE_UID="1000"))
    assert "sudo apt-get install python3.12-venv" in line
    done = machine.run(FAKE_UID="1000")
    assert done.returncode == 0
    assert "ffmpeg could not be installed here" in done.stdout.splitlines()[-1]


def test_a_folder_of_that_name_is_left_alone(machine: Machine):
    (machine.folder / ".venv").mkdir()
    (machine.folder / ".venv" / "novel.txt").touch()
    assert "no virtual environment" in sentence(machine.run())
    assert (machine.folder / ".venv" / "novel.txt").exists()


def test_a_torchaudio_that_does_not_load_is_replaced(machine: Machine):
    (machine.state / "mismatch").touch()
    done = machine.run()
    assert done.returncode == 0, done
    assert "--no-deps torchaudio==2.11.0" in machine.installed()


@pytest.mark.parametrize(
    ("torch", "words"),
    [
        ("2.11.0", "torchaudio==2.11.0"),
        ("2.12.1", "torchaudio==2.11.0"),
        ("2.13.0", "torchaudio==2.11.1"),
        ("2.14.1", "torchaudio==2.11.1"),
        ("2.15.0", "torchaudio==2.11.1"),
        (
            "2.13.0+cpu",
            "torchaudio==2.11.1 --index-url https://download.pytorch.org/whl/cpu",
        ),
    ],
)
def test_the_torchaudio_for_a_torch(torch: str, words: str):
    assert fix(torch) == f"pip install {words}"


def test_a_torchaudio_that_does_not_load_is_explained(monkeypatch: pytest.MonkeyPatch):
    import sys

    from separator.errors import SeparatorError

    assert functional().resample
    monkeypatch.setitem(sys.modules, "torchaudio", None)  # what an import of it then raises
    with pytest.raises(SeparatorError, match=r"^torchaudio \S+ does not load beside torch \S+ \("):
        functional()


def test_the_script_is_plain_sh():
    done = subprocess.run(["sh", "-n", ROOT / ".ci" / "setup"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert os.access(ROOT / ".ci" / "setup", os.X_OK)
