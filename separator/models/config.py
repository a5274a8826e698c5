"""Settings of the architectures, apart from them: `--help` needs no torch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

from separator.ranges import CheckedConfig, Within
from separator.stems import TWO_STEMS, StemSet

MAX_BLOCKS = 128

Dropout = Annotated[float, Within("[0, 1)")]


@dataclass(frozen=True)
class ModelConfig(CheckedConfig):
    """Sizes of the frame transformer, a U-Net. Lists have a number for each depth, from depth 0.

    Attributes:
        channels: number of feature maps at each depth; the length of the list is the number of
            depths.
        encoder_blocks: number of transformer blocks of the encoder at each depth.
        convs: number of N×1 convolutions of the encoder at each depth but 0.
        decoder_blocks: number of transformer blocks of the decoder at each depth; those of depth 0
            come before the head.
        ffn_dim: width of the feed-forward layers at each depth.
        heads: largest number of attention heads; each head has at least 16 bins.
        block: transformer block, "primer" or "evolved".
        norm: normalisation, "rms", "layer" or "batch": in the transformer blocks, and after the
            convolutions at depths that have blocks.
        position: relative positions, "rotary" or "relative" (Music Transformer).
        max_distance: largest distance in frames that "relative" distinguishes; longer ones count as
            this one.
        dropout: share of features dropped inside the transformer blocks.
        cross_frame_bands: frequency bands of an attention over frames at full resolution, which
            adds, as extra input channels, a weighted average of each bin over the other frames,
            and fills masked bins with it (0: without; masked bins are filled with a constant).
        mask_known: in pretraining the network is given the positions of masked bins, and their
            mask starts from an estimate; otherwise its only input is the corrupted spectrogram,
            and it has to detect the frames that were filled with ones.
        skips: how the encoder's output joins the decoder at the same depth, "add" or "concatenate".
        recompute: compute the blocks' activations again in the backward pass, which takes less
            memory and more time, and gives the same result.
        time_stride: number of frames that become one frame at the next depth; 1 keeps all.
        stems: stems into which a song is separated, such as [drums, bass, other, vocals]; "other",
            or the accompaniment, is the mixture minus all other stems.
    """

    # settings that files of this format may lack: added since, with what models did before
    LATER: ClassVar = ("dropout", "mask_known", "recompute", "skips", "stems", "time_stride")

    channels: tuple[Annotated[int, Within("[1, 4096]")], ...] = (8, 16, 24, 32, 48, 64)
    convs: Annotated[int, Within("[1, 16]")] = 2
    encoder_blocks: tuple[Annotated[int, Within("[0, 64]")], ...] = (0, 1, 2, 2, 2, 2)
    decoder_blocks: tuple[Annotated[int, Within("[0, 64]")], ...] = (0, 1, 1, 1, 1, 1)
    ffn_dim: tuple[Annotated[int, Within("[0, 65536]")], ...] = (0, 2048, 1024, 1024, 512, 256)
    heads: Annotated[int, Within("[1, 1024]")] = 8
    block: Literal["primer", "evolved"] = "primer"
    norm: Literal["rms", "layer", "batch"] = "rms"
    position: Literal["rotary", "relative"] = "rotary"
    max_distance: Annotated[int, Within("[1, 16384]")] = 512
    dropout: Dropout = 0.0
    cross_frame_bands: Annotated[int, Within("[0, 1024]")] = 4
    mask_known: bool = True
    recompute: bool = False
    skips: Literal["add", "concatenate"] = "add"
    time_stride: Annotated[int, Within("[1, 4]")] = 1
    stems: tuple[str, ...] = TWO_STEMS.names

    def __post_init__(self) -> None:
        StemSet(self.stems)
        depth = len(self.channels)
        if not 1 <= depth <= 15:
            raise self.invalid("channels", f"{depth} numbers; give 1 to 15, one for each depth")
        super().__post_init__()
        for name in ("encoder_blocks", "decoder_blocks", "ffn_dim"):
            if len(getattr(self, name)) != depth:
                raise self.invalid(
                    name,
                    f"{len(getattr(self, name))} numbers, but {{}}channels has {depth}; give one "
                    "for each depth",
                )
        if self.blocks > MAX_BLOCKS:
            raise self.invalid(
                "encoder_blocks, decoder_blocks",
                f"{self.blocks} blocks in all; give at most {MAX_BLOCKS}",
            )
        if self.heads & (self.heads - 1):
            raise self.invalid("heads", f"{self.heads} is not a power of two, as bins are")

    @property
    def blocks(self) -> int:
        """Transformer blocks at all depths."""
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


@dataclass(frozen=True)
class PatchConfig(CheckedConfig):
    """Sizes of the patch transformer.

    Attributes:
        size: encoder of the MaskSpec paper: "base", "small" or "tiny". The settings of the encoder
            that are 0 take its values.
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
        stems: a copy of model.stems, which holds for all architectures; set that key instead.
    """

    LATER: ClassVar = ("dropout", "stems")

    size: Literal["base", "small", "tiny"] = "tiny"
    patch: Annotated[int, Within("[1, 256]")] = 16
    width: Annotated[int, Within("[0, 16384]")] = 0
    depth: Annotated[int, Within("[0, 64]")] = 0
    heads: Annotated[int, Within("[0, 1024]")] = 0
    ffn_dim: Annotated[int, Within("[0, 65536]")] = 0
    decoder_width: Annotated[int, Within("[1, 16384]")] = 512
    decoder_depth: Annotated[int, Within("[1, 64]")] = 8
    decoder_heads: Annotated[int, Within("[1, 1024]")] = 16
    decoder_ffn_dim: Annotated[int, Within("[1, 65536]")] = 2048
    dropout: Dropout = 0.0
    stems: tuple[str, ...] = TWO_STEMS.names

    def __post_init__(self) -> None:
        StemSet(self.stems)
        super().__post_init__()
        for prefix, (width, _, heads, _) in (("", self.encoder), ("decoder_", self.decoder)):
            if width % heads or width % 4:
                raise self.invalid(
                    f"{prefix}width",
                    f"{width} is no multiple of 4 and of its {heads} heads; change it or "
                    f"{{}}{prefix}heads",
                )

    @property
    def blocks(self) -> int:
        """Transformer blocks of encoder and decoder."""
        return self.encoder.depth + self.decoder.depth

    @property
    def encoder(self) -> Stack:
        """Sizes of the encoder, those of `size` where none are given."""
        given = (self.width, self.depth, self.heads, self.ffn_dim)
        sizes = zip(given, SIZES[self.size], strict=True)
        return Stack(*(size or default for size, default in sizes))

    @property
    def decoder(self) -> Stack:
        """Sizes of the decoder."""
        return Stack(
            self.decoder_width, self.decoder_depth, self.decoder_heads, self.decoder_ffn_dim
        )


Sizes = ModelConfig | PatchConfig
