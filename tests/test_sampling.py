"""Segments: the right proportions, every start, no two alike, and a function of four numbers."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from separator.data.sampling import draw_segment, segment_table, uniforms
from separator.data.tracks import Source, Track
from separator.errors import SeparatorError

RATE = 100


def track(name: str, samples: int, root="a", weight=1.0, kind="stems", stems=("x", "vocals")):
    source = Source(Path(name), samples, RATE)
    parts = tuple((stem, (source,)) for stem in stems)
    return Track(name, "train", parts, samples, RATE, kind, root, weight)


def chi_square(counts, expected) -> float:
    """Pearson's statistic over its degrees of freedom: near 1 for a fair draw."""
    counts, expected = np.asarray(counts, float), np.asarray(expected, float)
    return float(((counts - expected) ** 2 / expected).sum() / (len(counts) - 1))


def starts(table, **fixed) -> list[tuple[int, int]]:
    keys = {"seed": 0, "first": 0} | fixed
    return [
        (cut.track, cut.start)
        for batch in range(500)
        for index in range(8)
        for cut in draw_segment(table, keys["seed"], keys["first"] + batch, index)
    ]


def test_the_same_numbers_give_the_same_segment():
    # written down: a change here would silently change what every recorded run has seen
    assert uniforms(1, 2, 3, 4)[0] == pytest.approx(0.8258934428812, abs=1e-12)
    table = segment_table([track("a", 1000), track("b", 500)], 200, RATE)
    assert draw_segment(table, 7, 5, 3) == draw_segment(table, 7, 5, 3)


def test_every_start_is_as_likely_and_none_is_out_of_range():
    table = segment_table([track("a", 139)], 100, RATE)
    counts = Counter(start for _, start in starts(table))
    assert set(counts) == set(range(40))
    assert chi_square([counts[i] for i in range(40)], [100] * 40) < 1.75  # p about 0.001


def test_long_songs_are_drawn_more_often_in_proportion():
    lengths = [1000, 3000, 500, 5500]
    table = segment_table([track(str(n), n) for n in lengths], 100, RATE)
    counts = Counter(place for place, _ in starts(table))
    assert chi_square([counts[i] for i in range(4)], [4000 * n / 10000 for n in lengths]) < 5.4


def test_sources_are_drawn_by_weight_whatever_their_size():
    tracks = [track(f"a{i}", 1000) for i in range(9)] + [track("b", 300, root="b", weight=3.0)]
    counts = Counter(place == 9 for place, _ in starts(segment_table(tracks, 100, RATE)))
    assert chi_square([counts[False], counts[True]], [1000, 3000]) < 10.8


def test_seeds_batches_and_attempts_share_nothing():
    table = segment_table([track("a", 10**12)], 100, RATE)
    drawn = [
        draw_segment(table, seed, batch, index, attempt)
        for seed in range(3)
        for batch in range(150)
        for index in range(8)
        for attempt in range(2)
    ]
    assert len(set(drawn)) == len(drawn)
    parts = [np.array([s for _, s in starts(table, first=k)], float) for k in (0, 500)]
    assert abs(np.corrcoef(*parts)[0, 1]) < 0.06  # four standard errors of 4000 draws


def test_a_short_song_starts_at_zero_and_says_how_much_is_music():
    (cut,) = draw_segment(segment_table([track("a", 60)], 100, RATE), 0, 0, 0)
    assert (cut.start, cut.valid) == (0, 60)


def test_lengths_are_counted_at_the_rate_asked_for():
    table = segment_table([track("a", 139)], 100, 2 * RATE)
    assert max(start for _, start in starts(table)) == 178


def test_a_pool_gives_an_instrumental_and_an_independent_voice():
    songs = [track(f"i{i}", 1000, kind="pool", stems=("accompaniment",)) for i in range(3)]
    voices = [track(f"v{i}", 1000, kind="pool", stems=("vocals",)) for i in range(2)]
    table = segment_table(songs + voices, 100, RATE)
    drawn = [draw_segment(table, 0, step, 0, 0) for step in range(3000)]
    counts = Counter((song.track, voice.track) for song, voice in drawn)
    assert set(counts) == {(i, v) for i in range(3) for v in (3, 4)}
    assert chi_square(list(counts.values()), [500] * 6) < 4.1
    both = np.array([[song.start, voice.start] for song, voice in drawn], float)
    assert abs(np.corrcoef(both.T)[0, 1]) < 0.075


@pytest.mark.parametrize("stems", [("accompaniment",), ("vocals",)])
def test_half_a_pool_is_refused(stems):
    with pytest.raises(SeparatorError, match="pool without"):
        segment_table([track("a", 1000, kind="pool", stems=stems)], 100, RATE)


def test_no_songs_are_refused():
    with pytest.raises(SeparatorError, match=r"data\.roots"):
        segment_table([], 100, RATE)
