"""The frame transformer U-Net: frequency is halved at each level, time never is by default.

A frame of the spectrogram is a token. Frame encoders (Nx1 convolutions) see one frame at a time;
between frames passes what the transformer blocks at each level say, which read the frame's bins
through a linear bottleneck to one channel and add their result as one more channel, and, at full
resolution, what each frame recalls of its own bins in the others.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.errors import SeparatorError
from separator.model_config import ModelConfig
from separator.models.blocks import BLOCKS, BlockSizes, Tokens
from separator.models.layers import (
    PRIOR,
    CrossFrameAttention,
    FrameConv,
    FrameUpsample,
    Outputs,
    RMSNorm,
    WhiteFrames,
)

HEARD = 2.2  # log-odds of 0.9, from which masks start: most of a mixture is accompaniment
UNTOLD = (HEARD + PRIOR) / 2  # from where both answers, to keep and to restore, are in reach
PACE = 50.0  # a step of the optimizer moves the profile by so many learning rates


def block_sizes(config: ModelConfig, level: int, bins: int) -> BlockSizes:
    """Return the sizes of the blocks of one level of a model for `bins` bins.

    Raises:
        SeparatorError: `model.ffn_dim` does not fit the level.
    """
    features, ffn_dim = bins >> level, config.ffn_dim[level]
    heads = max(1, min(config.heads, features // 16))
    blocks = config.encoder_blocks[level] + config.decoder_blocks[level]
    least = features // 2 if config.block == "evolved" else 1
    if blocks and (ffn_dim < least or (config.block == "evolved" and ffn_dim % 2)):
        even = "an even number of " if config.block == "evolved" else ""
        raise SeparatorError(
            f"model.ffn_dim: {ffn_dim} on level {level}; give {even}at least {least}"
        )
    return BlockSizes(
        features,
        ffn_dim,
        heads,
        config.norm,
        config.position,
        config.max_distance,
        config.dropout,
    )


class FrameTransformer(nn.Module):
    """Magnitudes in, multiplicative mask out.

    Args:
        config: the sizes.
        bins: bins of the spectrogram, the Nyquist bin included; `bins - 1` must be divisible by
            2^levels.
        audio_channels: channels of the audio.
    """

    def __init__(self, config: ModelConfig, bins: int, audio_channels: int = 2) -> None:
        super().__init__()
        levels, inner = len(config.channels), bins - 1
        if inner % (1 << levels):  # the deepest level has two bins or more
            raise SeparatorError(
                f"model.channels: {levels} levels halve {inner} bins {levels - 1} times, "
                "which does not go; use fewer levels or a larger stft.n_fft"
            )
        if config.cross_frame_bands and inner % config.cross_frame_bands:
            raise SeparatorError(
                f"model.cross_frame_bands: {config.cross_frame_bands} bands do not divide "
                f"{inner} bins; use 0, 1, 2 or 4"
            )
        self.config = config
        encoder_block, decoder_block = BLOCKS[config.block]
        # Music falls by some 6 dB an octave; on compressed magnitudes half of that is evened out.
        tilt = torch.arange(1, inner + 1, device="cpu").float() ** 0.25
        self.register_buffer("tilt", tilt / tilt.mean(), persistent=False)
        self.level = RMSNorm(audio_channels, dims=2)  # a frame's loudness says little of its mask
        self.encoders, self.encoder_tokens = nn.ModuleList(), nn.ModuleList()
        self.decoders, self.decoder_tokens = nn.ModuleList(), nn.ModuleList()
        self.upsamples = nn.ModuleList()
        self.cross_frame = (
            CrossFrameAttention(inner, config.cross_frame_bands)
            if config.cross_frame_bands
            else None
        )
        self.white = WhiteFrames(inner) if config.cross_frame_bands and not config.told else None
        blocks = zip(config.encoder_blocks, config.decoder_blocks, strict=True)
        norms = [config.norm if any(pair) else None for pair in blocks]
        width, skips = audio_channels * (2 if config.cross_frame_bands else 1), []
        for level, channels in enumerate(config.channels):
            sizes, blocks = block_sizes(config, level, inner), config.encoder_blocks[level]
            self.encoders.append(_frame_encoder(width, channels, config, norms[level], level == 0))
            made = [encoder_block(sizes) for _ in range(blocks)]
            self.encoder_tokens.append(Tokens(channels, made, 0, config.recompute))
            width = channels + blocks
            skips.append(width)
        for level in range(levels - 1, -1, -1):
            sizes, blocks = block_sizes(config, level, inner), config.decoder_blocks[level]
            made = [decoder_block(sizes) for _ in range(blocks)]
            self.decoder_tokens.append(Tokens(width, made, skips[level], config.recompute))
            width += blocks
            if level:
                channels = config.channels[level - 1]
                joined = skips[level - 1]
                self.upsamples.append(FrameUpsample(width, joined, config.time_stride))
                if config.skips == "concatenate":
                    joined *= 2
                self.decoders.append(FrameConv(joined, channels, norms[level - 1]))
                width = channels
        self.deep_features = (inner >> (levels - 1)) * skips[-1]
        self.fine_channels = width
        self.head = nn.Linear(width, audio_channels)
        # What a mask is in all frames alike is learned first. Without a place of its own it is
        # carried by the blocks' tokens, which grow until what changes from frame to frame is lost.
        self.profile = nn.Parameter(torch.zeros(inner, audio_channels))
        self.profile.no_weight_decay = True  # a bias, of two axes
        self.start = HEARD if config.told or config.cross_frame_bands else UNTOLD
        self._initialise()

    def _initialise(self) -> None:
        """Small output projections keep each block near the identity at the start."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith(("cross_frame.", "white.")):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            if name.endswith((".out", ".down")):
                module.weight.data.mul_(0.2)
        self.reset_head()
        nn.init.zeros_(self.profile)

    def reset_head(self) -> None:
        """Start the last layer anew: masks of nearly 0.9, or what is recalled of hidden cells.

        A start far from what the task asks for drives the sigmoid into saturation at the other
        end, where no gradient brings it back. New models that are not told start halfway: from 0.9
        they first learned to answer 0, and were ten times as far off after 50 steps.
        """
        nn.init.trunc_normal_(self.head.weight, std=0.1 * self.head.in_features**-0.5)
        nn.init.zeros_(self.head.bias)
        nn.init.constant_(self.profile, (HEARD - self.start) / PACE)

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the weights in the order in which they are passed: input, encoders, …, head."""
        parts = [
            *zip(self.encoders, self.encoder_tokens, strict=True),
            *zip(self.decoder_tokens, self.upsamples, self.decoders, strict=False),
            (self.decoder_tokens[-1], self.head),
        ]
        weights = [[p for module in part for p in module.parameters()] for part in parts]
        weights[-1].append(self.profile)
        if self.cross_frame is not None:
            weights[0] += self.cross_frame.parameters()
        if self.white is not None:
            weights[0] += self.white.parameters()
        return weights

    def forward(
        self, x: Tensor, hidden: Tensor | None = None, features: bool = False
    ) -> Tensor | Outputs:
        """Map compressed, normalised magnitudes to a mask for them.

        Args:
            x: (b c f n) in [0, 1], any number of frames.
            hidden: boolean (b 1 1 n) or (b 1 f n), in pretraining: cells filled with ones, of
                which nothing is heard. The network sees an estimate of them from other frames and
                corrects it; the mask still multiplies the ones. Not looked at without
                `config.told`.
            features: also return what other objectives' heads read.

        Returns:
            (b c f n) in [0, 1]; the Nyquist bin repeats the one below it.
        """
        x = rearrange(x[:, :, :-1], "b c f n -> b n f c").contiguous()
        if not self.config.told:
            hidden = None
        if hidden is not None:
            hidden = hidden[:, :, : x.shape[2]].expand(-1, 1, x.shape[2], -1)
            hidden = rearrange(hidden, "b c f n -> b n f c")
        white = self.white(x) if self.white is not None else None
        recalled = None
        if self.cross_frame is not None:
            recalled = self.cross_frame(x, hidden, None if white is None else F.logsigmoid(-white))
        x, start = self._fill(x, hidden, recalled)
        if white is not None:  # found, not told: their masks start from what is recalled
            start = start + white.sigmoid()[:, :, None, None] * (recalled - HEARD)
        shown = [x] if recalled is None else [x, recalled.sigmoid()]
        shown = [self.level(part * self.tilt[:, None]) for part in shown]
        fine, deep = self._whole_strides(torch.cat(shown, dim=-1))
        mask = (self.head(fine).float() + start).sigmoid()
        # bins innermost, as the transform leaves them: what multiplies the two runs straight on
        mask = F.pad(rearrange(mask, "b n f c -> b c n f"), (0, 1, 0, 0), mode="replicate").mT
        return Outputs(mask, self._each_frame(deep, len(fine[0])), fine, deep) if features else mask

    def _fill(
        self, x: Tensor, hidden: Tensor | None, recalled: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Fill hidden cells of (b n f c); returns it and the log-odds from which masks start.

        The profile is of the cells that are asked for: where some are hidden, of these alone.
        """
        profile = PACE * self.profile
        if hidden is None:
            return x, self.start + profile
        start = x.new_tensor(PRIOR) if recalled is None else recalled
        # detached: these are the recalled channels beside them, which have the gradient already
        x = torch.where(hidden, start.detach().sigmoid(), x)
        return x, torch.where(hidden, start + profile, HEARD)

    def _whole_strides(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the U-Net on (b n f c), the last frame repeated until time strides divide n."""
        frames = x.shape[1]
        missing = -frames % self.config.time_stride ** (len(self.config.channels) - 1)
        if missing:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        fine, deep = self._unet(x)
        return fine[:, :frames], deep

    def _each_frame(self, deep: Tensor, frames: int) -> Tensor:
        """Give each of the n frames its deepest features: (b m f c) to (b n d)."""
        stride = self.config.time_stride ** (len(self.config.channels) - 1)
        deep = deep.flatten(2)
        return deep if stride == 1 else deep.repeat_interleave(stride, dim=1)[:, :frames]

    def _unet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b n f c) to the features before the head and to those of the deepest level."""
        skips = []
        for encoder, tokens in zip(self.encoders, self.encoder_tokens, strict=True):
            x = tokens(encoder(x))
            skips.append(x)
        deep = x
        for tokens, upsample, decoder in zip(
            self.decoder_tokens, self.upsamples, self.decoders, strict=False
        ):
            x = upsample(tokens(x, skips.pop()))
            if self.config.skips == "concatenate":
                x = decoder(torch.cat([x, skips[-1]], dim=-1))
            else:
                x = decoder(x + skips[-1])
        return self.decoder_tokens[-1](x, skips.pop()), deep


def _frame_encoder(
    inputs: int, outputs: int, config: ModelConfig, norm: str | None, first: bool
) -> nn.Module:
    """Nx1 convolutions of which the first halves the bins, except at full resolution.

    With a time stride the first one also joins so many frames to one.
    """
    if first:
        return FrameConv(inputs, outputs, norm)
    convs = [FrameConv(inputs, outputs, norm, stride=2, time_stride=config.time_stride)]
    convs += [FrameConv(outputs, outputs, norm) for _ in range(config.convs - 1)]
    return nn.Sequential(*convs)
