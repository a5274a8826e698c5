"""A larger network that begins as the function of a smaller one, and learns on from there.

New layers have outputs that nothing uses yet: the weights that will read them start at 0 (Net2Net,
Chen et al. 2016, arXiv 1511.05641).
"""

import torch
from torch import Tensor

from separator.models.config import ModelConfig
from separator.models.frame_transformer import FrameTransformer

GROWABLE = ("channels", "encoder_blocks", "decoder_blocks", "ffn_dim")  # which may grow


def check_growth(small: ModelConfig, large: ModelConfig) -> None:
    """Refuse sizes that a network of smaller sizes cannot grow to.

    Args:
        small: sizes of the trained network.
        large: sizes of the new one.

    Raises:
        SettingError: the new network is smaller somewhere, or would compute something else.
    """
    if large.skips != "add" or large.block != "primer":
        raise large.invalid("skips", "only networks with skips=add and block=primer can grow")
    for name in GROWABLE:
        old, new = getattr(small, name), getattr(large, name)
        if len(old) != len(new) or any(b < a for a, b in zip(old, new, strict=True)):
            raise large.invalid(name, f"{list(new)} is not {list(old)} or larger at each depth")
    for depth, channels in enumerate(small.channels):
        had, has = _blocks(small, depth), _blocks(large, depth)
        if has and not had:
            raise large.invalid("encoder_blocks", f"depth {depth} has none in the smaller network")
        if has and large.channels[depth] != channels:  # the norm there is over all channels
            text = f"{large.channels[depth]} at depth {depth}, which has blocks; give {channels}"
            raise large.invalid("channels", text)


def _blocks(sizes: ModelConfig, depth: int) -> int:
    """Return the number of transformer blocks at one depth."""
    return sizes.encoder_blocks[depth] + sizes.decoder_blocks[depth]


def grow(small: FrameTransformer, large: FrameTransformer) -> dict[str, Tensor]:
    """Return the weights with which a larger network gives the masks of a smaller one.

    The last layer of a network with another number of masks is as in the new network.

    Args:
        small: the trained network.
        large: a new network of sizes that `check_growth` allows.
    """
    encoded = small.config.channels[-1] + small.config.encoder_blocks[-1]
    added = large.config.channels[-1] + large.config.encoder_blocks[-1] - encoded
    groups = 2 * large.config.time_stride  # of an upsampling layer's outputs, by bin and frame
    result, trained = large.state_dict(), small.state_dict()
    for name, old in trained.items():
        if small.masks != large.masks and name.startswith(large.HEAD):
            continue
        if old.shape == result[name].shape:
            result[name] = old
            continue
        new = result[name] = result[name].clone()
        rows = torch.arange(len(old))
        if name.startswith("upsamples."):
            rows = torch.arange(groups)[:, None] * (len(new) // groups)
            rows = (rows + torch.arange(len(old) // groups)).flatten()
        if old.dim() == 1:
            new[rows] = old
            continue
        columns = torch.arange(old.shape[1])
        if name.startswith(("upsamples.0.", "decoder_tokens.0.squeeze.")):
            columns[encoded:] += added  # the decoder's blocks follow the encoder's
        new[rows] = 0.0
        new[rows[:, None], columns] = old
    return result
