"""overlap_add against the whole signal, computed by a double loop."""

import itertools

import pytest
import torch
from torch import Tensor

from separator.dsp.overlap_add import overlap_add

CHUNK, OVERLAP = 50, 11


def blocks_of(wave: Tensor, sizes: list[int]) -> list[Tensor]:
    """Cut a signal into blocks whose sizes repeat."""
    blocks, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= wave.shape[-1]:
            return blocks
        blocks.append(wave[:, at : at + size])
        at += size


def naive(wave: Tensor, process, chunk: int, overlap: int) -> Tensor:
    """Weighted mean of all chunks that cover each sample, by sums over the whole signal."""
    total, step = wave.shape[-1], chunk - overlap
    result, weights = torch.zeros_like(wave), torch.zeros(total)
    start = 0
    while start == 0 or start + overlap < total:
        end = min(start + chunk, total)
        out = process(wave[None, :, start:end])[0]
        for i in range(start, end):
            weight = 1.0
            if start and i < start + overlap:
                weight = (i - start + 1) / (overlap + 1)
            if end < total and i >= start + step:
                weight = 1 - (i - start - step + 1) / (overlap + 1)
            result[:, i] += weight * out[:, i - start]
            weights[i] += weight
        start += step
    assert torch.allclose(weights, torch.ones(total))
    return result


def position_dependent(waves: Tensor) -> Tensor:
    """Answer differently for each chunk, so that a wrong place or weight shows."""
    return waves * torch.linspace(1, 2, waves.shape[-1]) + waves.mean(dim=-1, keepdim=True)


@pytest.mark.parametrize("samples", [1, 10, 11, 12, 49, 50, 51, 89, 90, 100, 128, 1000])
@pytest.mark.parametrize("sizes", [[1], [7, 0, 64], [1000]])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_whole_signal(samples: int, sizes: list[int], batch: int) -> None:
    wave = torch.randn(2, samples)
    pieces = overlap_add(blocks_of(wave, sizes), position_dependent, CHUNK, OVERLAP, batch)
    result = torch.cat(list(pieces), dim=-1)
    expected = naive(wave, position_dependent, CHUNK, OVERLAP)
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("chunk", "overlap"), [(50, 0), (50, 25), (64, 1)])
def test_identity_gives_the_stream_back(chunk: int, overlap: int) -> None:
    wave = torch.randn(2, 777)
    pieces = list(overlap_add(blocks_of(wave, [13, 100]), lambda x: x, chunk, overlap, batch=2))
    torch.testing.assert_close(torch.cat(pieces, dim=-1), wave, atol=1e-6, rtol=0)


def test_nothing_in_nothing_out() -> None:
    assert list(overlap_add([], lambda x: x, CHUNK, OVERLAP)) == []
    assert list(overlap_add([torch.zeros(2, 0)], lambda x: x, CHUNK, OVERLAP)) == []


def test_input_is_left_alone_and_only_a_little_is_held() -> None:
    """What went in minus what came out never exceeds two chunks and a block."""
    taken = 0
    wave = torch.randn(2, 2000)
    kept = wave.clone()

    def source():
        nonlocal taken
        for block in blocks_of(wave, [30]):
            taken += block.shape[-1]
            yield block

    given = 0
    for piece in overlap_add(source(), lambda x: x, CHUNK, OVERLAP):
        assert taken - given <= 2 * CHUNK + 30
        given += piece.shape[-1]
    assert given == taken == 2000
    assert torch.equal(wave, kept)


def test_refuses_an_overlap_of_more_than_half_a_chunk() -> None:
    with pytest.raises(ValueError, match="half a chunk"):
        list(overlap_add([torch.zeros(2, 10)], lambda x: x, 10, 6))
