"""The patch transformer against plain loops, one patch and one crop at a time."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from separator.config import from_dict, parse, to_dict
from separator.dsp.config import STFTConfig
from separator.dsp.stft import normalise, stft
from separator.errors import SeparatorError
from separator.models.base import MEAN_MAGNITUDE_LOGIT
from separator.models.config import SIZES, PatchConfig, Stack
from separator.models.patch_transformer import (
    PatchTransformer,
    patches,
    positions,
    unpatch,
    visible_first,
)
from separator.pretrain.masking.corruption import Corrupted
from separator.pretrain.masking.grid import PatchGrid
from separator.pretrain.objectives.restoration import baselines, masked_error

SMALL = PatchConfig(
    patch=4, width=16, depth=2, heads=2, ffn_dim=24,
    decoder_width=12, decoder_depth=2, decoder_heads=3, decoder_ffn_dim=20,
)  # fmt: skip
BINS = 17  # 4 bands
COUNTS = {"base": 92_440_320, "small": 47_171_712, "tiny": 31_019_328}  # weights, stereo


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make(config: PatchConfig = SMALL, bins: int = BINS, **changes: object) -> PatchTransformer:
    """A model whose biases, norms and head have left their start, where much is 0 or 1."""
    torch.manual_seed(0)
    model = PatchTransformer(dataclasses.replace(config, **changes), bins).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return model


def cells(hidden: Tensor, size: int, frames: int) -> Tensor:
    """Spread patches (b k m) over the cells, (b 1 f n), the Nyquist bin like the one below."""
    wide = torch.kron(hidden.float(), torch.ones(size, size)).bool()[:, None, :, :frames]
    return torch.cat([wide, wide[:, :, -1:]], dim=2)


def some_hidden(
    batch: int, frames: int, share: float = 0.6, size: int = 4, seed: int = 1
) -> Tensor:
    groups = math.ceil(frames / size)
    return cells(random(batch, (BINS - 1) // size, groups, seed=seed) < share, size, frames)


def answer(model: nn.Module, x: Tensor, hidden: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model(x, hidden)


@pytest.mark.parametrize("frames", [4, 8, 1, 5, 11])
def test_patches_lie_where_a_loop_puts_them_and_come_back(frames: int):
    x, size = random(2, 3, 8, frames), 4
    groups = math.ceil(frames / size)
    cut = patches(x, size)
    assert cut.shape == (2, 2 * groups, 3 * size * size)
    for band in range(2):
        for group in range(groups):
            rows = cut[:, band * groups + group].reshape(2, 3, size, size)
            for column in range(size):
                frame = min(group * size + column, frames - 1)  # the last one is repeated
                assert torch.equal(rows[..., column], x[:, :, band * 4 : band * 4 + 4, frame])
    assert torch.equal(unpatch(cut, (2, groups), size)[..., :frames], x)


def test_order_and_its_inverse():
    hidden = random(5, 40) < 0.7
    order, restore = visible_first(hidden)
    place = torch.arange(40).expand(5, -1)
    assert torch.equal(order.gather(1, restore), place)
    assert torch.equal(restore.gather(1, order), place)
    for row, marks in zip(order, hidden, strict=True):
        seen = [i for i in range(40) if not marks[i]]
        assert row[: len(seen)].tolist() == seen


def test_positions_are_sinusoids_of_band_and_time():
    table = positions((3, 5), 8, torch.device("cpu"))
    for band in range(3):
        for group in range(5):
            angles = [place * rate for place in (band, group) for rate in (1.0, 0.01)]
            expected = [f(angle) for f in (math.sin, math.cos) for angle in angles]
            torch.testing.assert_close(table[band * 5 + group], torch.tensor(expected))
    assert torch.equal(positions((3, 9), 8, torch.device("cpu"))[:5], table[:5])  # of any length


def library_block(block: nn.Module, sizes: Stack) -> nn.Module:
    """Torch's own layer with the same weights."""
    other = nn.TransformerEncoderLayer(
        *(sizes.width, sizes.heads, sizes.ffn_dim, 0.0, "gelu"), batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_weight": "qkv.weight", "self_attn.in_proj_bias": "qkv.bias",
        "self_attn.out_proj.weight": "out.weight", "self_attn.out_proj.bias": "out.bias",
    }  # fmt: skip
    names |= {f"linear{i}.{p}": f"{n}.{p}" for i, n in ((1, "up"), (2, "down")) for p in
              ("weight", "bias")}  # fmt: skip
    names |= {f"norm{i}.{p}": f"norm{i}.{p}" for i in (1, 2) for p in ("weight", "bias")}
    state = block.state_dict()
    other.load_state_dict({theirs: state[ours] for theirs, ours in names.items()})
    return other.eval()


def naive(model: PatchTransformer, x: Tensor, hidden: Tensor) -> Tensor:
    """The mask of one crop (c f n) whose patches (k m) are hidden or not, patch after patch."""
    config, (bands, groups) = model.config, hidden.shape
    size, frames = config.patch, x.shape[-1]
    x = torch.cat([x, x[..., -1:].expand(-1, -1, groups * size - frames)], dim=-1)
    values = (
        torch.log(x.clamp(1e-3, 1 - 1e-3) / (1 - x.clamp(1e-3, 1 - 1e-3))) - MEAN_MAGNITUDE_LOGIT
    )
    tables = [positions((bands, groups), w, x.device) for w in (config.width, config.decoder_width)]
    seen, words = [], []
    for band in range(bands):
        for group in range(groups):
            if not hidden[band, group]:
                place = (
                    slice(band * size, band * size + size),
                    slice(group * size, (group + 1) * size),
                )
                vector = torch.cat([channel[place].flatten() for channel in values])
                word = model.embed.weight @ vector + model.embed.bias
                seen.append((band, group))
                words.append(word + tables[0][band * groups + group])
    encoded = torch.stack(words)[None]
    for block in model.encoder:
        encoded = library_block(block, config.encoder)(encoded)
    encoded = model.join(model.encoder_norm(encoded))[0]
    tokens = torch.stack(
        [
            (encoded[seen.index((band, group))] if (band, group) in seen else model.unseen)
            + tables[1][band * groups + group]
            for band in range(bands)
            for group in range(groups)
        ]
    )[None]
    for block in model.decoder:
        tokens = library_block(block, config.decoder)(tokens)
    out = model.head(model.decoder_norm(tokens))[0]
    mask = torch.empty_like(x)
    for band in range(bands):
        for group in range(groups):
            start = -3.5 if hidden[band, group] else 2.2
            patch = (out[band * groups + group] + start).sigmoid().reshape(-1, size, size)
            mask[:, band * size : (band + 1) * size, group * size : (group + 1) * size] = patch
    return torch.cat([mask, mask[:, -1:]], dim=1)[..., :frames]


@pytest.mark.parametrize("frames", [12, 13])
def test_the_encoder_sees_the_visible_patches_alone_and_all_come_back_to_their_places(frames: int):
    model, x = make(), random(3, 2, BINS, frames)
    count = 4 * math.ceil(frames / 4)
    ranks = random(3, count, seed=3).argsort(1).argsort(1)
    hidden = (ranks < torch.tensor([[3], [10], [count - 1]])).view(3, 4, -1)
    mask = answer(model, x, cells(hidden, 4, frames))
    for item in range(3):
        with torch.no_grad():
            expected = naive(model, x[item, :, :-1], hidden[item])
        torch.testing.assert_close(mask[item], expected, rtol=0, atol=1e-5)


def test_as_many_words_are_encoded_as_are_visible():
    model, seen = make(), []
    model.encoder[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape))
    hidden = torch.zeros(2, 4, 5, dtype=torch.bool)
    hidden[0, :3] = True
    hidden[1, 1:] = True
    answer(model, random(2, 2, BINS, 20), cells(hidden, 4, 20))
    hidden[1, 3, :2] = False
    answer(model, random(2, 2, BINS, 20), cells(hidden, 4, 20))
    answer(model, random(2, 2, BINS, 20))
    assert seen == [(2, 5, 16), (2, 7, 16), (2, 20, 16)]


@pytest.mark.parametrize("whole", [True, False])
def test_what_stands_in_masked_patches_is_not_seen(whole: bool):
    model, x = make(), random(2, 2, BINS, 14)
    hidden = some_hidden(2, 14) if whole else random(2, 1, BINS, 14, seed=2) < 0.4
    answers = [
        answer(model, torch.where(hidden, other, x), hidden)
        for other in (torch.tensor(1.0), random(2, 2, BINS, 14, seed=5))
    ]
    assert torch.equal(*answers)
    heard = torch.where(hidden, x, random(2, 2, BINS, 14, seed=5))
    assert (answer(model, heard, hidden) - answers[0]).abs().max() > 1e-3


def test_crops_with_more_and_with_less_hidden_do_not_disturb_each_other():
    model, x = make(), random(4, 2, BINS, 18)
    hidden = torch.stack([random(4, 5, seed=i) < share for i, share in enumerate((0, 0.3, 0.8, 1))])
    hidden = cells(hidden, 4, 18)
    together = answer(model, x, hidden)
    for i in range(4):
        alone = answer(model, x[i : i + 1], hidden[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)
    torch.testing.assert_close(together[:1], answer(model, x[:1]), rtol=0, atol=1e-5)


def test_patches_hidden_in_part_are_seen():
    model, x = make(), random(1, 2, BINS, 8)
    hidden = torch.zeros(1, 1, BINS, 8, dtype=torch.bool)
    hidden[:, :, 4:8, 0:3] = True  # 3 frames of a patch of 4
    moved = x.clone()
    moved[:, :, 4:8, 3] = 0.9
    assert (answer(model, x, hidden) - answer(model, moved, hidden)).abs().max() > 1e-3
    hidden[:, :, 4:8, 3] = True
    assert torch.equal(answer(model, x, hidden), answer(model, moved, hidden))


def test_whole_frames_and_repeated_frames_are_hidden_like_their_cells():
    model, x = make(), random(2, 2, BINS, 10)
    hidden = torch.zeros(2, 1, 1, 10, dtype=torch.bool)
    hidden[:, :, :, 8:] = True  # with two repetitions a whole patch
    mask = answer(model, x, hidden)
    assert torch.equal(mask, answer(model, x, hidden.expand(-1, -1, BINS, -1)))
    assert torch.equal(mask, answer(model, torch.where(hidden, 0.3, x), hidden))


@pytest.mark.parametrize("frames", [1, 2, 7, 32, 101])
def test_a_mask_for_any_number_of_frames(frames: int):
    model, x = make(), random(2, 2, BINS, frames)
    with torch.no_grad():
        mask, deep, fine, _ = model.features(x)
    assert torch.equal(mask, answer(model, x))
    assert 0 <= mask.min() < mask.max() <= 1
    assert torch.equal(mask[:, :, -1], mask[:, :, -2])
    assert deep.shape == (2, frames, model.bottleneck_features)
    assert fine.shape == (2, frames, BINS - 1, model.pre_head_channels)
    assert torch.equal(fine.sigmoid().permute(0, 3, 2, 1), mask[:, :, :-1])


def test_deep_features_are_the_mean_over_a_columns_patches():
    model, x, tokens = make(), random(2, 2, BINS, 10), []
    model.decoder_norm.register_forward_hook(lambda _, __, out: tokens.append(out))
    with torch.no_grad():
        deep = model.features(x).bottleneck
    for frame in range(10):
        column = [tokens[0][:, band * 3 + frame // 4] for band in range(4)]
        torch.testing.assert_close(deep[:, frame], sum(column) / 4)


def test_masks_start_from_nine_tenths_and_from_the_mean_magnitude():
    torch.manual_seed(0)
    model, x = PatchTransformer(SMALL, BINS), random(1, 2, BINS, 20) * 0.1
    hidden = random(1, 1, BINS, 20, seed=1) < 0.5  # cell by cell, not patch by patch
    hidden[:, :, -1] = hidden[:, :, -2]
    mask = answer(model, x, hidden)
    hidden = hidden.expand_as(mask)
    assert 0.02 < mask[hidden].min() < mask[hidden].max() < 0.05
    assert 0.85 < mask[~hidden].min() < mask[~hidden].max() < 0.94
    plain = answer(model, x)
    nn.init.normal_(model.head.weight)
    model.reset_head()
    torch.testing.assert_close(answer(model, x), plain, rtol=0, atol=0.05)


def test_squared_error_of_hidden_patches_asks_nothing_of_visible_ones():
    model, x = make(), random(2, 2, BINS, 12)
    hidden = some_hidden(2, 12)
    corrupted = Corrupted(
        torch.where(hidden, 1.0, x), torch.where(hidden, 0, -1), PatchGrid(BINS, 12, 4, 4)
    )
    mask = model(corrupted.spectrogram, hidden)
    mask.retain_grad()
    loss = masked_error(corrupted.spectrogram * mask, x, corrupted, 1.0, 0.0, True)["loss"]
    loss.backward()
    count = hidden.sum(dim=(1, 2, 3), keepdim=True)
    expected = 2 * (mask - x).detach() * hidden / count / 2 / 2  # 2 channels, 2 crops
    torch.testing.assert_close(mask.grad, expected)
    assert mask.grad[~hidden.expand_as(mask)].abs().max() == 0
    assert all(weight.grad.abs().max() > 0 for weight in model.parameters())  # `unseen` too


@pytest.mark.parametrize("hide", [0.0, 1.0])
def test_every_weight_has_a_gradient_whatever_is_hidden(hide: float):
    """Weights without one would stop the synchronisation of several processes."""
    model, x = make().train(), random(2, 2, BINS, 9)
    hidden = some_hidden(2, 9, hide) if hide else None
    mask = model(x, hidden)
    mask.square().sum().backward()
    assert mask.isfinite().all()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_stages_hold_every_weight_once_and_in_order():
    model = make()
    stages = model.stages()
    held = [id(weight) for stage in stages for weight in stage]
    assert sorted(held) == sorted(map(id, model.parameters()))
    depth = {id(weight): i for i, stage in enumerate(stages) for weight in stage}
    parts = [model.embed, *model.encoder, model.join, *model.decoder, model.head]
    assert [depth[id(next(part.parameters()))] for part in parts] == list(range(len(stages)))
    assert depth[id(model.unseen)] == depth[id(model.join.weight)]


def by_hand(encoder: Stack, decoder: Stack, values: int) -> int:
    """Weights: patches in, blocks, the step to the decoder with the mask vector, patches out."""
    total = values * encoder.width + encoder.width
    for d, depth, _, hidden in (encoder, decoder):
        attention, norms = 4 * (d * d + d), 2 * 2 * d
        total += depth * (attention + norms + d * hidden + hidden + hidden * d + d) + 2 * d
    total += encoder.width * decoder.width + decoder.width + decoder.width
    return total + decoder.width * values + values


@pytest.mark.parametrize(
    ("size", "encoder"),
    [("base", (768, 12, 12, 2048)), ("small", (384, 12, 6, 1536)), ("tiny", (192, 12, 3, 768))],
)
def test_the_three_sizes_of_the_paper(size: str, encoder: tuple[int, ...]):
    config = PatchConfig(size=size)
    assert config.encoder == Stack(*encoder) == SIZES[size]
    assert config.decoder == Stack(512, 8, 16, 2048)
    with torch.device("meta"):
        model = PatchTransformer(config, 2049)
    count = sum(weight.numel() for weight in model.parameters())
    assert count == by_hand(Stack(*encoder), Stack(512, 8, 16, 2048), 16 * 16 * 2)
    assert count == COUNTS[size]


def test_single_sizes_override_those_of_the_paper():
    config = parse(PatchConfig, ["size=small", "depth=3"], "pretrain")
    assert config == PatchConfig(size="small", depth=3)
    assert config.encoder == Stack(384, 3, 6, 1536)
    assert from_dict(PatchConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"size": "huge"}, "size: 'huge'"),
        ({"depth": -1}, "depth: -1"),
        ({"patch": 0}, "patch: 0"),
        ({"decoder_depth": 0}, "decoder_depth: 0"),
        ({"width": 100}, "width: 100"),
        ({"width": 6}, "width: 6"),
        ({"decoder_width": 24}, "decoder_width: 24"),
        ({"dropout": 1.0}, "dropout: 1.0"),
    ],
)
def test_sizes_that_do_not_go_are_refused_by_name(changes: dict, key: str):
    with pytest.raises(SeparatorError) as error:
        PatchConfig(**changes)
    assert str(error.value).startswith(key)
    assert "\n" not in str(error.value)


def test_patches_that_do_not_divide_the_bins_are_refused():
    with pytest.raises(SeparatorError, match=r"^patch: 5 does not divide 16 bins"):
        make(patch=5)


def test_dropout_acts_in_training_only():
    model, x = make(dropout=0.5), random(1, 2, BINS, 9)
    assert torch.equal(answer(model, x), answer(model, x))
    model.train()
    assert not torch.equal(answer(model, x), answer(model, x))


def test_autocast_changes_little_and_does_not_round_the_mask():
    model, x, hidden = make(), random(2, 2, BINS, 9), some_hidden(2, 9)
    with torch.autocast("cpu", torch.bfloat16):
        low = answer(model, x, hidden)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, answer(model, x, hidden), rtol=0, atol=0.05)


@pytest.mark.slow
def test_learns_one_crop_of_real_music_by_heart(shared_data):
    import soxr

    from separator.audio.tensors import read

    song = sorted((shared_data / "songs").glob("*.mp3"))[0]
    wave = read(song, 60 * 44100, 6 * 44100)
    wave = torch.from_numpy(soxr.resample(wave.T.numpy(), 44100, 16000)).T
    config = STFTConfig(2048, 1024)
    target, _ = normalise(stft(wave[None], config).abs(), config)
    frames = target.shape[-1]
    hidden = random(32 * math.ceil(frames / 32)).argsort().argsort() >= 8 * 3  # three in four
    hidden = cells(hidden.view(1, 32, -1), 32, frames)
    corrupted = Corrupted(
        torch.where(hidden, 1.0, target),
        torch.where(hidden, 0, -1),
        PatchGrid(1025, frames, 32, 32),
    )

    def error(restored: Tensor) -> Tensor:
        return masked_error(restored, target, corrupted, 1.0, 0.0, squared=True)["loss"]

    torch.manual_seed(0)
    model = PatchTransformer(
        PatchConfig(
            patch=32, width=64, depth=1, heads=4, ffn_dim=128,
            decoder_width=128, decoder_depth=1, decoder_heads=4, decoder_ffn_dim=256,
        ),
        1025,
    )  # fmt: skip
    steps, trivial = 160, min(error(value).item() for value in baselines(target, hidden).values())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=0.0)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    for _ in range(steps):
        loss = error(corrupted.spectrogram * model(corrupted.spectrogram, hidden))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    assert loss.item() < 0.1 * trivial
