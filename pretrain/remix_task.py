"""Pretraining by remixing: isolated voices over songs without voices, to be removed again."""

from dataclasses import replace

import torch
from torch import Tensor

from separator.data.config import DataConfig
from separator.data.dataset import Batch
from separator.data.roots import fraction_of
from separator.data.splits import first_by_hash, pool_shared_out
from separator.data.tracks import Source, Track, config_tracks
from separator.errors import SeparatorError
from separator.pretrain.config import PretrainConfig
from separator.pretrain.effects import varied
from separator.pretrain.voice_detector import without_voices
from separator.stems import ACCOMPANIMENT, MIXTURE, VOCALS
from separator.supervised.task import SupervisedTask


class RemixTask(SupervisedTask):
    """The downstream task itself, on a library and a collection of voices.

    Songs of data.roots that have stems keep their own vocals; the same changes are made to them.
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

    Args:
        config: the folders of songs and of voices.

    Returns:
        Halves of mixes (and songs with stems), and songs to validate with: each song held out has
        a fixed voice held out.

    Raises:
        SeparatorError: one of the two splits has no song, or there are no voices.
    """
    songs = config_tracks(config.data)
    if model := config.remix.detector:
        songs = without_voices(songs, model, config.remix.detector_db, config.device)
    voices = find_voices(config.data, config.remix.voices)
    share = config.data.valid_share
    tracks = [song for song in songs if song.names != ("mixture",)]
    for root in dict.fromkeys(song.root for song in songs if song.names == ("mixture",)):
        mixtures = [song for song in songs if song.root == root]
        halves = [_half(song, ACCOMPANIMENT, song.stems[0][1], mixtures[0]) for song in mixtures]
        halves += [_half(voice, VOCALS, sources, mixtures[0]) for voice, sources in voices]
        tracks += pool_shared_out(halves, share)
    train, valid = ([t for t in tracks if t.split == split] for split in ("train", "valid"))
    train = fraction_of(train, config.data.fraction)
    if not train or not valid:
        raise SeparatorError(
            f"data.roots, remix.voices: no mix for the split {'valid' if train else 'train'}; add "
            "songs and voices, or set data.valid_share between 0 and 1"
        )
    return train, first_by_hash(valid, config.valid_crops)


def find_voices(data: DataConfig, roots: list[str]) -> list[tuple[Track, tuple[Source, ...]]]:
    """Find isolated voices, and the vocals of songs with stems, with their sources.

    Args:
        data: how songs are split, and the fraction of those with stems.
        roots: folders, each as an entry of `data.roots`.

    Returns:
        Voices of all splits.
    """
    tracks = config_tracks(replace(data, roots=roots))
    train = fraction_of([t for t in tracks if t.split == "train"], data.fraction)
    voices = []
    for track in [*train, *(t for t in tracks if t.split != "train")]:
        stems = dict(track.stems)
        sources = stems.get(VOCALS) or stems.get(MIXTURE)
        if sources:  # half of a pool has accompaniment alone
            voices.append((track, sources))
    return voices


def _half(track: Track, stem: str, sources: tuple[Source, ...], song: Track) -> Track:
    """Make a song or voice into one half of a pool that has the root and weight of a song's."""
    stems = ((stem, sources),)
    return replace(track, stems=stems, kind="pool", root=song.root, weight=song.weight)
