"""From the names and shapes of public weight files to ours: Stable Diffusion's UNet, AnimateDiff's modules."""

import re
from collections.abc import Mapping

import torch

from talkface.errors import WeightsError
from talkface.nets.emo.blocks import Reading
from talkface.nets.emo.temporal import sinusoids

State = dict[str, torch.Tensor]

_OLD = {
    ".temporal_transformer.": ".",
    ".attention_blocks.0.pos_encoder.": ".pos_embed.",
    ".attention_blocks.1.pos_encoder.": ".pos_embed.",
    ".attention_blocks.0.": ".attn1.",
    ".attention_blocks.1.": ".attn2.",
    ".norms.0.": ".norm1.",
    ".norms.1.": ".norm2.",
    ".ff_norm.": ".norm3.",
}
"""AnimateDiff's own names, and diffusers'."""


def backbone_of(unet: Mapping[str, torch.Tensor], reading: Reading) -> State:
    """Stable Diffusion's UNet as EMO's backbone.

    In ``replace`` the attention to the text asks and answers with its own weights, and what it looks at, which is not
    768 wide any more, is taken in as the self-attention beside it does. In ``concat`` there is no such attention.
    """
    if reading == "concat":
        return reference_of(unet)
    made = dict(unet)
    for name in unet:
        if re.search(r"\.attn2\.to_[kv]\.weight$", name):
            made[name] = unet[name.replace(".attn2.", ".attn1.")].clone()
    return made


def reference_of(unet: Mapping[str, torch.Tensor]) -> State:
    """Stable Diffusion's UNet as the ReferenceNet, which reads no text."""
    text = re.compile(r"\.transformer_blocks\.\d+\.(attn2|norm2)\.")
    return {name: value for name, value in unet.items() if not text.search(name)}


def temporal_of(modules: Mapping[str, torch.Tensor]) -> State:
    """AnimateDiff's motion modules, in its own layout or in diffusers' MotionAdapter's, under our names.

    Positions may be in the file or not; they are sinusoids. Raises WeightsError where a file's are others.
    """
    made = {}
    for name, value in modules.items():
        new = _renamed(name)
        if not new.endswith(".pos_embed.pe"):
            made[new] = value
        elif not torch.allclose(value[0].float(), sinusoids(*value.shape[1:]), atol=1e-3):
            raise WeightsError(f"{name}: positions that are no sinusoids. Use a file of AnimateDiff's form.")
    return made


def _renamed(name: str) -> str:
    name = name.removeprefix("module.")
    for old, new in _OLD.items():
        name = name.replace(old, new)
    return name.removeprefix("temporal_transformer.")
