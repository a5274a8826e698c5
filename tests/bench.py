"""How fast this machine trains and separates: `make bench`. Ratios in one run are what to compare.

Speeds are the best and the median of several repetitions, in seconds of audio per second; masking
is the best, in milliseconds.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from separator.allocator import keep_memory
from separator.config import parse
from separator.dsp.stft import normalise, stft
from separator.engine import optim
from separator.losses import Estimate, SeparationLoss, Target
from separator.models.frame_transformer import FrameTransformer
from separator.pretrain.config import PretrainConfig
from separator.pretrain.masking.corruption import corrupt, grid_of
from separator.separation import Separator
from separator.train.config import TrainConfig


def measure(name: str, audio_seconds: float, work: Callable[[], object], count: int = 7) -> float:
    """Time a piece of work, print its speed, and return the median seconds."""
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    times = sorted(times[1:])
    best, median = audio_seconds / times[0], audio_seconds / times[len(times) // 2]
    sys.stdout.write(f"{name:44} best {best:8.1f}   median {median:8.1f} audio-s/s\n")
    sys.stdout.flush()
    return times[len(times) // 2]


def training(size: str, batch: int, seconds: float, kind: str) -> None:
    """Measure forward + backward + optimizer step in fp32, transform and loss included."""
    words = ["train/vocals.yaml", f"{size}.yaml", "data.roots=[none]", f"optim.kind={kind}"]
    config = parse(TrainConfig, words, "train")
    model = FrameTransformer(config.model, config.stft.bins)
    loss = SeparationLoss(config.loss)
    optimizer = optim.build([{"params": model.parameters()}], config.optim)
    waves = torch.randn(2, batch, 2, round(seconds * config.rate)) * 0.1

    def step() -> None:
        mixture = stft(waves.sum(0), config.stft)
        magnitude, scale = normalise(mixture.abs(), config.stft)
        samples = waves.shape[-1]
        estimate = Estimate(model(magnitude), mixture, scale, config.stft, samples)
        loss(estimate, Target(waves[0][:, None], estimate))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    millions = sum(p.numel() for p in model.parameters()) / 1e6
    name = f"train {size} ({millions:.1f} M), {batch} x {seconds:g} s, {kind}"
    measure(name, batch * seconds, step)


def separation(size: str, seconds: float = 12.0) -> None:
    """Measure one chunk: transform, model, stereo filter, inverse."""
    config = parse(TrainConfig, [f"{size}.yaml", "data.roots=[none]"], "train")
    model = FrameTransformer(config.model, config.stft.bins)
    separator = Separator(model, config.stft, config.rate, "cpu")
    wave = torch.randn(1, 2, round(seconds * config.rate)) * 0.1
    name = f"separate {size}, {seconds:g} s chunk"
    measure(name, seconds, lambda: separator(wave))


def convolutions() -> None:
    """Compare layouts of one Nx1 convolution, forward + backward, in turn."""
    weight = torch.randn(16, 16, 3, 1, requires_grad=True)
    x = torch.randn(4, 16, 512, 256)

    def default() -> None:
        F.conv2d(x, weight, padding=(1, 0)).sum().backward()

    turned = x.transpose(2, 3).contiguous(memory_format=torch.channels_last)

    def channels_last() -> None:
        kernel = weight.transpose(2, 3).contiguous(memory_format=torch.channels_last)
        F.conv2d(turned, kernel, padding=(0, 1)).sum().backward()

    audio_seconds = 4 * 256 * 1024 / 44100
    slow = measure("Nx1 convolution, default layout", audio_seconds, default)
    fast = measure("Nx1 convolution, channels last", audio_seconds, channels_last)
    sys.stdout.write(f"channels last is {slow / fast:.1f} times as fast\n")


def masking(batch: int = 8, frames: int = 259) -> None:
    """Compare each preset that masks patches with a uniform choice of the same ones, in turn."""
    target = torch.rand(batch, 2, frames, 2049).mT * 0.9  # laid out as a transform leaves it
    presets = sorted((Path(__file__).parents[1] / "configs" / "pretrain").glob("*.yaml"))
    configs = {
        path.stem: parse(PretrainConfig, [str(path), "data.roots=[none]"], "pretrain").mask
        for path in presets
        if "objective:" not in path.read_text(encoding="utf-8")  # others need songs, and mask none
    }
    grids = {name: grid_of(target, config, 10**6) for name, config in configs.items()}
    difficulty = {  # what the averaged model says of each cell: hpm's cost beside this is its pass
        name: torch.rand(batch, grids[name].bands, grids[name].groups)
        for name, config in configs.items()
        if config.strategy == "hard"
    }
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(8):
        for name, config in configs.items():
            step = config.weighted_steps // 2
            for strategy in (config.strategy, "uniform"):
                own = replace(config, strategy=strategy)
                generator, start = torch.Generator().manual_seed(0), time.perf_counter()
                mixed = {"mix": target} if own.mix else None
                corrupt(target, own, step, generator, mixed, difficulty.get(name))
                times.setdefault((name, strategy), []).append(time.perf_counter() - start)
    for name, config in configs.items():
        own, uniform = (min(times[name, s]) for s in (config.strategy, "uniform"))
        ratio = f"{own / uniform:.2f} of a uniform choice"
        sys.stdout.write(f"corrupt {name:36} {1e3 * own:8.1f} ms   {ratio}\n")


def main() -> None:
    """Run all measurements."""
    keep_memory()
    sys.stdout.write(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    for kind in ("adamw", "muon"):
        training("tiny", 4, 6.0, kind)
        training("base", 2, 6.0, kind)
    separation("tiny")
    separation("base")
    convolutions()
    masking()


if __name__ == "__main__":
    main()
