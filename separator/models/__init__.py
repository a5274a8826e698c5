"""Networks that map a magnitude spectrogram to a mask; `registry` lists them."""
