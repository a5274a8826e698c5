"""The steps of `separator demo`, each run as the command that a user would type."""

import json
import logging
import shlex
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from separator import audio, bundled
from separator.atomic import replacing
from separator.cli import dispatch
from separator.cli.demo import DemoConfig
from separator.data import musdb_sample
from separator.data.corpus import write_corpus
from separator.data.layouts import detect_layout
from separator.data.reader import load_stems
from separator.data.tracks import Track
from separator.errors import SeparatorError
from separator.inference import report as reports
from separator.inference.evaluate import evaluate, tracks_of
from separator.separation import Separator
from separator.stems import ACCOMPANIMENT

log = logging.getLogger(__name__)

SONGS, SECONDS = 10, 10.0


def run_chain(config: DemoConfig) -> int:
    """Run every step of the chain.

    Args:
        config: the settings of `separator demo`.

    Returns:
        The exit status of the first step that fails, else 0.

    Raises:
        SeparatorError: the folder of music does not exist.
    """
    if config.data == musdb_sample.SAMPLE_NAME:
        config = replace(config, data=str(musdb_sample.fetch_sample()))
    if config.data and not Path(config.data).is_dir():
        raise SeparatorError(f"--data {config.data}: no such folder; give a folder of music")
    run, corpus = Path(config.run), Path(config.run) / "corpus"
    if not corpus.exists():
        log.info("composing %d songs", SONGS)
        part = corpus.with_name("corpus.part")
        shutil.rmtree(part, ignore_errors=True)
        write_corpus(part, SONGS, SECONDS)
        part.rename(corpus)
    library, stems = _roots(config, corpus)
    model = run / "model.safetensors"
    common = ["tiny.yaml", "demo.yaml"]
    steps = [
        ["pretrain", "pretrain/recipe.yaml", *common, _key("data.roots", library),
         f"run={run / 'pretrain'}", f"steps={config.pretrain_steps}",
         *_discriminator(config.pretrain_steps)],
        ["train", "train/vocals.yaml", *common, _key("data.roots", stems), f"run={run}",
         f"steps={config.train_steps}", f"pretrained={run / 'pretrain' / model.name}"],
    ]  # fmt: skip
    for step in steps:
        if status := _run_command(step):
            return status
    tracks = tracks_of(stems[0], "valid")
    song = _mixture(tracks[0], run)
    command = ["separate", str(song), "-o", str(run / "stems"), "-m", str(model)]
    if status := _run_command([*command, "--stems", "--overwrite", "--format", "wav"]):
        return status
    _show_results(model, tracks, run, song)
    return 0


def _run_command(words: list[str]) -> int:
    """Print a command as a user would type it, and run it."""
    sys.stderr.write(f"\n$ separator {shlex.join(words)}\n")
    return dispatch.main(words)


def _discriminator(steps: int) -> list[str]:
    """Return the keys that start the recipe's discriminator early enough for so few steps."""
    start = max(1, steps // 5)
    return [f"adversary.start={start}", f"adversary.weight=[[{2 * start},0],[{3 * start},0.1]]"]


def _key(name: str, values: list[Path]) -> str:
    """Return `name=[values]`, with the paths quoted as in JSON."""
    return f"{name}={json.dumps([str(value) for value in values])}"


def _roots(config: DemoConfig, corpus: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders for pretraining and those for fine-tuning."""
    if not config.data:
        return [corpus, _real_example(Path(config.run))], [corpus]
    data = Path(config.data)
    return [data], [corpus if detect_layout(data).name == "library" else data]


def _real_example(run: Path) -> Path:
    """Write the mixture of stempeg's song as a library of one file."""
    folder = run / "example"
    target = folder / "Falcon 69.flac"
    if not target.exists():
        package = Path(find_spec("stempeg").origin).parent  # importing it needs ffmpeg
        song = package / "data" / "The Easton Ellises - Falcon 69.stem.mp4"
        with audio.Writer(target, audio.probe(song).rate, 2) as writer:
            writer.write(audio.read_array(song))
    return folder


def _mixture(track: Track, run: Path) -> Path:
    """Write the mixture of a validation song to a file, and return its path."""
    rate = track.rate
    mixture = torch.stack(list(load_stems(track, rate).values())).sum(0)
    path = run / "mixtures" / f"{track.name}.wav"
    with audio.Writer(path, rate, 2) as writer:
        writer.write(mixture)
    return path


def _show_results(model: Path, tracks: list[Track], run: Path, song: Path) -> None:
    """Print the scores of the model and of the bundled one, and the paths; draw spectrograms."""
    separator = Separator.load(model)
    report = evaluate(separator, tracks)
    report["model"]["path"] = str(model)
    reports.write(report, run / "evaluation.json")
    bundled_report = evaluate(Separator.load(bundled.DEFAULT), tracks)
    bundled_report["model"]["path"] = bundled.DEFAULT
    stems = sorted((run / "stems").glob(f"{song.stem} (*).wav"))
    picture = run / "spectrograms.png"
    target = load_stems(tracks[0], separator.rate)[ACCOMPANIMENT]
    estimate = next(path for path in stems if "Instrumental" in path.name)
    waves = {"mixture": audio.read(song), "estimate": audio.read(estimate), "target": target}
    draw(waves, separator, picture)
    table = reports.summary_table(report, bundled_report)
    lines = [table, *(f"{path}\n" for path in [*stems, picture, model])]
    sys.stdout.write("\n" + "".join(lines))


def draw(waves: dict[str, Tensor], separator: Separator, path: Path) -> None:
    """Draw spectrograms side by side.

    Args:
        waves: for each title a wave (c t).
        separator: its transform and sample rate are used.
        path: the PNG file to write.
    """
    from matplotlib.figure import Figure

    from separator.engine.pictures import label_axes, spectrogram_image

    figure = Figure(figsize=(4 * len(waves), 3.2), layout="constrained")
    for axis, (name, wave) in zip(figure.subplots(1, len(waves)), waves.items(), strict=True):
        image = spectrogram_image(wave, separator.stft).permute(1, 2, 0).numpy()
        seconds = wave.shape[-1] / separator.rate
        axis.imshow(image, aspect="auto", extent=(0, seconds, 0, 1), interpolation="nearest")
        label_axes(axis, seconds, separator.rate)
        axis.set_title(name)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
