"""MaskSpec's model: patches of the spectrogram are words, and the encoder sees no hidden ones.

Masked spectrogram prediction (Chong et al. 2022, arXiv 2204.12768) after the masked autoencoder
(He et al. 2021, arXiv 2111.06377). Its linear output is replaced by a sigmoid mask: hidden cells
hold 1.0, so their mask is what was restored, and the same weights separate when nothing is hidden.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from separator.errors import SeparatorError
from separator.model_config import PatchConfig, Stack
from separator.models.frame_transformer import HEARD
from separator.models.layers import PRIOR, Outputs


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
        """Map tokens (b l d) to (b l d), attending only to those marked in boolean `keys` (b l)."""
        keys = None if keys is None else keys[:, None, None]
        qkv = self.qkv(self.norm1(x))
        q, k, v = rearrange(qkv, "b l (three h d) -> three b h l d", three=3, h=self.heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
        x = x + self.dropout(self.out(rearrange(y, "b h l d -> b l (h d)")))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class PatchTransformer(nn.Module):
    """Magnitudes in, multiplicative mask out.

    Patches do not overlap and hold all audio channels. The last frame is repeated up to a whole
    patch, and what the model says of the repetitions is cut off, so any number of frames will do.

    Args:
        config: the sizes.
        bins: bins of the spectrogram, the Nyquist bin included; `bins - 1` must be divisible by
            `config.patch`.
        audio_channels: channels of the audio.
    """

    def __init__(self, config: PatchConfig, bins: int, audio_channels: int = 2) -> None:
        super().__init__()
        if (bins - 1) % config.patch:
            raise SeparatorError(
                f"patch.patch: {config.patch} does not divide {bins - 1} bins (stft.n_fft / 2)"
            )
        self.config = config
        encoder, decoder = config.encoder, config.decoder
        values = config.patch**2 * audio_channels
        self.embed = nn.Linear(values, encoder.width)
        self.encoder = nn.ModuleList(Block(encoder, config.dropout) for _ in range(encoder.depth))
        self.encoder_norm = nn.LayerNorm(encoder.width)
        self.join = nn.Linear(encoder.width, decoder.width)
        self.unseen = nn.Parameter(torch.empty(decoder.width))
        self.decoder = nn.ModuleList(Block(decoder, config.dropout) for _ in range(decoder.depth))
        self.decoder_norm = nn.LayerNorm(decoder.width)
        self.head = nn.Linear(decoder.width, values)
        self.deep_features, self.fine_channels = decoder.width, audio_channels
        self._initialise()

    def _initialise(self) -> None:
        """Small output projections keep each block near the identity at the start."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
            if name.endswith((".out", ".down")):
                module.weight.data.mul_(0.2)
        nn.init.normal_(self.unseen, std=0.02)
        self.reset_head()

    def reset_head(self) -> None:
        """Start the last layer anew: masks of nearly 0.9, or the mean magnitude of hidden cells."""
        nn.init.trunc_normal_(self.head.weight, std=0.1 * self.head.in_features**-0.5)
        nn.init.zeros_(self.head.bias)

    def stages(self) -> list[list[nn.Parameter]]:
        """Return the weights in the order in which they are passed: patches, blocks, head."""
        parts = [[self.embed], *([block] for block in self.encoder)]
        parts += [[self.encoder_norm, self.join], *([block] for block in self.decoder)]
        parts += [[self.decoder_norm, self.head]]
        stages = [[p for module in part for p in module.parameters()] for part in parts]
        stages[len(self.encoder) + 1].append(self.unseen)
        return stages

    def forward(
        self, x: Tensor, hidden: Tensor | None = None, features: bool = False
    ) -> Tensor | Outputs:
        """Map compressed, normalised magnitudes to a mask for them.

        Args:
            x: (b c f n) in [0, 1], any number of frames.
            hidden: boolean (b 1 1 n) or (b 1 f n), in pretraining: cells filled with ones, whose
                mask is the magnitude restored. Patches hidden whole are kept from the encoder;
                hidden cells of the others count as the mean magnitude of music.
            features: also return what other objectives' heads read: `deep` is the mean over a
                frame's patches of the decoder's tokens, `fine` is the mask before the sigmoid.

        Returns:
            (b c f n) in [0, 1]; the Nyquist bin repeats the one below it.
        """
        batch, _, bins, frames = x.shape
        if hidden is None:
            hidden = x.new_zeros(1, 1, 1, 1, dtype=torch.bool)
        hidden = hidden[:, :, : bins - 1].expand(batch, 1, bins - 1, frames)
        # Log-odds are what comes out, and on them quiet bins differ as much as loud ones.
        odds = torch.where(hidden, 0.0, torch.logit(x[:, :, :-1], 1e-3) - PRIOR)
        grid = (bins - 1) // self.config.patch, -(-frames // self.config.patch)
        tokens = self._tokens(
            patches(odds, self.config.patch), patches(hidden, self.config.patch).all(-1), grid
        )
        fine = unpatch(self.head(tokens).float(), grid, self.config.patch)[..., :frames]
        fine = rearrange(fine + torch.where(hidden, PRIOR, HEARD), "b c f n -> b n f c")
        mask = rearrange(fine.sigmoid(), "b n f c -> b c f n")
        mask = F.pad(mask, (0, 0, 0, 1), mode="replicate")
        if not features:
            return mask
        deep = rearrange(tokens, "b (k m) d -> b m k d", k=grid[0]).mean(2)
        deep = deep.repeat_interleave(self.config.patch, dim=1)[:, :frames]
        return Outputs(mask, deep, fine, tokens)

    def _tokens(self, values: Tensor, hidden: Tensor, grid: tuple[int, int]) -> Tensor:
        """Encode the visible of the patches (b l v), decode all of them: (b l d)."""
        order, restore = visible_first(hidden)
        count = (~hidden).sum(1, keepdim=True).clamp(min=1)  # of nothing, attention is no number
        least, most = torch.stack(count.aminmax()).tolist()
        keys = torch.arange(most, device=count.device) < count if least < most else None
        x = self.embed(values) + positions(grid, self.embed.out_features, values.device)
        x = _take(x, order[:, :most])
        for block in self.encoder:
            x = block(x, keys)
        x = _take(self.join(self.encoder_norm(x)), restore.clamp(max=most - 1))
        x = torch.where(hidden[..., None], self.unseen, x)
        x = x + positions(grid, self.join.out_features, values.device)
        for block in self.decoder:
            x = block(x)
        return self.decoder_norm(x)


def patches(x: Tensor, size: int) -> Tensor:
    """Cut (b c f n) into squares, (b l v): bands from below, and the patches of a band in time.

    The last frame is repeated up to a whole patch.
    """
    frames = torch.arange(-(-x.shape[-1] // size) * size, device=x.device)
    x = x[..., frames.clamp(max=x.shape[-1] - 1)]
    return rearrange(x, "b c (k p) (m q) -> b (k m) (c p q)", p=size, q=size)


def unpatch(values: Tensor, grid: tuple[int, int], size: int) -> Tensor:
    """Lay patches (b l v) out again as (b c f n), with the frames that were added."""
    bands, groups = grid
    return rearrange(
        values, "b (k m) (c p q) -> b c (k p) (m q)", k=bands, m=groups, p=size, q=size
    )


def visible_first(hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Order that puts what is not hidden first, and the one that puts all back: both (b l)."""
    order = hidden.to(torch.uint8).argsort(dim=1, stable=True)
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
