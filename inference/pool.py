"""Score tracks side by side in fresh processes; the death of one process costs one track."""

import functools
from collections.abc import Callable, Sequence

import torch

from separator.allocator import keep_memory
from separator.data.tracks import Track
from separator.errors import printable
from separator.logs import bar as progress_bar
from separator.processes import calls_in_processes, follow_parent


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
