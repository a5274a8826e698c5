"""Long audio in chunks: cut, process in batches, overlap and add, with memory that does not grow.

Validation and inference call the same function, so the score that picks a checkpoint is the score
of what a user gets.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np


def overlap_add(
    blocks: Iterable[np.ndarray],
    process: Callable[[np.ndarray], np.ndarray],
    chunk: int,
    overlap: int,
    batch: int = 1,
) -> Iterator[np.ndarray]:
    """Apply `process` to overlapping chunks of a stream and cross-fade the results linearly.

    At most `batch` + 2 chunks and one block are held. The last chunk begins early enough to be as
    long as the others: the model has less context in a short one, which costs up to 0.8 dB
    (docs/log/2026-11-29-full-last-chunk.md). The weights of the chunks that cover a sample add up
    to 1, so a `process` that returns its input gives the stream back.

    Args:
        blocks: (c t) pieces of one signal, float32, in order, of any lengths.
        process: (b c t) to (b c t); t is `chunk`, or the length of a shorter signal.
        chunk: samples in a chunk.
        overlap: samples that a chunk shares with the next, at most half of `chunk`.
        batch: chunks given to `process` at once.

    Yields:
        (c t) pieces of the result, as many samples in all as came in.

    Raises:
        ValueError: `overlap` is more than half a chunk.
    """
    if not 0 <= overlap <= chunk // 2:
        raise ValueError(f"overlap {overlap} is not in 0..{chunk // 2} (half a chunk)")
    rise = np.arange(1, overlap + 1, dtype=np.float32) / np.float32(overlap + 1)
    step, tail = chunk - overlap, None
    chunks = _chunks(blocks, chunk, step)
    while group := list(islice(chunks, batch)):
        waves = process(np.stack([wave for wave, _ in group]))
        for wave, (_, lead) in zip(waves, group, strict=True):
            wave = wave[:, lead:]
            if tail is not None:
                faded = tail + (wave[:, :overlap] - tail) * rise
                wave = np.concatenate([faded, wave[:, overlap:]], axis=-1)
            tail = wave[:, step:]
            yield wave[:, :step]
    if tail is not None:
        yield tail


def _chunks(
    blocks: Iterable[np.ndarray], chunk: int, step: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Cut a stream into chunks that begin every `step` samples, the last one earlier.

    Yields:
        A chunk, and how many samples it has before its step.
    """
    held: list[np.ndarray] = []
    count = shared = 0  # samples held, and how many of them the last chunk had as well
    before = None  # the last chunk
    for block in blocks:
        held.append(block)
        count += block.shape[-1]
        if count < chunk:
            continue
        wave = np.concatenate(held, axis=-1) if len(held) > 1 else block
        while wave.shape[-1] >= chunk:
            before = wave[:, :chunk]
            yield before, 0
            wave, shared = wave[:, step:], chunk - step
        held, count = [wave], wave.shape[-1]
    if count > shared:
        lead = chunk - count if before is not None else 0
        if before is not None:
            held = [before[:, step - lead : step], *held]
        yield np.concatenate(held, axis=-1), lead
