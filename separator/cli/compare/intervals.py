"""Means, spreads and intervals of scores with a row for each seed and a column for each song."""

from typing import Any

import numpy as np

DRAWS = 10_000
CONFIDENCE = 0.95


def summary(scores: np.ndarray) -> dict[str, Any]:
    """Summarise the scores (s n) of one arm, s seeds and n songs.

    Returns:
        "by_seed" (s) means over songs, their "mean" and "sd" (n - 1; None for one seed); "median",
        the mean over seeds of the median over songs; "by_song" (n) means over seeds.
    """
    by_seed = scores.mean(1)
    return {
        "mean": float(by_seed.mean()),
        "sd": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        "median": float(np.median(scores, axis=1).mean()),
        "by_seed": by_seed.tolist(),
        "by_song": scores.mean(0).tolist(),
    }


def paired(differences: np.ndarray) -> dict[str, Any]:
    """Summarise the differences (s n) between two arms, seed by seed and song by song.

    Returns:
        Their "mean"; "low" and "high", the bounds of its interval (None for one song); "by_song"
        (n) means over seeds.
    """
    low, high = interval(differences) if differences.shape[1] > 1 else (None, None)
    mean, by_song = float(differences.mean()), differences.mean(0).tolist()
    return {"mean": mean, "low": low, "high": high, "by_song": by_song}


def interval(values: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of values (s n), by a bootstrap of rows and columns.

    Each draw takes s seeds and, independently, n songs, both with replacement, and the mean of the
    table in which they cross (Owen 2007, "The pigeonhole bootstrap", doi 10.1214/07-AOAS122). So
    the interval is about other seeds *and* other songs of this kind; drawing songs alone tells how
    these very weights differ, which is narrower than what a recipe is judged by. With one seed,
    only songs can be drawn.

    As s values drawn anew vary by (s - 1) / s of what s new ones would, deviations of the weights
    are enlarged by sqrt(s / (s - 1)), and those of the songs alike (Rao and Wu 1988, "Resampling
    inference with complex survey data"). Even so, two or three seeds do not tell their own spread
    well: intervals that barely leave out 0 want more of them.

    Args:
        values: (s n) differences.
        draws: tables that are drawn.
        seed: of the draws.

    Returns:
        The lower and the upper bound.
    """
    rng = np.random.default_rng(seed)
    rows, columns = (_weights(rng, count, draws) for count in values.shape)
    means = ((rows @ values) * columns).sum(1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _weights(rng: np.random.Generator, count: int, draws: int) -> np.ndarray:
    """Weights (draws, count) of what is drawn with replacement, each row of which sums to 1."""
    if count == 1:
        return np.ones((draws, 1))
    drawn = rng.multinomial(count, np.full(count, 1 / count), draws) / count
    return 1 / count + (drawn - 1 / count) * np.sqrt(count / (count - 1))
