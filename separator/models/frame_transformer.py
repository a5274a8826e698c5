"""The frame transformer: a U-Net over frequency in which each frame of the spectrogram is a token.

Every level below the first halves the bins; the number of frames stays, unless `time_stride` is
above 1. Nx1 convolutions work within a frame. Transformer blocks work across frames: a linear layer
maps a frame's channels to one, its bins are the features of a token, and the block's output is
appended as one more channel. At full resolution, cross-frame attention adds, as extra input
channels, a weighted average of each bin over the other frames.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.models import layers
from separator.models.base import MEAN_MAGNITUDE_LOGIT, VISIBLE_LOGIT, Architecture, Outputs
from separator.models.blocks import BLOCKS, BlockSizes, Tokens
from separator.models.config import ModelConfig
from separator.stems import StemSet

HALFWAY_LOGIT = (VISIBLE_LOGIT + MEAN_MAGNITUDE_LOGIT) / 2
MASK_BIAS_SCALE = 50.0  # a step of the optimizer moves the mask bias by so many learning rates


def block_sizes(config: ModelConfig, depth: int, bins: int) -> BlockSizes:
    """Return the sizes of the transformer blocks at one depth of the U-Net.

    Args:
        config: sizes of the model.
        depth: from 0, the full resolution.
        bins: bins at full resolution.

    Raises:
        SettingError: `ffn_dim` does not fit the depth.
    """
    features, ffn_dim = bins >> depth, config.ffn_dim[depth]
    heads = max(1, min(config.heads, features // 16))
    blocks = config.encoder_blocks[depth] + config.decoder_blocks[depth]
    least = features // 2 if config.block == "evolved" else 1
    if blocks and (ffn_dim < least or (config.block == "evolved" and ffn_dim % 2)):
        even = "an even number of " if config.block == "evolved" else ""
        raise config.invalid("ffn_dim", f"{ffn_dim} at depth {depth}; give {even}at least {least}")
    kinds = config.norm, config.position, config.max_distance, config.dropout
    return BlockSizes(features, ffn_dim, heads, *kinds)


class FrameTransformer(Architecture):
    """Map magnitudes to a multiplicative mask.

    Args:
        config: sizes of the model.
        bins: bins of the spectrogram, the Nyquist bin included; `bins - 1` must be divisible by
            2 to the power of the number of depths.
        audio_channels: channels of the audio.

    Attributes:
        bottleneck_features: features of each frame at the lowest resolution.
        pre_head_channels: channels before the last layer.
    """

    HEAD = ("head.", "mask_bias")

    def __init__(self, config: ModelConfig, bins: int, audio_channels: int = 2) -> None:
        super().__init__()
        depth, inner = len(config.channels), bins - 1
        if inner % (1 << depth):  # the lowest resolution has two bins or more
            raise config.invalid(
                "channels",
                f"{inner} bins (stft.n_fft / 2) are not divisible by 2**{depth} ({depth} "
                "depths); use fewer depths or a larger stft.n_fft",
            )
        if config.cross_frame_bands and inner % config.cross_frame_bands:
            raise config.invalid(
                "cross_frame_bands",
                f"{config.cross_frame_bands} bands do not divide {inner} bins; use 0, 1, 2 or 4",
            )
        self.config = config
        # Music falls by about 6 dB an octave; on compressed magnitudes this evens out half of it.
        tilt = torch.arange(1, inner + 1, device="cpu").float() ** 0.25
        tilt = (tilt / tilt.mean())[:, None].repeat(1, audio_channels)  # broadcasting is slower
        self.register_buffer("tilt", tilt, persistent=False)
        # the mask depends little on loudness
        self.input_norm = layers.RMSNorm(audio_channels, dims=2)
        self.encoders, self.encoder_tokens = nn.ModuleList(), nn.ModuleList()
        self.decoders, self.decoder_tokens = nn.ModuleList(), nn.ModuleList()
        self.upsamples = nn.ModuleList()
        self.cross_frame = self.mask_detector = None
        if config.cross_frame_bands:
            self.cross_frame = layers.CrossFrameAttention(inner, config.cross_frame_bands)
            self.mask_detector = None if config.mask_known else layers.MaskedFrameDetector(inner)
        blocks = zip(config.encoder_blocks, config.decoder_blocks, strict=True)
        norms = [config.norm if any(pair) else None for pair in blocks]
        width = audio_channels * (2 if config.cross_frame_bands else 1)
        skips = self._add_encoders(width, inner, norms)
        width = self._add_decoders(skips, inner, norms)
        self.bottleneck_features = (inner >> (depth - 1)) * skips[-1]
        self.pre_head_channels = width
        self.masks = StemSet(config.stems).masks
        self.head = layers.BinLinear(width, self.masks * audio_channels)
        # The time-invariant part of the mask is learned first. Without this bias the tokens carry
        # it, grow, and drown the time-varying part.
        self.mask_bias = nn.Parameter(torch.zeros(inner, self.masks * audio_channels))
        self.mask_bias.no_weight_decay = True
        visible = config.mask_known or config.cross_frame_bands
        self.start = VISIBLE_LOGIT if visible else HALFWAY_LOGIT
        self.initialise_linears(skip=("cross_frame.", "mask_detector."))
        self.reset_head()
        nn.init.zeros_(self.mask_bias)

    def _add_encoders(self, width: int, bins: int, norms: list[str | None]) -> list[int]:
        """Build the encoders for inputs of `width` channels; return the channels of each skip."""
        config, skips = self.config, []
        for depth, channels in enumerate(config.channels):
            sizes = block_sizes(config, depth, bins)
            self.encoders.append(_frame_encoder(width, channels, config, norms[depth], depth == 0))
            blocks = [BLOCKS[config.block][0](sizes) for _ in range(config.encoder_blocks[depth])]
            self.encoder_tokens.append(Tokens(channels, blocks, 0, config.recompute))
            width = channels + len(blocks)
            skips.append(width)
        return skips

    def _add_decoders(self, skips: list[int], bins: int, norms: list[str | None]) -> int:
        """Build the decoders; return the channels of the last one's output."""
        config, width = self.config, skips[-1]
        for depth in range(len(skips) - 1, -1, -1):
            sizes = block_sizes(config, depth, bins)
            blocks = [BLOCKS[config.block][1](sizes) for _ in range(config.decoder_blocks[depth])]
            self.decoder_tokens.append(Tokens(width, blocks, skips[depth], config.recompute))
            width += len(blocks)
            if depth:
                joined = skips[depth - 1]
                self.upsamples.append(layers.FrameUpsample(width, joined, config.time_stride))
                if config.skips == "concatenate":
                    joined *= 2
                width = config.channels[depth - 1]
                self.decoders.append(layers.FrameConv(joined, width, norms[depth - 1]))
        return width

    def reset_head(self) -> None:
        """Initialise the last layer: visible bins start from a mask of about 0.9."""
        super().reset_head()
        # A start far from the task's answer saturates the sigmoid at the other end, where there is
        # no gradient. A new model that does not know the masked frames starts halfway: from 0.9 it
        # first learned to answer 0, and its error after 50 steps was ten times as large.
        nn.init.constant_(self.mask_bias, (VISIBLE_LOGIT - self.start) / MASK_BIAS_SCALE)

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the parameters in the order of the forward pass: input, encoders, …, head."""
        parts = [
            *zip(self.encoders, self.encoder_tokens, strict=True),
            *zip(self.decoder_tokens, self.upsamples, self.decoders, strict=False),
            (self.decoder_tokens[-1], self.head),
        ]
        weights = [[p for module in part for p in module.parameters()] for part in parts]
        weights[-1].append(self.mask_bias)
        for module in (self.cross_frame, self.mask_detector):
            if module is not None:
                weights[0] += module.parameters()
        return weights

    def features(self, x: Tensor, masked: Tensor | None = None) -> Outputs:
        """Compute the mask and the features on the way to it.

        Args:
            x: (b c f n) in [0, 1], any number of frames.
            masked: boolean (b 1 1 n) or (b 1 f n), in pretraining: masked bins, which hold ones.
                The network sees an estimate of them from the other frames; the mask multiplies
                the ones. Ignored without `config.mask_known`.

        Returns:
            The mask (b c f n) in [0, 1], whose Nyquist bin repeats the one below it, and features.
        """
        x = rearrange(x[:, :, :-1], "b c f n -> b n f c").contiguous()
        if not self.config.mask_known:
            masked = None
        if masked is not None:
            masked = masked[:, :, : x.shape[2]].expand(-1, 1, x.shape[2], -1)
            masked = rearrange(masked, "b c f n -> b n f c")
        detected = None if self.mask_detector is None else self.mask_detector(x)
        estimate = None
        if self.cross_frame is not None:
            visible = None if detected is None else F.logsigmoid(-detected)
            estimate = self.cross_frame(x, masked, visible)
        x, start = self._fill(x, masked, estimate)
        # masks of detected frames start from the estimate; where each stem has one, they do not
        if detected is not None and self.masks == 1:
            start = start + detected.sigmoid()[:, :, None, None] * (estimate - VISIBLE_LOGIT)
        inputs = [x] if estimate is None else [x, estimate.sigmoid()]
        inputs = [self.input_norm(part * self.tilt) for part in inputs]
        channels = [channel for part in inputs for channel in part.unbind(-1)]
        # `cat` would copy runs of two numbers and take twice as long
        pre_head, bottleneck = self._pad_to_stride(torch.stack(channels, dim=-1))
        mask = self.as_masks(self.head(pre_head).float() + start)
        return Outputs(mask, self._per_frame(bottleneck, x.shape[1]), pre_head, bottleneck)

    def _fill(
        self, x: Tensor, masked: Tensor | None, estimate: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Fill masked bins of (b n f c); return the result and the logits from which masks start.

        The bias is for the bins of the task: where some are masked, for these alone.
        """
        bias = MASK_BIAS_SCALE * self.mask_bias
        if masked is None:
            return x, self.start + bias
        start = x.new_tensor(MEAN_MAGNITUDE_LOGIT) if estimate is None else estimate
        # Detached: the estimate's own input channels have the gradient already.
        x = torch.where(masked, start.detach().sigmoid(), x)
        return x, torch.where(masked, start + bias, VISIBLE_LOGIT)

    def _pad_to_stride(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run the U-Net on (b n f c), the last frame repeated until time strides divide n."""
        frames = x.shape[1]
        missing = -frames % self.config.time_stride ** (len(self.config.channels) - 1)
        if missing:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        pre_head, bottleneck = self._unet(x)
        return pre_head[:, :frames], bottleneck

    def _per_frame(self, bottleneck: Tensor, frames: int) -> Tensor:
        """Repeat the bottleneck's features over time strides: (b m f c) to (b n d)."""
        stride = self.config.time_stride ** (len(self.config.channels) - 1)
        features = bottleneck.flatten(2)
        return features if stride == 1 else features.repeat_interleave(stride, dim=1)[:, :frames]

    def _unet(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b n f c) to the features before the head and to those of the lowest resolution."""
        skips = []
        for encoder, tokens in zip(self.encoders, self.encoder_tokens, strict=True):
            x = tokens(encoder(x))
            skips.append(x)
        bottleneck = x
        for tokens, upsample, decoder in zip(
            self.decoder_tokens, self.upsamples, self.decoders, strict=False
        ):
            x = upsample(tokens(x, skips.pop()))
            if self.config.skips == "concatenate":
                x = decoder(torch.cat([x, skips[-1]], dim=-1))
            else:
                x = decoder(x + skips[-1])
        return self.decoder_tokens[-1](x, skips.pop()), bottleneck


def _frame_encoder(
    inputs: int, outputs: int, config: ModelConfig, norm: str | None, first: bool
) -> nn.Module:
    """Build the N×1 convolutions of a depth; at all depths but 0 the first one halves the bins.

    With a time stride, that one also joins as many frames to one.
    """
    if first:
        return layers.FrameConv(inputs, outputs, norm)
    convs = [layers.FrameConv(inputs, outputs, norm, stride=2, time_stride=config.time_stride)]
    convs += [layers.FrameConv(outputs, outputs, norm) for _ in range(config.convs - 1)]
    return nn.Sequential(*convs)
