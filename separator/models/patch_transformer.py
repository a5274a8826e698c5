"""The patch transformer: a masked autoencoder whose encoder sees only the visible patches.

Masked spectrogram prediction (MaskSpec, Chong et al. 2022, arXiv 2204.12768) after the masked
autoencoder (He et al. 2021, arXiv 2111.06377). A sigmoid mask replaces the linear output: masked
bins hold 1.0, so their mask is the restored magnitude, and the same weights separate a mixture.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.models.base import MEAN_MAGNITUDE_LOGIT, VISIBLE_LOGIT, Architecture, Outputs
from separator.models.config import PatchConfig, Stack
from separator.stems import StemSet


class Block(nn.Module):
    """Attention over patches and a feed-forward with GELU, each after a norm, added to its input.

    nn.TransformerEncoderLayer computes the same, but without gradients it takes a path that holds
    the weights of all pairs of patches: half as fast, and 1 GB for 4000 patches.
    """

    def __init__(self, sizes: Stack, dropout: float) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.norm1, self.norm2 = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
        self.qkv = nn.Linear(sizes.width, 3 * sizes.width)
        self.out = nn.Linear(sizes.width, sizes.width)
        self.up = nn.Linear(sizes.width, sizes.ffn_dim)
        self.down = nn.Linear(sizes.ffn_dim, sizes.width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """Return (b l d) from tokens x (b l d), attending to those in the boolean keys (b l)."""
        keys = None if keys is None else keys[:, None, None]
        qkv = self.qkv(self.norm1(x))
        q, k, v = rearrange(qkv, "b l (three h d) -> three b h l d", three=3, h=self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        x = x + self.dropout(self.out(rearrange(y, "b h l d -> b l (h d)")))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class PatchTransformer(Architecture):
    """Map magnitudes to a multiplicative mask.

    Patches do not overlap and hold all audio channels. For any number of frames, the last one is
    repeated up to a whole patch and the mask is cut to the input's length.

    Args:
        config: sizes of the model.
        bins: bins of the spectrogram, the Nyquist bin included; `bins - 1` must be divisible by
            `config.patch`.
        audio_channels: channels of the audio.
    """

    HEAD = ("head.",)

    def __init__(self, config: PatchConfig, bins: int, audio_channels: int = 2) -> None:
        super().__init__()
        if (bins - 1) % config.patch:
            raise config.invalid(
                "patch", f"{config.patch} does not divide {bins - 1} bins (stft.n_fft / 2)"
            )
        self.config = config
        encoder, decoder = config.encoder, config.decoder
        values = config.patch**2 * audio_channels
        self.masks = StemSet(config.stems).masks
        self.embed = nn.Linear(values, encoder.width)
        self.encoder = nn.ModuleList(Block(encoder, config.dropout) for _ in range(encoder.depth))
        self.encoder_norm = nn.LayerNorm(encoder.width)
        self.join = nn.Linear(encoder.width, decoder.width)
        self.unseen = nn.Parameter(torch.empty(decoder.width))
        self.decoder = nn.ModuleList(Block(decoder, config.dropout) for _ in range(decoder.depth))
        self.decoder_norm = nn.LayerNorm(decoder.width)
        self.head = nn.Linear(decoder.width, self.masks * values)
        self.bottleneck_features, self.pre_head_channels = decoder.width, audio_channels
        self.initialise_linears()
        nn.init.normal_(self.unseen, std=0.02)
        self.reset_head()  # masks of about 0.9, the mean magnitude where masked

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the parameters in the order of the forward pass: patches, blocks, head."""
        parts = [[self.embed], *([block] for block in self.encoder)]
        parts += [[self.encoder_norm, self.join], *([block] for block in self.decoder)]
        parts += [[self.decoder_norm, self.head]]
        stages = [[p for module in part for p in module.parameters()] for part in parts]
        stages[len(self.encoder) + 1].append(self.unseen)
        return stages

    def features(self, x: Tensor, masked: Tensor | None = None) -> Outputs:
        """Compute the mask and the features on the way to it.

        Args:
            x: (b c f n) in [0, 1], any number of frames.
            masked: boolean (b 1 1 n) or (b 1 f n), in pretraining: masked bins, which hold ones and
                whose mask is the restored magnitude. Patches that are masked whole do not enter
                the encoder; masked bins of other patches count as the mean magnitude of music.

        Returns:
            The mask (b c f n) in [0, 1], whose Nyquist bin repeats the one below it, and features:
            `bottleneck` is the mean over a frame's patches of the decoder's tokens, `pre_head` the
            mask before the sigmoid.
        """
        batch, _, bins, frames = x.shape
        if masked is None:
            masked = x.new_zeros(1, 1, 1, 1, dtype=torch.bool)
        masked = masked[:, :, : bins - 1].expand(batch, 1, bins - 1, frames)
        # The output is in logits, and there quiet bins differ as much as loud ones.
        logits = torch.where(masked, 0.0, torch.logit(x[:, :, :-1], 1e-3) - MEAN_MAGNITUDE_LOGIT)
        size = self.config.patch
        grid = (bins - 1) // size, -(-frames // size)
        tokens = self._tokens(patches(logits, size), patches(masked, size).all(-1), grid)
        start = torch.where(masked, MEAN_MAGNITUDE_LOGIT, VISIBLE_LOGIT)
        logits = unpatch(self.head(tokens).float(), grid, size)[..., :frames] + start
        pre_head = rearrange(logits, "b c f n -> b n f c")
        bottleneck = rearrange(tokens, "b (k m) d -> b m k d", k=grid[0]).mean(2)
        bottleneck = bottleneck.repeat_interleave(size, dim=1)[:, :frames]
        return Outputs(self.as_masks(pre_head), bottleneck, pre_head, tokens)

    def _tokens(self, values: Tensor, masked: Tensor, grid: tuple[int, int]) -> Tensor:
        """Encode the visible of the patches (b l v), decode all of them: (b l d)."""
        order, restore = visible_first(masked)
        count = (~masked).sum(1, keepdim=True).clamp(min=1)  # softmax over an empty set is NaN
        least, most = torch.stack(count.aminmax()).tolist()
        keys = torch.arange(most, device=count.device) < count if least < most else None
        x = self.embed(values) + positions(grid, self.embed.out_features, values.device)
        x = _take(x, order[:, :most])
        for block in self.encoder:
            x = block(x, keys)
        x = _take(self.join(self.encoder_norm(x)), restore.clamp(max=most - 1))
        x = torch.where(masked[..., None], self.unseen, x)
        x = x + positions(grid, self.join.out_features, values.device)
        for block in self.decoder:
            x = block(x)
        return self.decoder_norm(x)


def patches(x: Tensor, size: int) -> Tensor:
    """Return x (b c f n) in squares of a side of `size`: (b l v), band by band, each in time.

    The last frame is repeated up to a whole patch.
    """
    frames = torch.arange(-(-x.shape[-1] // size) * size, device=x.device)
    x = x[..., frames.clamp(max=x.shape[-1] - 1)]
    return rearrange(x, "b c (k p) (m q) -> b (k m) (c p q)", p=size, q=size)


def unpatch(values: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Return the spectrogram (b c f n) of patches, with the frames that were added.

    Args:
        values: (b l v) of `patches`.
        grid: bands and patches in time.
        size: bins and frames of a patch.
    """
    bands, groups = grid
    return rearrange(
        values, "b (k m) (c p q) -> b c (k p) (m q)", k=bands, m=groups, p=size, q=size
    )


def visible_first(masked: Tensor) -> tuple[Tensor, Tensor]:
    """Return the order that puts patches not masked (b l) first, and its inverse: both (b l)."""
    order = masked.to(torch.uint8).argsort(dim=1, stable=True)
    return order, order.argsort(dim=1)


def positions(grid: tuple[int, int], features: int, device: torch.device) -> Tensor:
    """Sinusoids (Vaswani et al. 2017, arXiv 1706.03762) of a patch's band and of its time.

    Args:
        grid: bands and patches in time.
        features: of a token, a multiple of 4: half tell the band, half the time.
        device: where to.

    Returns:
        (l d), in the order of `patches`.
    """
    quarter = features // 4
    frequency = 10000.0 ** -(torch.arange(quarter, device=device) / quarter)
    bands, groups = (torch.arange(size, device=device)[:, None] * frequency for size in grid)
    bands = bands.repeat_interleave(grid[1], dim=0)
    angles = torch.cat([bands, groups.repeat(grid[0], 1)], dim=1)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _take(x: Tensor, at: Tensor) -> Tensor:
    """Take tokens of (b l d) at the places (b m): (b m d)."""
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1]))
