"""overlap_add against the whole signal, computed by a double loop."""

import itertools

import numpy as np
import pytest

from separator.dsp.overlap_add import overlap_add

CHUNK, OVERLAP = 50, 11


def noise(channels: int, samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((channels, samples), dtype=np.float32)


def blocks_of(wave: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """Cut a signal into blocks whose sizes repeat."""
    blocks, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= wave.shape[-1]:
            return blocks
        blocks.append(wave[:, at : at + size])
        at += size


def naive(wave: np.ndarray, process, chunk: int, overlap: int) -> np.ndarray:
    """Weighted mean of all chunks that cover each sample, by sums over the whole signal."""
    total, step = wave.shape[-1], chunk - overlap
    result, weights = np.zeros_like(wave), np.zeros(total)
    start = 0
    while start == 0 or start + overlap < total:
        end = min(start + chunk, total)
        first = max(0, end - chunk)  # the last chunk is as long as the others
        out = process(wave[None, :, first:end])[0]
        for i in range(start, end):
            weight = 1.0
            if start and i < start + overlap:
                weight = (i - start + 1) / (overlap + 1)
            if end < total and i >= start + step:
                weight = 1 - (i - start - step + 1) / (overlap + 1)
            result[:, i] += weight * out[:, i - first]
            weights[i] += weight
        start += step
    assert np.allclose(weights, 1)
    return result


def position_dependent(waves: np.ndarray) -> np.ndarray:
    """Answer differently for each chunk, so that a wrong place or weight shows."""
    return waves * np.linspace(1, 2, waves.shape[-1]) + waves.mean(axis=-1, keepdims=True)


@pytest.mark.parametrize("samples", [1, 10, 11, 12, 49, 50, 51, 89, 90, 100, 128, 1000])
@pytest.mark.parametrize("sizes", [[1], [7, 0, 64], [1000]])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_the_whole_signal(samples: int, sizes: list[int], batch: int) -> None:
    wave = noise(2, samples)
    pieces = overlap_add(blocks_of(wave, sizes), position_dependent, CHUNK, OVERLAP, batch)
    result = np.concatenate(list(pieces), axis=-1)
    expected = naive(wave, position_dependent, CHUNK, OVERLAP)
    np.testing.assert_allclose(result, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("chunk", "overlap"), [(50, 0), (50, 25), (64, 1)])
def test_identity_gives_the_stream_back(chunk: int, overlap: int) -> None:
    wave = noise(2, 777)
    pieces = list(overlap_add(blocks_of(wave, [13, 100]), lambda x: x, chunk, overlap, batch=2))
    np.testing.assert_allclose(np.concatenate(pieces, axis=-1), wave, atol=1e-6, rtol=0)


def test_all_chunks_of_a_signal_that_is_long_enough_are_equally_long() -> None:
    lengths = []

    def process(waves: np.ndarray) -> np.ndarray:
        lengths.append(waves.shape)
        return waves

    list(overlap_add(blocks_of(noise(2, 100), [30]), process, CHUNK, OVERLAP, batch=2))
    assert lengths == [(2, 2, CHUNK), (1, 2, CHUNK)]


def test_nothing_in_nothing_out() -> None:
    assert list(overlap_add([], lambda x: x, CHUNK, OVERLAP)) == []
    assert list(overlap_add([np.zeros((2, 0))], lambda x: x, CHUNK, OVERLAP)) == []


def test_input_is_left_alone_and_only_a_little_is_held() -> None:
    """What went in minus what came out never exceeds two chunks and a block."""
    taken = 0
    wave = noise(2, 2000)
    kept = wave.copy()

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
    assert np.array_equal(wave, kept)


def test_refuses_an_overlap_of_more_than_half_a_chunk() -> None:
    with pytest.raises(ValueError, match="half a chunk"):
        list(overlap_add([np.zeros((2, 10))], lambda x: x, 10, 6))
