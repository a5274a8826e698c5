"""Masking: a strategy chooses patches of a spectrogram, and the corruption replaces them."""
