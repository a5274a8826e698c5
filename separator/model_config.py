"""Which model a run trains, and the sizes of each."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from separator.errors import SeparatorError
from separator.ranges import require

MAX_BLOCKS = 128
BLOCK_NAMES = ("primer", "evolved")  # the keys of `separator.models.blocks.BLOCKS`
NORM_NAMES = ("rms", "layer", "batch")  # the keys of `separator.models.layers.NORMS`


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the frame transformer U-Net. Per-level lists start at the full resolution.

    Attributes:
        channels: feature maps of each level's frame encoder; their number is the number of levels.
        encoder_blocks: transformer encoders after each level's frame encoder.
        convs: Nx1 convolutions in each frame encoder below level 0.
        decoder_blocks: transformer decoders before each level's frame decoder; level 0's come
            before the head.
        ffn_dim: width inside the feed-forwards of each level.
        heads: attention heads at most; a head is at least 16 bins wide.
        block: transformer block, "primer" or "evolved".
        norm: normalisation in the transformer blocks, and after the convolutions of the levels that
            have any: "rms", "layer" or "batch".
        position: relative positions, "rotary" or "relative" (Music Transformer).
        max_distance: frames after which "relative" no longer tells distances apart.
        dropout: share of features dropped inside the transformer blocks.
        cross_frame_bands: frequency bands of an attention over frames at full resolution, which
            adds, as extra input channels, a weighted average of each bin over the other frames,
            and fills masked bins with it (0: without; masked bins are filled with a constant).
        mask_known: in pretraining the network is given the positions of masked bins, and their
            mask starts from an estimate; otherwise its only input is the corrupted spectrogram,
            and it has to detect the frames that were filled with ones.
        skips: how a level's encoder output joins the decoder, "add" or "concatenate".
        recompute: compute the blocks' activations again in the backward pass, which takes less
            memory and more time; nothing else changes.
        time_stride: frames of a level that become one frame of the level below; 1 keeps all.
    """

    channels: tuple[int, ...] = (8, 16, 24, 32, 48, 64)
    convs: int = 2
    encoder_blocks: tuple[int, ...] = (0, 1, 2, 2, 2, 2)
    decoder_blocks: tuple[int, ...] = (0, 1, 1, 1, 1, 1)
    ffn_dim: tuple[int, ...] = (0, 2048, 1024, 1024, 512, 256)
    heads: int = 8
    block: str = "primer"
    norm: str = "rms"
    position: str = "rotary"
    max_distance: int = 512
    dropout: float = 0.0
    cross_frame_bands: int = 4
    mask_known: bool = True
    recompute: bool = False
    skips: str = "add"
    time_stride: int = 1

    def __post_init__(self) -> None:
        if not 1 <= len(self.channels) <= 15:
            raise SeparatorError(
                f"model.channels: {len(self.channels)} levels; give 1 to 15 numbers, one for each"
            )
        require(self, "[1, 4096]", "model.channels")
        for name in ("encoder_blocks", "decoder_blocks", "ffn_dim"):
            if len(getattr(self, name)) != len(self.channels):
                raise SeparatorError(
                    f"model.{name}: {len(getattr(self, name))} levels, but model.channels has "
                    f"{len(self.channels)}; give one number for each level"
                )
        require(self, "[0, 64]", "model.encoder_blocks", "model.decoder_blocks")
        if self.blocks > MAX_BLOCKS:
            raise SeparatorError(
                f"model.encoder_blocks, model.decoder_blocks: {self.blocks} blocks in all; give at "
                f"most {MAX_BLOCKS}"
            )
        require(self, "[0, 65536]", "model.ffn_dim")
        require(self, "[0, 1024]", "model.cross_frame_bands")
        require(self, "[1, 16]", "model.convs")
        require(self, "[1, 1024]", "model.heads")
        require(self, "[1, 16384]", "model.max_distance")
        require(self, "[1, 4]", "model.time_stride")
        require(self, "[0, 1)", "model.dropout")
        if self.heads & (self.heads - 1):
            raise SeparatorError(f"model.heads: {self.heads} is not a power of two, as bins are")
        choices = {
            "block": BLOCK_NAMES,
            "norm": NORM_NAMES,
            "position": ("rotary", "relative"),
            "skips": ("add", "concatenate"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise SeparatorError(
                    f"model.{name}: {getattr(self, name)!r} is not one of {', '.join(known)}"
                )

    @property
    def blocks(self) -> int:
        """Transformer blocks on all levels."""
        return sum(self.encoder_blocks) + sum(self.decoder_blocks)


class Stack(NamedTuple):
    """Sizes of a stack of transformer blocks: width of a token, blocks, heads, feed-forward."""

    width: int
    depth: int
    heads: int
    ffn_dim: int


SIZES = {
    "base": Stack(768, 12, 12, 2048),
    "small": Stack(384, 12, 6, 1536),
    "tiny": Stack(192, 12, 3, 768),
}
MOST = Stack(16384, 64, 1024, 65536)


@dataclass(frozen=True)
class PatchConfig:
    """Sizes of the patch transformer.

    Attributes:
        size: encoder of the paper, "base", "small" or "tiny"; what is 0 below is taken from it.
        patch: bins and frames of a patch.
        width: features of a token in the encoder, a multiple of 4.
        depth: transformer blocks of the encoder.
        heads: attention heads of the encoder.
        ffn_dim: width inside the encoder's feed-forwards.
        decoder_width: features of a token in the decoder, a multiple of 4.
        decoder_depth: transformer blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        decoder_ffn_dim: width inside the decoder's feed-forwards.
        dropout: share of features dropped after each part of a block.
    """

    size: str = "tiny"
    patch: int = 16
    width: int = 0
    depth: int = 0
    heads: int = 0
    ffn_dim: int = 0
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_ffn_dim: int = 2048
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.size not in SIZES:
            raise SeparatorError(f"patch.size: {self.size!r} is not one of {', '.join(SIZES)}")
        for name, most in zip(Stack._fields, MOST, strict=True):
            require(self, f"[0, {most}]", f"patch.{name}")  # 0: as `size` says
            require(self, f"[1, {most}]", f"patch.decoder_{name}")
        require(self, "[1, 256]", "patch.patch")
        require(self, "[0, 1)", "patch.dropout")
        for prefix, (width, _, heads, _) in (("", self.encoder), ("decoder_", self.decoder)):
            if width % heads or width % 4:
                raise SeparatorError(
                    f"patch.{prefix}width: {width} is no multiple of 4 and of its {heads} heads; "
                    f"change it or patch.{prefix}heads"
                )

    @property
    def blocks(self) -> int:
        """Transformer blocks of encoder and decoder."""
        return self.encoder.depth + self.decoder.depth

    @property
    def encoder(self) -> Stack:
        """Sizes of the encoder, those of `size` where none are given."""
        given = (self.width, self.depth, self.heads, self.ffn_dim)
        return Stack(*(own or usual for own, usual in zip(given, SIZES[self.size], strict=True)))

    @property
    def decoder(self) -> Stack:
        """Sizes of the decoder."""
        return Stack(
            self.decoder_width, self.decoder_depth, self.decoder_heads, self.decoder_ffn_dim
        )


Sizes = ModelConfig | PatchConfig


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model a run trains.

    Attributes:
        architecture: the model; its sizes are in `model` or `patch`.
        model: sizes of the frame transformer.
        patch: sizes of the patch transformer.
    """

    architecture: Literal["frame_transformer", "patch_transformer"] = "frame_transformer"
    model: ModelConfig = field(default_factory=ModelConfig)
    patch: PatchConfig = field(default_factory=PatchConfig)

    @property
    def sizes(self) -> Sizes:
        """The sizes of the chosen model."""
        return self.model if self.architecture == "frame_transformer" else self.patch
