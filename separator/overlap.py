"""Long audio in chunks: cut, process in batches, overlap and add, with memory that does not grow.

Validation and inference call the same function, so the score that picks a checkpoint is the score
of what a user gets.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def overlap_add(
    blocks: Iterable[Tensor],
    process: Callable[[Tensor], Tensor],
    chunk: int,
    overlap: int,
    batch: int = 1,
) -> Iterator[Tensor]:
    """Apply `process` to overlapping chunks of a stream and cross-fade the results.

    At most `batch` + 1 chunks and one block are held. The weights of the chunks that cover a
    sample add up to 1, so a `process` that returns its input gives the stream back.

    Args:
        blocks: (c t) pieces of one signal, in order, of any lengths.
        process: (b c chunk) to (b c chunk). The last chunk is filled up with zeros.
        chunk: samples in a chunk.
        overlap: samples that a chunk shares with the next, less than half of `chunk`.
        batch: chunks given to `process` at once.

    Yields:
        (c t) pieces of the result, as many samples in all as came in.
    """
    if not 0 <= overlap <= chunk // 2:
        raise ValueError(f"overlap {overlap} is not in 0..{chunk // 2} (half a chunk)")
    fade = torch.arange(1, overlap + 1) / (overlap + 1)
    step, tail, waiting, total, done = chunk - overlap, None, [], 0, 0

    def finish(ready: list[Tensor]) -> Iterator[Tensor]:
        nonlocal tail
        for wave in process(torch.stack(ready)).cpu():
            if tail is not None:
                wave = wave.clone()
                wave[:, :overlap] = tail * (1 - fade) + wave[:, :overlap] * fade
            tail = wave[:, step:]
            yield wave[:, :step]

    for piece in _chunks(blocks, chunk, step):
        wave, fresh = piece
        waiting.append(wave)
        total += fresh
        if len(waiting) == batch:
            for out in finish(waiting):
                yield out
                done += out.shape[-1]
            waiting = []
    if waiting:
        for out in finish(waiting):
            yield out[:, : total - done]
            done += min(out.shape[-1], total - done)
    if tail is not None and done < total:
        yield tail[:, : total - done]


def _chunks(blocks: Iterable[Tensor], chunk: int, step: int) -> Iterator[tuple[Tensor, int]]:
    """Cut a stream into chunks every `step` samples; yield each with its count of new samples."""
    held, overlap = None, chunk - step
    first = True
    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=-1)
        while held.shape[-1] >= chunk:
            yield held[:, :chunk], chunk if first else step
            held, first = held[:, step:], False
    if held is None:
        return
    fresh = held.shape[-1] - (0 if first else overlap)
    if fresh > 0:
        yield torch.nn.functional.pad(held, (0, chunk - held.shape[-1])), fresh
