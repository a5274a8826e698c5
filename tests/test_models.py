"""The frame transformer and its parts against plain loops and what theory says of them."""

import dataclasses
import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from separator.config import parse
from separator.dsp.config import STFTConfig
from separator.errors import SeparatorError
from separator.models.blocks import BLOCKS, EvolvedDecoder, EvolvedEncoder, PrimerDecoder
from separator.models.build import describe, skeleton
from separator.models.config import ModelConfig
from separator.models.frame_transformer import FrameTransformer, block_sizes
from separator.models.layers import (
    NORMS,
    Attention,
    BinLinear,
    CrossFrameAttention,
    DepthwiseConv,
    FeedForward,
    FrameConv,
    FrameUpsample,
    MaskedFrameDetector,
    RelativeBias,
    Rotary,
    skew,
)
from separator.models.weights import fill, layout_of
from separator.pretrain.config import PretrainConfig

SMALL = ModelConfig(
    channels=(2, 4, 4), encoder_blocks=(1, 2, 1), decoder_blocks=(1, 1, 2), ffn_dim=(64, 32, 32)
)
BINS = 65


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make(config: ModelConfig = SMALL, bins: int = BINS, **changes: object) -> FrameTransformer:
    torch.manual_seed(0)
    return FrameTransformer(dataclasses.replace(config, **changes), bins)


@pytest.mark.parametrize("position", ["rotary", "relative"])
@pytest.mark.parametrize("block", ["primer", "evolved"])
def test_a_mask_for_any_number_of_frames(block: str, position: str):
    model = make(block=block, position=position, max_distance=5).eval()
    for frames in (1, 2, 7, 32):
        with torch.no_grad():
            mask = model(random(2, 2, BINS, frames))
        assert mask.shape == (2, 2, BINS, frames)
        assert mask.min() >= 0
        assert mask.max() <= 1
        assert mask.std() > 0 or frames == 1
        assert torch.equal(mask[:, :, -1], mask[:, :, -2])  # the Nyquist bin repeats its neighbour


def test_levels_halve_the_bins_and_never_the_frames():
    model, seen = make(), []
    parts = [*model.encoder_tokens, *model.decoder_tokens]
    for part in parts:
        part.register_forward_hook(lambda module, inputs, out: seen.append(tuple(out.shape)))
    model(random(2, 2, BINS, 9))
    down = [(2, 9, 64, 3), (2, 9, 32, 6), (2, 9, 16, 5)]
    up = [(2, 9, 16, 7), (2, 9, 32, 5), (2, 9, 64, 3)]
    assert seen == down + up  # each block adds one channel


@pytest.mark.parametrize("convs", [1, 2, 3])
def test_convolutions_do_not_leak_between_frames(convs: int):
    none = (0, 0, 0)
    model = make(encoder_blocks=none, decoder_blocks=none, convs=convs, cross_frame_bands=0).eval()
    before = random(1, 2, BINS, 9)
    after = before.clone()
    after[..., 4] = random(1, 2, BINS, seed=1)
    with torch.no_grad():
        changed = (model(before) != model(after)).any(dim=(0, 1, 2))
    assert changed.nonzero().flatten().tolist() == [4]


def test_a_configuration_knows_all_blocks_and_norms():
    kinds = {field.name: get_args(field.type) for field in dataclasses.fields(ModelConfig)}
    assert (tuple(BLOCKS), tuple(NORMS)) == (kinds["block"], kinds["norm"])


@pytest.mark.parametrize("norm", NORMS)
def test_norms_after_convolutions_do_not_leak_between_frames(norm: str):
    conv = FrameConv(2, 3, norm).eval()
    before = random(1, 9, 8, 2)
    after = before.clone()
    after[:, 4] = random(1, 8, 2, seed=1)
    with torch.no_grad():
        changed = (conv(before) != conv(after)).any(dim=-1).any(dim=-1)
    assert changed.nonzero()[:, 1].tolist() == [4]


@pytest.mark.parametrize("norm", NORMS)
def test_convolutions_are_normalised_where_there_are_blocks(norm: str):
    model = make(encoder_blocks=(0, 0, 1), decoder_blocks=(0, 1, 0), norm=norm)
    encoders = [model.encoders[0], model.encoders[1][0], model.encoders[2][0]]
    assert [isinstance(conv.norm, NORMS[norm]) for conv in encoders] == [False, True, True]
    assert [isinstance(conv.norm, NORMS[norm]) for conv in model.decoders] == [True, False]


def test_blocks_carry_from_every_frame_to_every_other():
    model = make().eval()
    x = random(1, 2, BINS, 9).requires_grad_()
    model(x)[..., 8].sum().backward()
    assert (x.grad[..., :-1, :].abs().sum(dim=(0, 1, 2)) > 0).all()


def test_skew_reads_columns_as_distances():
    n = 5
    distance = torch.arange(1 - n, n).expand(2, n, 2 * n - 1)
    expected = torch.arange(n)[None] - torch.arange(n)[:, None]
    assert torch.equal(skew(distance), expected.expand(2, n, n))


@pytest.mark.parametrize("n", [1, 3, 4, 11])
def test_relative_bias_is_the_double_loop(n: int):
    bias = RelativeBias(heads=2, head_features=4, max_distance=3)
    q = random(2, 2, n, 4)
    out = bias(q)
    for head in range(2):
        for i in range(n):
            for j in range(n):
                row = max(-3, min(3, j - i)) + 3
                expected = q[:, head, i] @ bias.table[head, row]
                torch.testing.assert_close(out[:, head, i, j], expected)


@pytest.mark.parametrize("position", ["rotary", "relative"])
@pytest.mark.parametrize("n", [1, 9])
def test_attention_is_the_double_loop(position: str, n: int):
    torch.manual_seed(1)
    attention = Attention(8, 2, position, max_distance=3)
    x, memory = random(1, n, 8), random(1, n, 8, seed=2)
    for context in (None, memory):
        source = x if context is None else context
        q = attention.q_conv(attention.q(x))[0].unflatten(-1, (2, 4))
        k = attention.k_conv(attention.k(source))[0].unflatten(-1, (2, 4))
        v = attention.v_conv(attention.v(source))[0].unflatten(-1, (2, 4))
        out = torch.zeros(n, 2, 4)
        for head in range(2):
            for i in range(n):
                logits = []
                for j in range(n):
                    if position == "rotary":
                        logit = rotated(q[i, head], i) @ rotated(k[j, head], j)
                    else:
                        e = attention.bias.table[head, max(-3, min(3, j - i)) + 3]
                        logit = q[i, head] @ k[j, head] + q[i, head] @ e
                    logits.append(logit / math.sqrt(4))
                out[i, head] = torch.stack(logits).softmax(0) @ v[:, head]
        expected = attention.out(out.flatten(1))
        torch.testing.assert_close(attention(x, context)[0], expected, rtol=1e-4, atol=1e-5)


def rotated(x: Tensor, place: int) -> Tensor:
    """Rotary embedding by complex numbers: halves are real and imaginary parts."""
    half = len(x) // 2
    angle = place * 10000.0 ** (-torch.arange(half) / half)
    turned = torch.complex(x[:half], x[half:]) * torch.polar(torch.ones(half), angle)
    return torch.cat([turned.real, turned.imag])


def test_rotary_products_depend_on_distance_only():
    rotary = Rotary(16)
    q, k = (random(16, seed=s).expand(1, 1, 50, 16) for s in (0, 1))
    logits = (rotary(q) @ rotary(k).transpose(-1, -2))[0, 0]
    torch.testing.assert_close(logits[:-7, :-7], logits[7:, 7:], rtol=1e-4, atol=1e-4)
    assert logits[0].std() > 0.1
    torch.testing.assert_close(rotary(q)[0, 0, 31], rotated(q[0, 0, 31], 31))


def test_rotary_attention_follows_a_shift():
    """With values of zero outside a passage, moving the passage moves the result."""
    torch.manual_seed(0)
    attention = Attention(16, 1, "rotary", 8)
    for linear in (attention.q, attention.k, attention.v):
        nn.init.zeros_(linear.bias)
    for conv in (attention.q_conv, attention.k_conv, attention.v_conv):
        nn.init.zeros_(conv.conv.bias)
    x = torch.zeros(1, 40, 16)
    x[:, 10:20] = random(1, 10, 16)
    a, b = attention(x), attention(x.roll(9, dims=1))
    torch.testing.assert_close(a.roll(9, dims=1)[:, 10:30], b[:, 10:30], rtol=1e-4, atol=1e-4)


def test_three_depthwise_convolutions_learn_apart():
    torch.manual_seed(0)
    attention = Attention(16, 2, "rotary", 8)
    (attention(random(2, 6, 16)) * random(2, 6, 16, seed=1)).sum().backward()
    convs = attention.q_conv, attention.k_conv, attention.v_conv
    gradients = [conv.conv.weight.grad for conv in convs]
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    for i in range(3):
        assert not torch.allclose(gradients[i], gradients[i - 1])
        assert convs[i].conv.weight is not convs[i - 1].conv.weight


@pytest.mark.parametrize("kernel", [3, 7])
def test_depthwise_convolution_is_the_loop_and_symmetric(kernel: int):
    conv, x = DepthwiseConv(5, kernel), random(1, 6, 5)
    out = conv(x)
    weight, bias = conv.conv.weight[:, 0, :, 0], conv.conv.bias
    for n in range(6):
        total = bias.clone()
        for tap in range(kernel):
            at = n + tap - kernel // 2
            if 0 <= at < 6:
                total = total + weight[:, tap] * x[0, at]
        torch.testing.assert_close(out[0, n], total)


def test_frame_convolution_and_upsampling_are_loops_over_bins():
    conv, x = FrameConv(2, 3, None, stride=2), random(1, 4, 8, 2)
    out = conv(x)
    assert out.shape == (1, 4, 4, 3)
    taps = conv.conv.weight[:, :, 0]  # (out, in, 3)
    padded = F.pad(x[0], (0, 0, 1, 1))
    for f in range(4):
        cut = padded[:, 2 * f : 2 * f + 3]  # (n 3 c)
        expected = torch.einsum("nkc,ock->no", cut, taps)
        torch.testing.assert_close(out[0, :, f], F.leaky_relu(expected, 0.1))
    up = FrameUpsample(2, 3)
    y = up(x)
    for f in range(16):
        half = slice(3 * (f % 2), 3 * (f % 2) + 3)
        expected = x[:, :, f // 2] @ up.linear.weight[half].T + up.linear.bias[half]
        torch.testing.assert_close(y[:, :, f], expected)


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (2, 20, 8, 7), (0, 3, 5, 4)])
def test_a_layer_over_a_bins_channels_is_the_matrix_product(shape: tuple[int, ...]):
    torch.manual_seed(0)
    layer, x = BinLinear(shape[-1], 6), torch.randn(shape, requires_grad=True)
    weight = torch.randn(*shape[:-1], 6)
    y = layer(x)
    (y * weight).sum().backward()
    expected = x.detach() @ layer.weight.detach().T + layer.bias.detach()
    torch.testing.assert_close(y.detach(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad, weight @ layer.weight.detach(), rtol=1e-5, atol=1e-5)
    flat, outer = x.detach().flatten(0, 2), weight.flatten(0, 2)
    torch.testing.assert_close(layer.weight.grad, outer.T @ flat, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.bias.grad, outer.sum(0), rtol=1e-4, atol=1e-4)


def test_the_feed_forward_squares_its_relu():
    layer, x = FeedForward(4, 6), random(3, 4) - 0.5
    inner = (x @ layer.up.weight.T + layer.up.bias).clamp(min=0) ** 2
    torch.testing.assert_close(layer(x), inner @ layer.down.weight.T + layer.down.bias)


@pytest.mark.parametrize("shape", [(3, 7), (2, 5, 4)])
def test_rms_norm_is_its_plain_composition(shape: tuple[int, ...]):
    dims = len(shape) - 1
    norm = NORMS["rms"](shape[-1], dims=dims)
    x = (random(*shape) - 0.3).requires_grad_()
    twin = x.detach().double().requires_grad_()
    axes = tuple(range(-dims, 0))
    plain = twin / (twin.square().mean(dim=axes, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(norm(x), plain.float(), rtol=1e-5, atol=1e-6)
    weight = random(*shape, seed=1)
    (norm(x) * weight).sum().backward()
    (plain * weight.double()).sum().backward()
    torch.testing.assert_close(x.grad, twin.grad.float(), rtol=1e-4, atol=1e-5)
    zero = torch.zeros(shape, requires_grad=True)
    norm(zero).sum().backward()
    assert zero.grad.isfinite().all()


def test_rms_norm_tells_a_hidden_frame_from_silence_and_layer_norm_does_not():
    ones, silence = torch.ones(1, 16), torch.zeros(1, 16)
    rms, layer = NORMS["rms"](16), NORMS["layer"](16)
    assert (rms(ones) - rms(silence)).abs().min() > 0.9
    torch.testing.assert_close(layer(ones), layer(silence))


def test_layer_and_batch_norm_have_mean_0_and_variance_1():
    x = random(4, 3, 8, 5) * 3 + 1
    y = NORMS["layer"](5, dims=2)(x)
    torch.testing.assert_close(y.mean(dim=(2, 3)), torch.zeros(4, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.std(dim=(2, 3), correction=0), torch.ones(4, 3), rtol=1e-4, atol=0)
    y = NORMS["batch"](5)(x)
    torch.testing.assert_close(y.mean(dim=(0, 1, 2)), torch.zeros(5), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.std(dim=(0, 1, 2), correction=0), torch.ones(5), rtol=1e-4, atol=0)


def plain_unet(model: FrameTransformer, x: Tensor) -> tuple[Tensor, Tensor]:
    """The U-Net of its parts: dense blocks, skips with the blocks' output, skips as memory."""

    def dense(tokens: nn.Module, x: Tensor, memory: Tensor | None = None) -> Tensor:
        for i, block in enumerate(tokens.blocks):
            seen = [F.linear(x, tokens.squeeze[i].weight, tokens.squeeze[i].bias)[..., 0]]
            if memory is not None:
                squeeze = tokens.squeeze_memory[i]
                seen.append(F.linear(memory, squeeze.weight, squeeze.bias)[..., 0])
            x = torch.cat([x, block(*seen)[..., None]], dim=-1)
        return x

    levels = range(len(model.encoders))
    skips = []
    for level in levels:
        x = dense(model.encoder_tokens[level], model.encoders[level](x))
        skips.append(x)
    deep = x
    for i, level in enumerate(reversed(levels)):
        x = dense(model.decoder_tokens[i], x, skips[level])
        if level:
            x, skip = model.upsamples[i](x), skips[level - 1]
            added = model.config.skips == "add"
            x = model.decoders[i](x + skip if added else torch.cat([x, skip], dim=-1))
    return x, deep


@pytest.mark.parametrize("skips", ["add", "concatenate"])
def test_the_unet_is_wired_as_it_says(skips: str):
    model = make(
        encoder_blocks=(1, 2, 2), decoder_blocks=(2, 1, 2), cross_frame_bands=0, skips=skips
    ).eval()
    x = random(2, 2, BINS, 7)
    with torch.no_grad():
        out = model.features(x)
        shown = model.input_norm(model_input(x) * model.tilt)
        fine, deep = plain_unet(model, shown)
        mask = (model.head(fine) + 2.2).sigmoid().permute(0, 3, 2, 1)
    torch.testing.assert_close(out.pre_head, fine)
    torch.testing.assert_close(out.bottleneck, deep.flatten(2))
    torch.testing.assert_close(out.mask[:, :, :-1], mask)


@pytest.mark.parametrize("frames", [3, 12])
def test_blocks_are_their_papers_formulas(frames: int):
    """Residuals, branches, non-linearities and what attends to what, in plain tensor code."""
    sizes = block_sizes(dataclasses.replace(SMALL, block="evolved", norm="rms"), 1, 64)
    torch.manual_seed(0)
    encoder, decoder, primer = (
        kind(sizes).eval() for kind in (EvolvedEncoder, EvolvedDecoder, PrimerDecoder)
    )
    for block in (encoder, decoder, primer):
        for weight in block.parameters():  # all parts as large as the others
            nn.init.normal_(weight, std=0.3)
    x, memory = torch.randn(2, 2, frames, 32, generator=torch.Generator().manual_seed(1))

    def norm(module: nn.Module, x: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * module.gain

    def over_time(conv: nn.Conv1d, x: Tensor) -> Tensor:
        return conv(x.mT).mT

    with torch.no_grad():
        e, y = encoder, x
        a, b = e.gate(norm(e.norm1, y)).chunk(2, -1)
        y = y + a * torch.sigmoid(b)
        z = norm(e.norm2, y)
        narrow = torch.zeros(2, frames, sizes.ffn_dim)
        narrow[..., : sizes.features // 2] = over_time(e.narrow, z)
        z = norm(e.norm_branches, e.wide(z).clamp(min=0) + narrow)
        y = y + e.join(over_time(e.mix, z))
        y = y + e.attention(norm(e.norm3, y))
        hidden = e.feed_forward.up(norm(e.norm4, y)).clamp(min=0).square()
        torch.testing.assert_close(e(x), y + e.feed_forward.down(hidden), rtol=1e-3, atol=1e-3)

        d, y, m = decoder, x, norm(decoder.memory_norm, memory)
        z = norm(d.norm1, y)
        y = y + d.attention1(z, z) + d.memory_attention1(z, m)
        z = norm(d.norm2, y)
        left = d.left[1](d.left[0](z)).clamp(min=0)
        right = torch.zeros_like(left)
        right[..., : sizes.ffn_dim // 4] = d.right[1](d.right[0](z))
        y = y + d.join[1](d.join[0](norm(d.norm_branches, left + right)))
        y = y + d.attention2(norm(d.norm3, y), norm(d.norm3, y))
        y = y + d.memory_attention2(norm(d.norm4, y), m)
        hidden = d.feed_forward[0](norm(d.norm5, y))
        y = y + d.feed_forward[2](hidden * torch.sigmoid(hidden))
        torch.testing.assert_close(d(x, memory), y, rtol=1e-3, atol=1e-3)

        p, y = primer, x
        y = y + p.attention(norm(p.norm1, y), norm(p.norm1, y))
        y = y + p.memory_attention(norm(p.norm2, y), norm(p.memory_norm, memory))
        hidden = p.feed_forward.up(norm(p.norm3, y)).clamp(min=0).square()
        y = y + p.feed_forward.down(hidden)
        torch.testing.assert_close(p(x, memory), y, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("frames", [1, 7, 8])
@pytest.mark.parametrize("stride", [2, 3])
def test_time_strides_come_back_to_full_length(stride: int, frames: int):
    model = make(time_stride=stride).eval()
    joined = []
    hooks = [e.register_forward_hook(lambda *a: joined.append(a[2].shape)) for e in model.encoders]
    with torch.no_grad():
        out = model.features(random(2, 2, BINS, frames))
    for hook in hooks:
        hook.remove()
    whole = -(-frames // stride**2) * stride**2
    assert [shape[1] for shape in joined] == [whole, whole // stride, whole // stride**2]
    assert [shape[2] for shape in joined] == [64, 32, 16]
    assert out.mask.shape == (2, 2, BINS, frames)
    assert out.bottleneck.shape == (2, frames, model.bottleneck_features)
    for first in range(0, frames, stride**2):
        part = out.bottleneck[:, first : first + stride**2]
        assert torch.equal(part, part[:, :1].expand_as(part))


@pytest.mark.parametrize("changes", [{"skips": "concatenate"}, {"time_stride": 2}])
def test_every_weight_learns_in_other_shapes(changes: dict):
    model = make(cross_frame_bands=0, **changes)
    x, target = random(2, 2, BINS, 9), random(2, 2, BINS, 9, seed=1)
    ((model(x) - target) ** 2).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_recomputed_activations_change_no_gradient():
    """With dropout, whose draws must come back; and through a gradient taken twice."""
    one, two = (make(dropout=0.3, recompute=flag) for flag in (False, True))
    two.load_state_dict(one.state_dict())
    gradients = []
    for model in (one, two):
        torch.manual_seed(1)
        out = model.features(random(1, 2, BINS, 9))
        loss = out.mask.square().sum()
        first = torch.autograd.grad(loss, out.balance_point, retain_graph=True)[0]
        loss.backward()
        gradients.append([first, *(weight.grad for weight in model.parameters())])
    for left, right in zip(*gradients, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


def white_crop() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where frames are hidden, and a crop with ones there and with other values there."""
    hidden = torch.zeros(1, 1, 1, 9, dtype=torch.bool)
    hidden[..., 3:5] = True
    x = random(1, 2, BINS, 9) * 0.3
    fills = torch.ones(1), random(1, 2, BINS, 9, seed=2)
    return hidden, *(torch.where(hidden, fill, x) for fill in fills)


@pytest.mark.parametrize("recall", [0, 4])
def test_untold_the_network_sees_the_white_frames_themselves(recall: int):
    """Literal masking: nothing says what is masked."""
    told, untold = (
        make(cross_frame_bands=recall, mask_known=flag).eval() for flag in (True, False)
    )
    hidden, white, grey = white_crop()
    with torch.no_grad():
        assert torch.equal(untold(white, hidden), untold(white))
        assert (untold(white, hidden) - untold(grey, hidden)).abs().max() > 1e-4
        torch.testing.assert_close(told(white, hidden), told(grey, hidden), rtol=0, atol=0)
        assert (told(white, hidden) - told(white)).abs().max() > 0.1


def test_untold_the_masks_of_all_frames_start_alike():
    hidden, white, _ = white_crop()
    model = make(cross_frame_bands=0, mask_known=False).eval()
    with torch.no_grad():
        for start in (0.343, 0.9):  # of a new model, halfway; and for fine-tuning
            nn.init.zeros_(model.head.weight)
            mask = model(white, hidden)
            torch.testing.assert_close(mask, torch.full_like(mask, start), rtol=0, atol=1e-3)
            model.reset_head()
        model = make(cross_frame_bands=4, mask_known=False).eval()
        nn.init.zeros_(model.head.weight)
        odds = torch.logit(model(white, hidden))
        torch.testing.assert_close(odds, odds[..., :1].expand_as(odds), rtol=0, atol=1e-4)


def test_untold_frames_that_are_found_white_start_where_told_ones_do():
    hidden, white, _ = white_crop()
    told, untold = (
        make(cross_frame_bands=4).eval(),
        make(cross_frame_bands=4, mask_known=False).eval(),
    )
    untold.load_state_dict(told.state_dict(), strict=False)
    for model in (told, untold):
        nn.init.normal_(model.cross_frame.q.bias)  # what a frame asks for is told from its bins
        nn.init.zeros_(model.head.weight)
    untold.cross_frame.load_state_dict(told.cross_frame.state_dict())
    untold(white).sum().backward()
    assert untold.mask_detector.linear.weight.grad.abs().min() > 0
    found = torch.where(hidden[:, 0, 0], 30.0, -30.0)
    untold.mask_detector.register_forward_hook(lambda *_: found)
    with torch.no_grad():
        # told ones count 1e-3 beside their neighbours, so that none is divided by 0
        torch.testing.assert_close(untold(white), told(white, hidden), rtol=0, atol=2e-3)


def test_white_frames_are_soon_found():
    """300 steps with nothing but white and music to tell apart, noise that falls with frequency."""
    torch.manual_seed(0)
    finder = MaskedFrameDetector(256)
    optimizer = torch.optim.Adam(finder.parameters(), lr=1e-3)
    tilt = torch.arange(1, 257).float()[:, None] ** -0.5
    for _ in range(300):
        white = torch.rand(4, 16) < 0.15
        x = torch.where(white[..., None, None], torch.ones(1), torch.rand(4, 16, 256, 2) * tilt)
        loss = nn.functional.binary_cross_entropy_with_logits(finder(x), white.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(finder(x) > 0, white)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("block", ["primer", "evolved"])
def test_every_weight_learns(block: str, norm: str):
    model = make(block=block, norm=norm)
    nn.init.normal_(
        model.cross_frame.q.bias
    )  # while all frames are alike to it, keys do not matter
    x, target = random(2, 2, BINS, 9), random(2, 2, BINS, 9, seed=1)
    ((model(x) - target) ** 2).sum().backward()
    still = {name for name, p in model.named_parameters() if not p.grad.abs().max() > 0}
    assert all(p.grad.isfinite().all() for p in model.parameters())
    # a constant added before a LayerNorm is taken away by it
    assert {name for name in still if "squeeze" not in name or norm == "rms"} == set()


@pytest.mark.parametrize("block", ["primer", "evolved"])
def test_the_memory_is_used(block: str):
    """Without the decoders' memory, all else alike, the mask is another one."""
    model = make(block=block).eval()
    x = random(1, 2, BINS, 9)
    with torch.no_grad():
        before = model(x)
        for tokens in model.decoder_tokens:
            hooks = [
                block.register_forward_pre_hook(
                    lambda m, args: (args[0], torch.zeros_like(args[1]))
                )
                for block in tokens.blocks
            ]
            assert hooks
            assert (model(x) - before).abs().max() > 1e-5
            for hook in hooks:
                hook.remove()
        assert torch.equal(model(x), before)


@pytest.mark.parametrize("config", [SMALL, ModelConfig(), ModelConfig(channels=(4,), **{
    key: (1,) for key in ("encoder_blocks", "decoder_blocks")}, ffn_dim=(32,))])  # fmt: skip
def test_stages_hold_every_weight_once(config: ModelConfig):
    with torch.device("meta"):
        model = FrameTransformer(config, 1025)
    stages = [{id(weight) for weight in stage} for stage in model.stages()]
    held = [weight for stage in model.stages() for weight in stage]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    depth = {weight: i for i, stage in enumerate(stages) for weight in stage}
    downwards = [depth[id(next(part.parameters()))] for part in model.encoders]
    upwards = [depth[id(next(part.parameters()))] for part in model.decoders]
    order = [*downwards, *upwards, depth[id(model.head.weight)]]
    assert order == sorted(set(order))  # as the signal passes
    assert order[-1] == len(stages) - 1


def test_the_seed_preset_is_the_sources():
    """What configs/large.yaml says, and what is built of it: 205 million weights within 1 %."""
    config = parse(PretrainConfig, ["pretrain/recipe.yaml", "large.yaml", "data.roots=[x]"], "seed")
    assert (config.stft.n_fft, config.stft.hop, config.rate) == (2048, 1024, 44100)
    assert (config.mask.group, config.next.token, config.data.batch) == (16, 16, 1)
    assert math.ceil(config.data.segment_seconds * 44100 / 1024) + 1 == 1024
    with torch.device("meta"):
        model = FrameTransformer(config.model, config.stft.bins)
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(205e6, rel=0.01)
    assert not config.model.mask_known
    assert model.cross_frame is None
    for level in range(5):
        encoders, decoders = model.encoder_tokens[level].blocks, model.decoder_tokens[level].blocks
        assert [type(block) for block in encoders] == [EvolvedEncoder] * 2
        assert [type(block) for block in decoders] == [EvolvedDecoder] * 2
        for block in (*encoders, *decoders):
            attentions = [m for m in block.modules() if isinstance(m, Attention)]
            assert attentions
            assert all(m.bias is not None and m.rotary is None for m in attentions)
    for decoder, encoder in zip(model.decoders, reversed(model.encoder_tokens[:-1]), strict=True):
        skip = encoder.squeeze[0].in_features + 2  # a level's channels and its two tokens
        assert decoder.conv.in_channels == 2 * skip


def test_dropout_acts_in_training_only():
    model, x = make(dropout=0.5), random(1, 2, BINS, 9)
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))
        model.eval()
        assert torch.equal(model(x), model(x))


def test_a_model_comes_back_from_its_description():
    stft = STFTConfig(128, 64)
    model = make().eval()
    description = describe(SMALL, stft, 8000)
    layout = layout_of(model.state_dict(), "model.safetensors")
    again, transform = skeleton(description, layout, "model.safetensors")
    fill(again, model.state_dict())
    assert (again.config, transform) == (SMALL, stft)
    x = random(1, 2, BINS, 5)
    with torch.no_grad():
        assert torch.equal(again.eval()(x), model(x))
    for values in ({"format": 1}, {"architecture": "other"}):
        with pytest.raises(SeparatorError, match=r"^model\.safetensors: holds") as caught:
            skeleton({**description, **values}, layout, "model.safetensors")
        assert "\n" not in str(caught.value)
    description["model"]["depth"] = 3
    with pytest.raises(SeparatorError, match="depth"):
        skeleton(description, layout, "model.safetensors")


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": (2, 0, 4)}, "channels"),
        ({"channels": (2, 4)}, "encoder_blocks"),
        ({"decoder_blocks": (1, 1)}, "decoder_blocks"),
        ({"encoder_blocks": (1, -1, 1)}, "encoder_blocks"),
        ({"ffn_dim": (64, 32)}, "ffn_dim"),
        ({"ffn_dim": (64, 0, 32)}, "ffn_dim"),
        ({"ffn_dim": (64, 33, 32), "block": "evolved"}, "ffn_dim"),
        ({"ffn_dim": (64, 8, 32), "block": "evolved"}, "ffn_dim"),
        ({"convs": 0}, "convs"),
        ({"heads": 0}, "heads"),
        ({"heads": 3}, "heads"),
        ({"max_distance": 0}, "max_distance"),
        ({"block": "swin"}, "block"),
        ({"norm": "group"}, "norm"),
        ({"position": "absolute"}, "position"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_bad_sizes_name_the_key(values: dict, key: str):
    with pytest.raises(SeparatorError, match=rf"^{key}: ") as caught:
        make(**values)
    assert "\n" not in str(caught.value)


def test_more_levels_than_the_bins_allow():
    many = {key: (1,) * 7 for key in ("channels", "encoder_blocks", "decoder_blocks")}
    with pytest.raises(SeparatorError, match=r"^channels: .*stft\.n_fft"):
        make(**many, ffn_dim=(64,) * 7)


def test_recall_equals_attention_written_out():
    torch.manual_seed(0)
    recall, x = CrossFrameAttention(bins=8, heads=2, key_features=4), random(1, 5, 8, 2) * 0.2
    for linear in (recall.q, recall.k):
        nn.init.normal_(linear.weight)
        nn.init.normal_(linear.bias)
    hidden = torch.zeros(1, 5, 8, 1, dtype=torch.bool)
    hidden[:, 3], hidden[:, 1, 5:] = True, True
    out = recall(torch.where(hidden, 1.0, x), hidden)
    odds = (x.clamp(min=1e-3) / (1 - x.clamp(min=1e-3))).log()
    heard = (~hidden).float()
    token = ((odds + 3.5) * heard).mean(-1)[0]
    token = token / token.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        q, k = (
            (token @ linear.weight[rows].T + linear.bias[rows]) for linear in (recall.q, recall.k)
        )
        for i in range(5):
            logits = [rotated(q[i], i) @ rotated(k[j], j) / 2 for j in range(5)]
            weight = torch.stack(logits).softmax(0)[:, None, None] * heard[0, :, rows]
            expected = (weight * odds[0, :, rows]).sum(0) / weight.sum(0)
            torch.testing.assert_close(out[0, i, rows], expected, rtol=0, atol=0.1)


def test_recall_starts_as_the_mean_of_each_bins_log_odds():
    recall, x = CrossFrameAttention(bins=8, heads=2), random(2, 5, 8, 2)
    expected = torch.logit(x, 1e-3).mean(1, keepdim=True).expand(-1, 5, -1, -1)
    torch.testing.assert_close(recall(x), expected, rtol=1e-4, atol=1e-4)
    nothing = torch.zeros(2, 5, 8, 1, dtype=torch.bool)
    torch.testing.assert_close(recall(x, nothing), expected, rtol=1e-2, atol=1e-2)


def test_frames_are_shown_what_is_recalled_of_them():
    """Without blocks, other frames reach a frame's mask through the attention, and only so."""
    model = make(encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0)).eval()
    x = random(1, 2, BINS, 9)
    other = x.clone()
    other[..., 3] = random(1, 2, BINS, seed=1)
    with torch.no_grad():
        changed = model(other)[..., 8] - model(x)[..., 8]
        assert changed.abs().max() > 1e-6
        recalled = model.cross_frame(model_input(x))
        model.cross_frame.forward = lambda *_: recalled
        torch.testing.assert_close(model(other)[..., 8], model(x)[..., 8], rtol=0, atol=0)


def test_hidden_or_not_frames_are_shown_what_is_recalled():
    """In pretraining too a frame that is heard sees others without any block."""
    model = make(encoder_blocks=(0, 0, 0), decoder_blocks=(0, 0, 0)).eval()
    x = random(1, 2, BINS, 9)
    other = x.clone()
    other[..., 3] = random(1, 2, BINS, seed=1)
    hidden = torch.zeros(1, 1, 1, 9, dtype=torch.bool)
    hidden[..., 5] = True
    with torch.no_grad():
        masks = [model(torch.where(hidden, 1.0, song), hidden)[..., 8] for song in (x, other)]
    assert (masks[0] - masks[1]).abs().max() > 1e-6


def model_input(x: Tensor) -> Tensor:
    """(b c f n) as the parts of the model see it: (b n f c) without the Nyquist bin."""
    return x[:, :, :-1].permute(0, 3, 2, 1)


def test_what_is_hidden_starts_from_its_bins_average_and_the_rest_from_nine_tenths():
    model = make(cross_frame_bands=4).eval()
    nn.init.zeros_(model.head.weight)
    x = random(1, 2, BINS, 40) * 0.1 + 0.01
    hidden = torch.zeros(1, 1, 1, 40, dtype=torch.bool)
    hidden[..., 5:9] = True
    with torch.no_grad():
        mask = model(torch.where(hidden, 1.0, x), hidden)[:, :, :-1]
        plain = model(x)
    heard = x[:, :, :-1][..., ~hidden[0, 0, 0]]
    expected = torch.logit(heard).mean(-1, keepdim=True).sigmoid()
    torch.testing.assert_close(
        mask[..., 5:9], expected.expand_as(mask[..., 5:9]), rtol=1e-2, atol=0
    )
    assert mask[..., ~hidden[0, 0, 0]].min() > 0.89
    torch.testing.assert_close(plain, torch.full_like(plain, 0.9), rtol=0, atol=1e-3)


def test_the_profile_is_a_mask_of_bins_and_channels():
    """A step of it moves a mask as far as its log-odds say, in all frames alike."""
    model = make(cross_frame_bands=0).eval()
    nn.init.zeros_(model.head.weight)
    nn.init.normal_(model.mask_bias, std=0.03)
    with torch.no_grad():
        mask = model(random(2, 2, BINS, 7))
    expected = 1 / (1 + torch.exp(-2.2 - 50 * model.mask_bias.detach().T))
    expected = torch.cat([expected, expected[:, -1:]], dim=1)[None, :, :, None]
    torch.testing.assert_close(mask, expected.expand_as(mask))
    hidden = torch.zeros(2, 1, 1, 7, dtype=torch.bool)
    hidden[..., 2:4] = True
    with torch.no_grad():
        mask = model(random(2, 2, BINS, 7), hidden)  # of what is hidden, where there is such
    there = 1 / (1 + torch.exp(3.5 - 50 * model.mask_bias.detach().T))[None, :, :, None]
    torch.testing.assert_close(mask[:, :, :-1, 2:4], there.expand(2, -1, -1, 2))
    torch.testing.assert_close(
        mask[..., :2], torch.full_like(mask[..., :2], 0.9), rtol=1e-3, atol=0
    )
    model.reset_head()
    assert not model.mask_bias.any()


def test_recall_keeps_its_precision_under_autocast():
    torch.manual_seed(0)
    recall, x = CrossFrameAttention(bins=64, heads=4), random(2, 9, 64, 2) * 0.2
    hidden = torch.zeros(2, 9, 64, 1, dtype=torch.bool)
    hidden[:, 3:5] = True
    with torch.no_grad():
        plain = recall(x, hidden)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(recall(x, hidden), plain)


def test_masks_are_not_rounded_under_autocast():
    model, x = make().eval(), random(1, 2, BINS, 9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mask = model(x)[:, :, :-1]
    assert mask.dtype == torch.float32
    assert len(torch.logit(mask).unique()) > mask.numel() // 4  # bf16 near 2.2: a few dozen


def test_what_stands_in_masked_patches_is_not_seen():
    model = make(cross_frame_bands=2).eval()
    hidden = random(2, 1, BINS - 1, 9, seed=1) < 0.3
    full = F.pad(hidden, (0, 0, 0, 1))
    x = random(2, 2, BINS, 9) * 0.5
    with torch.no_grad():
        answers = [model(torch.where(full, value, x), hidden) for value in (1.0, 0.2)]
    assert torch.equal(*answers)


def test_a_crop_that_is_hidden_whole_is_finite():
    model, x = make(cross_frame_bands=4), torch.ones(1, 2, BINS, 6)
    mask = model(x, torch.ones(1, 1, 1, 6, dtype=torch.bool))
    mask.sum().backward()
    assert mask.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_every_weight_of_recall_learns():
    model, x = make(cross_frame_bands=4), random(2, 2, BINS, 9)
    nn.init.normal_(model.cross_frame.q.bias)
    hidden = random(2, 1, BINS - 1, 9, seed=1) < 0.3
    model(x, hidden).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_bands_that_do_not_divide_the_bins_are_refused():
    with pytest.raises(SeparatorError, match=r"^cross_frame_bands: "):
        make(cross_frame_bands=3)
