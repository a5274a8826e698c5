"""Pretraining by remixing: isolated voices over songs without voices, to be removed again."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from separator.data.loader import Batch
from separator.data.sources import config_tracks
from separator.data.splits import pool_shared_out
from separator.data.tracks import Track
from separator.errors import SeparatorError
from separator.pretrain.config import PretrainConfig
from separator.pretrain.effects import varied
from separator.supervised.task import SupervisedTask


class RemixTask(SupervisedTask):
    """The downstream task itself, on a library and a collection of voices.

    Songs of data.roots that have stems are used as they are, beside the others.
    """

    def find_tracks(self) -> tuple[list[Track], list[Track]]:
        """Return halves of mixes to train on, and fixed mixes to validate with."""
        return remix_tracks(self.config)

    def stems(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return accompaniment and vocals of the crops, changed at random: (b 2 c t)."""
        config = self.config
        return varied(super().stems(batch, generator), config.remix, config.rate, generator)


def remix_tracks(config: PretrainConfig) -> tuple[list[Track], list[Track]]:
    """Find songs and voices, and share both out into training and validation.

    Returns:
        Halves of mixes (and songs with stems), and songs to validate with: each song held out has
        a fixed voice held out.

    Raises:
        SeparatorError: one of the two splits has no song, or there are no voices.
    """
    songs = config_tracks(config.data)
    voices = config_tracks(replace(config.data, roots=config.remix.voices))
    share = config.data.valid_share
    tracks = [song for song in songs if song.names != ("mixture",)]
    for root in dict.fromkeys(song.root for song in songs if song.names == ("mixture",)):
        own = [song for song in songs if song.root == root]
        halves = [_half(song, "accompaniment", song.stems[0][1], own[0]) for song in own]
        halves += [_half(voice, "vocals", voice.stems[-1][1], own[0]) for voice in voices]
        tracks += pool_shared_out(halves, share)
    train, valid = ([t for t in tracks if t.split == split] for split in ("train", "valid"))
    if not train or not valid:
        raise SeparatorError(
            f"data.roots, remix.voices: no mix for the split {'valid' if train else 'train'}; add "
            "songs and voices, or set data.valid_share between 0 and 1"
        )
    return train, fewest(valid, config.valid_crops)


def _half(track: Track, stem: str, sources: tuple, song: Track) -> Track:
    """Make a song or voice into one half of a pool that has the root and weight of a song's."""
    stems = ((stem, sources),)
    return replace(track, stems=stems, kind="pool", root=song.root, weight=song.weight)


def fewest(tracks: Sequence[Track], most: int) -> list[Track]:
    """Choose at most so many songs, by a hash of their names."""
    return sorted(tracks, key=lambda t: hashlib.blake2b(os.fsencode(t.name)).digest())[:most]
