"""Runs of neighbouring frames or bands at any place."""

from dataclasses import dataclass

from separator.pretrain.lazy_torch import Generator, Tensor, torch
from separator.pretrain.masking.grid import PatchGrid, lowest, wanted
from separator.pretrain.masking.options import BandSpanOptions, ShareOptions, SpanOptions
from separator.pretrain.masking.strategy import register


@dataclass(frozen=True)
class RunOptions(ShareOptions, SpanOptions):
    """Settings of strategies that choose a given number of groups in runs."""


@dataclass(frozen=True)
class CrossOptions(SpanOptions, BandSpanOptions):
    """Settings of `time_frequency`."""


@register(SpanOptions, one_draw_per_run=True, longest_run=1)
def random_time(
    spectrogram: Tensor, grid: PatchGrid, config: SpanOptions, step: int, generator: Generator
) -> Tensor:
    """Choose one run of 0 to `span` groups, all bands (SpecAugment's, arXiv 1904.08779)."""
    width = _integers(len(spectrogram), min(config.span, grid.groups), generator)
    return _run(width, grid.groups, generator)[:, None].expand(-1, grid.bands, -1)


@register(SpanOptions, one_draw_per_run=True, longest_run=1)
def window(
    spectrogram: Tensor, grid: PatchGrid, config: SpanOptions, step: int, generator: Generator
) -> Tensor:
    """Choose one run of exactly `span` groups, all bands."""
    width = torch.full((len(spectrogram), 1), min(config.span, grid.groups))
    return _run(width, grid.groups, generator)[:, None].expand(-1, grid.bands, -1)


@register(BandSpanOptions, bands=True)
def frequency(
    spectrogram: Tensor, grid: PatchGrid, config: BandSpanOptions, step: int, generator: Generator
) -> Tensor:
    """Choose one run of 0 to `band_span` bands, all groups."""
    width = _integers(len(spectrogram), min(config.band_span, grid.bands), generator)
    return _run(width, grid.bands, generator)[:, :, None].expand(-1, -1, grid.groups)


@register(CrossOptions, longest_run=1, bands=True)
def time_frequency(
    spectrogram: Tensor, grid: PatchGrid, config: CrossOptions, step: int, generator: Generator
) -> Tensor:
    """Choose a run of groups and a run of bands: together they form a T or a cross."""
    rows = frequency(spectrogram, grid, config, step, generator)
    return rows | random_time(spectrogram, grid, config, step, generator)


@register(RunOptions, one_draw_per_run=True, longest_run=1)
def hubert(
    spectrogram: Tensor, grid: PatchGrid, config: RunOptions, step: int, generator: Generator
) -> Tensor:
    """Choose spans of `span` groups that may overlap (HuBERT, arXiv 2106.07447), all bands.

    A share of 0.8 draws 0.8 / span starts for each group; since spans overlap, about 55 % of the
    groups are covered.
    """
    groups, span = grid.groups, min(config.span, grid.groups)
    places = groups - span + 1
    spare = torch.rand(len(spectrogram), 1, generator=generator)
    number = (config.share * groups / span + spare).long().clamp(1, places)
    scores = torch.rand(len(spectrogram), places, generator=generator)
    starts = scores <= scores.sort(dim=1).values.gather(1, number - 1)
    chosen = torch.zeros(len(spectrogram), groups, dtype=torch.bool)
    for offset in range(span):
        chosen[:, offset : offset + places] |= starts
    return chosen[:, None].expand(-1, grid.bands, -1)


@register(RunOptions, one_draw_per_run=True, longest_run=2)
def mixed_spans(
    spectrogram: Tensor, grid: PatchGrid, config: RunOptions, step: int, generator: Generator
) -> Tensor:
    """Choose `share` of the groups in spans of a half, one and two times `span`, all bands.

    Spans are placed in random order until the share is reached; the last one is shortened.
    """
    batch, groups, scores = len(spectrogram), grid.groups, []
    for length in (config.span // 2, config.span, 2 * config.span):
        span = max(1, min(length, groups))
        starts = torch.rand(batch, groups + span - 1, generator=generator, dtype=torch.float64)
        scores.append(starts.unfold(1, span, 1).amin(-1))  # the first span that covers a group
    order = torch.stack(scores).amin(0) + 1e-9 * torch.arange(groups)
    chosen = lowest(order, wanted(config.share, groups, batch, generator))
    return chosen[:, None].expand(-1, grid.bands, -1)


def _integers(batch: int, most: int, generator: Generator) -> Tensor:
    """Draw whole numbers from 0 to `most`, both included: (b 1)."""
    return torch.randint(0, most + 1, (batch, 1), generator=generator)


def _run(width: Tensor, length: int, generator: Generator) -> Tensor:
    """Mark a run of `width` (b 1) at a start uniform over where it fits: boolean (b length)."""
    uniform = torch.rand(width.shape, generator=generator, dtype=torch.float64)
    start = (uniform * (length - width + 1)).long()
    place = torch.arange(length)
    return (place >= start) & (place < start + width)
