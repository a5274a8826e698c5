"""Score tracks side by side in fresh processes; the death of one process costs one track."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

import torch
from tqdm import tqdm

from separator.allocator import keep_memory
from separator.data.tracks import Track
from separator.errors import printable
from separator.inference.progress import bar as progress_bar
from separator.processes import follow_parent


def in_processes(score: Callable[[Track], dict], tracks: Sequence[Track], jobs: int) -> list[dict]:
    """Score tracks in parallel; `score` must be importable in a fresh process.

    When a process dies, the tracks that died with it are tried again one at a time, so that only
    the one which kills its process is lost.
    """
    with progress_bar(total=len(tracks), desc="evaluate", unit="track") as bar:
        results = _pool(score, tracks, jobs, bar)
        for i, track in enumerate(tracks):
            if results[i] is None:
                (results[i],) = _pool(score, [track], 1, bar)
    died = "the process that scored it died, perhaps for want of memory; try --jobs 1"
    return [
        result or {"name": printable(track.name), "error": died}
        for track, result in zip(tracks, results, strict=True)
    ]


def _pool(
    score: Callable[[Track], dict], tracks: Sequence[Track], jobs: int, bar: tqdm
) -> list[dict | None]:
    """Run fresh processes; None for a track whose process died."""
    threads = max(1, torch.get_num_threads() // jobs)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_process, initargs=(threads,))
    results: dict[int, dict | None] = dict.fromkeys(range(len(tracks)))
    try:
        futures = {pool.submit(score, track): i for i, track in enumerate(tracks)}
        for future in as_completed(futures):
            if not isinstance(future.exception(), BrokenProcessPool):
                results[futures[future]] = future.result()
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
    return list(results.values())


def _start_process(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    follow_parent()
    keep_memory()
    torch.set_num_threads(threads)
