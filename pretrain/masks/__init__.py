"""Masking strategies by name.

Each maps (spectrogram (b c f n), grid, config, global step, generator) to the chosen cells, boolean
(b k m); `hard` is given predicted errors (b k m) instead of the spectrogram. All randomness comes
from the generator, on the CPU; everything that changes over a run from the step.
"""

from separator.pretrain.masks.blocks import clusters, inverse_blocks
from separator.pretrain.masks.dispersion import dispersion
from separator.pretrain.masks.hard import hard
from separator.pretrain.masks.spans import (
    frequency,
    hubert,
    mixed_spans,
    random_time,
    time_frequency,
    window,
)
from separator.pretrain.masks.uniform import uniform

STRATEGIES = {
    "uniform": uniform,
    "random_time": random_time,
    "window": window,
    "frequency": frequency,
    "time_frequency": time_frequency,
    "hubert": hubert,
    "mixed_spans": mixed_spans,
    "clusters": clusters,
    "inverse_blocks": inverse_blocks,
    "dispersion": dispersion,
    "hard": hard,
}

# Strategies of which a run, not a cell, is one word: a single draw decides what becomes of it.
RUNS = {"random_time", "window", "hubert", "mixed_spans"}
# Strategies whose runs could be as long as a crop; their longest one, in `span`s.
LONGEST = {"random_time": 1, "window": 1, "time_frequency": 1, "hubert": 1, "mixed_spans": 2}
BANDS = {"frequency", "time_frequency"}  # strategies that choose a run of bands
