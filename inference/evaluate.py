"""`separator evaluate MODEL… --data ROOT`: score models on songs with known stems.

Three estimates of each track are scored: `ours` (the model's), `mixture` (the mixture itself:
doing nothing) and `ideal_mask` (the ratio mask that knows the answer), for each of the model's
stems. Waves are compared at the model's rate and the mixture is the sum of the stems. With
`--estimates DIR`, `ours` are the stems that another program wrote; they are compared at the first
model's rate, or without a model at the highest rate of the songs.
`separator.inference.report` describes the report.
"""

import functools
import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from separator.allocator import keep_memory
from separator.data.config import DataConfig
from separator.data.reader import load_stems
from separator.data.roots import parse_root
from separator.data.stem_files import check_stems
from separator.data.tracks import Track, find_tracks
from separator.errors import SeparatorError, one_line, printable
from separator.inference import report as reports
from separator.inference.estimates import Estimates, find_estimates
from separator.inference.evaluate_command import EvaluateConfig
from separator.inference.separate import described
from separator.logs import bar as progress_bar
from separator.metrics import frame_sdr, global_sdr, ideal_mask, median_sdr
from separator.processes import calls_in_processes, follow_parent
from separator.separation import Separator
from separator.stems import TWO_STEMS, VOCALS, StemSet, public_name

log = logging.getLogger(__name__)

FIX = "give --data songs with the model's stems"
MAX_JOBS = 8  # each process holds a model and a song


def run(config: EvaluateConfig) -> int:
    """Score all models and estimates of a config, print the tables and write the report.

    Returns:
        The exit status: 1 when a track could not be scored.
    """
    if config.full:
        _museval()  # fail before the work rather than after it
    if config.json:
        reports.check_path(config.json)
    keep_memory()
    stems = [Separator.load(path, device=config.device).stems for path in config.model]
    tracks = tracks_of(config.data, config.split, config.valid_share)
    for wanted in stems:  # before the work
        check_stems(tracks, wanted, FIX)
    for name in (printable(track.name) for track in tracks if track.estimated):
        log.warning("%s: its stems are estimates of `separator separate`", name)
    sources = [*config.model, *_folders(config, tracks)]
    done: list[dict] = []
    for source in sources:
        done.append(_report(source, tracks, config))
        if config.json:  # before it is shown: the reader of a pipe may have gone
            several = len(sources) > 1
            reports.write(reports.together(done) if several else done[0], config.json)
    sys.stdout.write(reports.tables(done))
    return 1 if any(report["failures"] for report in done) else 0


def _folders(config: EvaluateConfig, tracks: Sequence[Track]) -> list[Estimates]:
    """Find the estimates of other programs, to be compared as those of the first model are."""
    if not config.estimates:
        return []
    if config.model:
        first = Separator.load(config.model[0], device=config.device)
        rate, stft, stems = first.rate, first.stft, first.stems
    else:
        rate, stft, stems = max(track.rate for track in tracks), None, TWO_STEMS
    return [find_estimates(folder, tracks, rate, stft, stems) for folder in config.estimates]


def _report(source: str | Estimates, tracks: Sequence[Track], config: EvaluateConfig) -> dict:
    """Score the model of a file, or the estimates of another program, on all tracks."""
    if isinstance(source, Estimates):
        separator, path = source, source.root
        score = functools.partial(_attempt, source, full=config.full)
    else:
        separator, path = Separator.load(source, device=config.device), source
        log.debug("model: %s", described(path, separator.description))
        score = functools.partial(_score_in_process, path, config.device, config.full)
    # on a GPU one process, since the model's work is not shared by cores
    default = min(torch.get_num_threads(), MAX_JOBS) if separator.device.type == "cpu" else 1
    jobs = min(config.jobs or default, len(tracks))
    if jobs == 1:
        report = evaluate(separator, tracks, full=config.full)
    else:
        report = _built(separator, in_processes(score, tracks, jobs))
    report["model"]["path"] = printable(path)
    return report | {"data": printable(config.data), "split": config.split}


def evaluate(separator: Separator | Estimates, tracks: Sequence[Track], full: bool = False) -> dict:
    """Score tracks in this process, with a progress bar.

    Args:
        separator: a model, or another program's estimates.
        tracks: songs with stems.
        full: also compute SIR, SAR and ISR of museval, which takes much longer.

    Returns:
        The report of `separator.inference.report`. Numbers are plain floats: NaN where the file has
        null, and inf. A track that cannot be scored is one of its failures.
    """
    bar = progress_bar(tracks, desc="evaluate", unit="track")
    return _built(separator, [_attempt(separator, track, full) for track in bar])


def _built(separator: Separator | Estimates, results: list[dict]) -> dict:
    return reports.build(separator.description, separator.rate, separator.stems.scored, results)


def tracks_of(
    root: str | Path, split: str, valid_share: float = DataConfig.valid_share
) -> list[Track]:
    """Find the songs of one split that have stems.

    Songs of a library, and the halves of a pool, have none. With `root` and `valid_share` as in
    training, the split is that of training.

    Args:
        root: a folder, or an entry of data.roots.
        split: train, valid or test.
        valid_share: part of the songs that validate, where the data has no list of them.

    Returns:
        The songs.

    Raises:
        SeparatorError: there are none; names the splits that there are.
    """
    all_tracks = find_tracks(*parse_root(str(root)), valid_share)
    tracks = [track for track in all_tracks if not TWO_STEMS.lacking(track.names)]
    chosen = [track for track in tracks if track.split == split]
    if not chosen:
        counts = Counter(track.split for track in tracks)
        there = ", ".join(f"{name} ({count})" for name, count in counts.items())
        fix = f"choose with --split what it has: {there}" if there else "it has none in any split"
        raise SeparatorError(
            f"{root}: no songs with vocals and accompaniment in the split {split!r}; {fix}"
        )
    return chosen


def score_track(separator: Separator | Estimates, track: Track, full: bool = False) -> dict:
    """Score one track.

    Args:
        separator: a model, or another program's estimates.
        track: the song, with stems.
        full: also compute SIR, SAR and ISR of museval.

    Returns:
        An entry of the report's `tracks`.

    Raises:
        SeparatorError: the stems cannot be read, or they or the estimates are not finite.
    """
    rate, names = separator.rate, separator.stems.scored
    stems = load_stems(track, rate, names=separator.stems.names)
    reference = _scored(separator.stems, [stems[name] for name in separator.stems.names])
    if not reference.isfinite().all():
        raise SeparatorError(f"{track.name}: its stems hold NaN or infinite samples; replace them")
    scores = {
        name: _scores(reference, estimate, separator, full and name == "ours")
        for name, estimate in _estimates(separator, track, reference)
    }
    return {
        "name": track.name,
        "split": track.split,
        "seconds": reference.shape[-1] / rate,
        "silent": [n for n, stem in zip(names, reference, strict=True) if not stem.any()],
        "scores": scores,
    }


def _estimates(
    separator: Separator | Estimates, track: Track, reference: Tensor
) -> Iterator[tuple[str, Tensor]]:
    """Yield each estimate (s c t), one at a time because songs are large."""
    stems = separator.stems
    mixture = reference[: len(stems.names)].sum(dim=0)
    if isinstance(separator, Estimates):
        yield "ours", _scored(stems, separator.read(track, mixture))
    else:
        yield "ours", _scored(stems, _separated(separator, mixture))
    yield "mixture", mixture.expand_as(reference)
    yield "ideal_mask", torch.stack([ideal_mask(s, mixture, separator.stft) for s in reference])


def _separated(separator: Separator, mixture: Tensor) -> list[Tensor]:
    """Separate a mixture (c t) into the model's stems (c t)."""
    stems = separator.separate_wave(mixture, separator.rate)
    ours = [stems[public_name(name)].cpu() for name in separator.stems.names]
    if not all(wave.isfinite().all() for wave in ours):
        raise SeparatorError("the model's estimate holds NaN or infinite samples; retrain it")
    return ours


def _scored(stems: StemSet, waves: Sequence[Tensor]) -> Tensor:
    """Put the stems of a set together, with the accompaniment where it is scored too: (s c t)."""
    if len(stems.scored) > len(stems.names):
        others = [wave for n, wave in zip(stems.names, waves, strict=True) if n != VOCALS]
        waves = [*waves, torch.stack(others).sum(dim=0)]
    return torch.stack(list(waves))


def _scores(
    reference: Tensor, estimate: Tensor, separator: Separator | Estimates, full: bool
) -> dict:
    """Score stems (s c t), under their names."""
    frames, rate = frame_sdr(reference, estimate, separator.rate), separator.rate
    columns = {"sdr_frames": median_sdr(frames), "sdr_global": global_sdr(reference, estimate)}
    if full:  # museval does not take sums of other stems
        pair = reference[: len(separator.stems.names)], estimate[: len(separator.stems.names)]
        columns |= _interference(*pair, rate, not frames.isnan().all())
    count = int((~frames.isnan()).any(dim=0).sum())
    return {
        stem: {"frames": count}
        | {name: float(column[s]) for name, column in columns.items() if s < len(column)}
        for s, stem in enumerate(separator.stems.scored)
    }


def _interference(
    reference: Tensor, estimate: Tensor, rate: int, scorable: bool
) -> dict[str, Tensor]:
    """ISR, SIR and SAR by museval: medians over frames for each stem (s)."""
    if not scorable:  # museval raises on signals that are silent throughout
        return dict.fromkeys(reports.MUSEVAL, torch.full((len(reference),), torch.nan))
    waves = (wave.transpose(1, 2).double().numpy() for wave in (reference, estimate))
    _, *ratios = _museval()(*waves, win=rate, hop=rate)
    medians = (median_sdr(torch.as_tensor(ratio)) for ratio in ratios)
    return dict(zip(reports.MUSEVAL, medians, strict=True))


def _museval() -> Callable:
    try:
        from museval import evaluate as museval_evaluate
    except (ImportError, RuntimeError) as error:  # RuntimeError: stempeg found no ffmpeg
        fix = "install museval and ffmpeg, or leave --full out"
        raise SeparatorError(f"--full needs museval, which does not import: {fix}") from error
    return museval_evaluate


def _attempt(separator: Separator | Estimates, track: Track, full: bool) -> dict:
    """Score a track, or return why it cannot be scored: the other tracks are still wanted."""
    track = replace(track, name=printable(track.name))
    try:
        return score_track(separator, track, full)
    except Exception as error:
        log.debug("%s", track.name, exc_info=True)
        return {"name": track.name, "error": one_line(error)}


_loaded = functools.lru_cache(maxsize=1)(Separator.load)  # once in each process


def _score_in_process(path: str, device: str, full: bool, track: Track) -> dict:
    return _attempt(_loaded(path, device), track, full)


def in_processes(score: Callable[[Track], dict], tracks: Sequence[Track], jobs: int) -> list[dict]:
    """Score tracks in parallel, with a progress bar.

    Args:
        score: maps a track to its scores; a new process must be able to import it.
        tracks: the songs.
        jobs: number of processes.

    Returns:
        The results in the order of the tracks; {"name", "error"} for a track whose process died.
    """
    died = "the process that scored it died, perhaps for want of memory; try --jobs 1"
    results: dict[Track, dict] = {}
    start = functools.partial(_start_process, max(1, torch.get_num_threads() // jobs))
    calls = [(track,) for track in tracks]
    with progress_bar(total=len(tracks), desc="evaluate", unit="track") as bar:
        for (track,), result in calls_in_processes("evaluate", score, calls, jobs, start):
            results[track] = result or {"name": printable(track.name), "error": died}
            bar.update()
    return [results[track] for track in tracks]


def _start_process(threads: int) -> None:
    follow_parent()
    keep_memory()
    torch.set_num_threads(threads)
