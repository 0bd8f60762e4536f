"""Joint cross-modal self-attention (CSM, 3M-TI section 3.2) and what the paper compares it with.

As attention processors on diffusers' own blocks: views of one scene are interleaved along the batch
([thermal 0, rgb 0, thermal 1, ...]), folded into one token sequence for the self-attention and unfolded
again. No parameter is added, nothing is patched; with one view it is plain self-attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

FUSIONS = ("csm", "asym", "cross", "concat", "none")


def _heads(tokens: Tensor, heads: int) -> Tensor:
    batch, length, width = tokens.shape
    return tokens.reshape(batch, length, heads, width // heads).transpose(1, 2)


def attend(attn: Any, query: Tensor, memory: Tensor, chunk: int = 0) -> Tensor:
    """Multi-head attention with the weights of a diffusers `Attention` module.

    Args:
        attn: the module (to_q, to_k, to_v, to_out, heads).
        query: (B, N, C) tokens that ask.
        memory: (B, M, C') tokens that are looked at.
        chunk: so many queries at a time, which bounds the scores an engine without fused attention has to
            hold (METHODS trap D); the result is the same. 0 for all at once.

    Returns:
        (B, N, C), after the output projection.
    """
    q, k, v = (
        _heads(tokens, attn.heads) for tokens in (attn.to_q(query), attn.to_k(memory), attn.to_v(memory))
    )
    if 0 < chunk < q.shape[2]:
        # Slices, not `split`: torch's older exporter writes a shorter last piece wrongly.
        pieces = [q[:, :, start : start + chunk] for start in range(0, q.shape[2], chunk)]
        mixed = torch.cat([functional.scaled_dot_product_attention(piece, k, v) for piece in pieces], dim=2)
    else:
        mixed = functional.scaled_dot_product_attention(q, k, v)
    batch, heads, length, width = mixed.shape
    return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).reshape(batch, length, heads * width)))


class PlainAttention:
    """Stock attention (self or to the context); takes and ignores the number of views."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        views: int = 1,
    ) -> Tensor:
        """(B, N, C) tokens to (B, N, C)."""
        memory = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        return attend(attn, hidden_states, memory)


class JointAttention(nn.Module):
    """Self-attention over all views of a scene.

    Args:
        fusion: "csm" joint attention of the paper; "asym" thermal looks at both views, RGB at itself only
            (its keys can be reused while the RGB frame stands); the paper's ablations "cross" (an added
            residual attention from thermal to RGB) and "concat" (an added residual layer over the
            concatenated channels of both views); "none": each view by itself.
        channels: width of the tokens; the ablations bring layers of their own.
        heads: of the added attention.
        query_chunk: see `attend`.
    """

    def __init__(self, fusion: str = "csm", channels: int = 0, heads: int = 1, query_chunk: int = 0) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, not {fusion!r}")
        self.fusion, self.heads, self.query_chunk = fusion, heads, query_chunk
        if fusion == "cross":
            self.to_q = nn.Linear(channels, channels, bias=False)
            self.to_k = nn.Linear(channels, channels, bias=False)
            self.to_v = nn.Linear(channels, channels, bias=False)
            self.to_out = nn.ModuleList([nn.Linear(channels, channels), nn.Identity()])
            _zero(self.to_out[0])
        elif fusion == "concat":
            self.mix = nn.Linear(2 * channels, channels)
            _zero(self.mix)

    # `__call__` itself, not `forward`: diffusers reads its signature and silently drops arguments that it
    # does not find there, the number of views among them.
    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        views: int = 1,
        thermal_only: bool = False,
    ) -> Tensor:
        """Attend.

        Args:
            attn: diffusers `Attention` with the weights.
            hidden_states: (B * views, N, C), views interleaved.
            encoder_hidden_states: must be None: this is self-attention.
            attention_mask: not used.
            views: 1 or 2; view 0 is thermal.
            thermal_only: compute the thermal view alone (exact: its queries see the same keys).

        Returns:
            (B * views, N, C); (B, N, C) with `thermal_only`.
        """
        chunk = self.query_chunk
        if views == 1:
            return attend(attn, hidden_states, hidden_states, chunk)
        batch, length, width = hidden_states.shape
        scenes = hidden_states.reshape(batch // views, views, length, width)
        thermal = scenes[:, 0]
        joint = scenes.reshape(batch // views, views * length, width)
        if self.fusion == "csm":
            if thermal_only:
                return attend(attn, thermal, joint, chunk)
            return attend(attn, joint, joint, chunk).reshape(batch, length, width)
        rgb = scenes[:, 1]
        if self.fusion == "asym":
            mine = attend(attn, thermal, joint, chunk)
        else:
            mine = attend(attn, thermal, thermal, chunk)
            if self.fusion == "cross":
                mine = mine + attend(self, thermal, rgb, chunk)
            elif self.fusion == "concat":
                mine = mine + self.mix(torch.cat([thermal, rgb], dim=-1))
        if thermal_only:
            return mine
        return torch.stack([mine, attend(attn, rgb, rgb, chunk)], dim=1).reshape(batch, length, width)


def install(unet: Any, fusion: str, query_chunk: int = 0) -> None:
    """Set the processors of every transformer block: joint on self-attention, plain on the context.

    Args:
        unet: a diffusers `UNet2DConditionModel`.
        fusion: see `JointAttention`.
        query_chunk: see `attend`.
    """
    processors: dict[str, Any] = {}
    modules = dict(unet.named_modules())
    for name in unet.attn_processors:
        attn = modules[name.removesuffix(".processor")]
        if ".attn1." in name:
            processors[name] = JointAttention(fusion, attn.to_q.in_features, attn.heads, query_chunk)
        else:
            processors[name] = PlainAttention()
    unet.set_attn_processor(processors)


def _zero(layer: Any) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
