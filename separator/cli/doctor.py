"""`separator doctor`: check what this machine can run, and say how to fix what is missing."""

import functools
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from separator import __version__, audio
from separator.config import parse
from separator.errors import SeparatorError, one_line, printable
from separator.model_sources import find_model

PACKAGES = ("numpy", "soundfile", "av", "soxr", "onnxruntime")
TRAINING_PACKAGES = ("torch", "torchaudio", "safetensors")
MIN_FREE_GB = 2.0  # of a disk on which results, runs or caches are written
MIN_MEMORY_GB = 2.0
TEST_SECONDS = 20.0  # of music that is separated
TONE_SECONDS = 0.5
TONE_RATE = 48000  # which every format holds
FRAME_SAMPLES = 1024  # of AAC, whose files end with a whole frame


@dataclass(frozen=True)
class DoctorConfig:
    """Check this machine: versions, devices, codecs, disks, the model, the speed of separation.

    Each line gives one finding and, where something is missing, how to fix it. The only names in
    the text are those of the folders that the program writes to, so it can go into a bug report.

    Attributes:
        model: the model to test, a file or a name that `separator models` lists; by default
            $SEPARATOR_MODEL, or the first model of that list.
        device: cpu, cuda, mps, or auto, which takes a GPU if there is one.
    """

    model: str = ""
    device: str = "auto"


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: the thing checked.
        text: its version, size or state.
        fix: how to mend it; empty where nothing is wrong.
        needed: whether songs cannot be separated without it.
    """

    name: str
    text: str
    fix: str = ""
    needed: bool = False


def main(argv: list[str]) -> int:
    """Print the report; the status is 1 where something that separation needs is missing."""
    config = parse(DoctorConfig, argv, "doctor", positional="")
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        versions, torchaudio_loads, machine, devices, codecs, programs, disks,
        functools.partial(separation, config.model, config.device),
    )  # fmt: skip
    broken = False
    for check in checks:
        for finding in guarded(check):
            mark = "ok" if not finding.fix else "MISSING" if finding.needed else "note"
            sys.stdout.write(f"{mark:<8} {finding.name:<14} {printable(finding.text)}\n")
            if finding.fix:
                sys.stdout.write(f"{'':<8} {'':<14} to mend: {printable(finding.fix)}\n")
            broken |= bool(finding.fix) and finding.needed
            sys.stdout.flush()
    return int(broken)


def guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield the findings of a check; an error in it is a finding too."""
    try:
        yield from check()
    except Exception as error:  # the report goes on whatever is broken
        fix = "`pip install --force-reinstall` of what was installed mends a damaged installation"
        if isinstance(error, SeparatorError):
            fix = "as the message says"
        name = getattr(check, "func", check).__name__
        yield Finding(name.replace("_", " "), one_line(error), fix, needed=True)


def versions() -> Iterator[Finding]:
    """Yield the versions of the packages that separation needs, and those that training needs."""
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    yield Finding("separator", f"{__version__}, Python {platform.python_version()}, {system}")
    for name in (*PACKAGES, *TRAINING_PACKAGES):
        try:
            yield Finding(name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            needed = name in PACKAGES
            extra = "training, evaluation and GPUs need it: pip install 'separator[train]'"
            yield Finding(name, "not installed", f"pip install {name}" if needed else extra, needed)


def torchaudio_loads() -> Iterator[Finding]:
    """Yield whether the compiled parts of torch and torchaudio fit each other."""
    if not find_spec("torch"):
        return
    from separator.torchaudio_import import functional

    functional()
    yield Finding("torchaudio", "loads beside torch")


def machine() -> Iterator[Finding]:
    """Yield the number of cores and the size of the memory."""
    from separator.machine import memory, shared_memory

    total = memory() / 1e9
    fix = "" if total >= MIN_MEMORY_GB else f"separation needs {MIN_MEMORY_GB:.0f} GB"
    yield Finding("memory", f"{total:.1f} GB, {os.cpu_count()} cores", fix)
    shared = shared_memory() / 1e9
    if shared < 0.5:
        fix = "training reads faster with more: docker run --shm-size=2g"
        yield Finding("shared memory", f"{shared:.2f} GB", fix)


def devices() -> Iterator[Finding]:
    """Yield the accelerators, with their memory and whether they compute in bf16."""
    if not find_spec("torch"):
        yield Finding("GPU", "not used without torch")
        return
    import torch

    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        half = "bf16" if torch.cuda.is_bf16_supported() else "no bf16 (precision=fp32)"
        yield Finding(f"cuda:{index}", f"{about.name}, {about.total_memory / 1e9:.0f} GB, {half}")
    if torch.backends.mps.is_available():
        yield Finding("mps", "Apple GPU")
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        fix = "install a newer driver, or the build of torch for yours: https://pytorch.org"
        yield Finding("cuda", "there is an NVIDIA driver that torch cannot use", fix)
    elif not torch.cuda.is_available() and not torch.backends.mps.is_available():
        yield Finding("GPU", "none; the CPU is used")


def codecs() -> Iterator[Finding]:
    """Yield the formats in which half a second of sound can be written and read again.

    Each format that fails is a finding; one more lists those that work.
    """
    wave = 0.3 * np.sin(np.arange(round(TONE_SECONDS * TONE_RATE)) / 16)
    tone = np.tile(wave.astype(np.float32), (2, 1))
    good = []
    with tempfile.TemporaryDirectory() as folder:
        for name in audio.ENCODINGS:
            path = Path(folder) / f"tone.{name}"
            try:
                _write_and_read(path, tone)
                good.append(name)
            except Exception as error:
                fix = "pip install --upgrade --force-reinstall soundfile av"
                yield Finding("codec", f"{name}: {one_line(error)}", fix, needed=True)
    yield Finding("codecs", f"written and read: {', '.join(good)}")


def _write_and_read(path: Path, tone: np.ndarray) -> None:
    """Write a tone (c t) to a file and read it; raise an error where they differ in length."""
    with audio.Writer(path, TONE_RATE, 2) as writer:
        writer.write(tone)
    read = sum(block.shape[-1] for block in audio.blocks(path))
    samples = read * TONE_RATE / audio.probe(path).rate
    if abs(samples - tone.shape[-1]) > FRAME_SAMPLES:
        raise SeparatorError(f"{samples:.0f} of {tone.shape[-1]} samples came back")


def programs() -> Iterator[Finding]:
    """Yield whether the programs that some commands need are installed."""
    fix = "install it (Debian: apt install ffmpeg; macOS: brew install ffmpeg); " \
        "only `evaluate --full` and `demo --data musdb7s` need it"  # fmt: skip
    path = shutil.which("ffmpeg")
    yield Finding("ffmpeg", "found" if path else "not found", "" if path else fix)


def disks() -> Iterator[Finding]:
    """Yield the free space of the folders that the program writes to."""
    from separator.data.library.scan import default_index
    from separator.data.stem_cache import default_folder

    folders = {"here": Path.cwd(), "cache": default_folder(), "index": default_index().parent}
    for name, folder in folders.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free / 1e9
        text = f"{str(folder).replace(str(Path.home()), '~')}: {free:.0f} GB free"
        fix = ""
        if not os.access(there, os.W_OK) or free < MIN_FREE_GB:
            fix = "free some space there, or make it writable"
            if name != "here":
                fix += f", or set SEPARATOR_{name.upper()} to a path on another disk"
        yield Finding(f"disk, {name}", text, fix)


def separation(model: str, device: str) -> Iterator[Finding]:
    """Yield the model's facts, and the result of separating some generated music.

    Args:
        model: file or name; "" stands for the default.
        device: where to run it, as in `DoctorConfig`.
    """
    from separator.api import load
    from separator.data.corpus import song

    name = model or find_model()
    separator = load(name, device)
    trained = separator.description.get("trained", {})
    score = trained.get("score")
    score = "" if score is None else f", validation {score:.2f} dB"
    yield Finding("model", f"{name}: {separator.rate} Hz{score}")
    wave = sum(song(TEST_SECONDS).values()).astype(np.float32)
    separator.separate_wave(wave[:, : 2 * 44100], 44100)  # compiles kernels, fills caches
    start = time.perf_counter()
    stems = separator.separate_wave(wave, 44100)
    seconds = time.perf_counter() - start
    error = np.abs(sum(np.asarray(stem) for stem in stems.values()) - wave).max()
    if not error < 1e-5:
        fix = "report it with this text: stems must add up to the song"
        yield Finding("self-test", f"the stems miss the song by {error:.1e}", fix, needed=True)
        return
    speed = f"{TEST_SECONDS / seconds:.0f} times real time on {getattr(separator, 'device', 'cpu')}"
    text = f"{TEST_SECONDS:.0f} s of music separated in {seconds:.1f} s, {speed}"
    yield Finding("self-test", text)
