"""A diffusers UNet over several views of a scene, computed no further than the thermal view needs.

After the last joint attention nothing of the RGB view reaches the output, so it is dropped there: exact, and
most of the decoder half runs on one view.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def denoise(unet: Any, latent: Tensor, timestep: Tensor, context: Tensor, views: int) -> Tensor:
    """Predicted noise of the thermal view.

    Args:
        unet: a `UNet2DConditionModel` whose processors `attention.install` has set.
        latent: (B * views, C, h, w), views interleaved, thermal first.
        timestep: () or (B * views,) int64.
        context: (B * views, L, D) text or tag embeddings.
        views: 1 or 2.

    Returns:
        (B, C, h, w).
    """
    embedding = unet.time_embedding(unet.get_time_embed(sample=latent, timestep=timestep))
    kwargs = {"views": views}
    sample = unet.conv_in(latent)
    residuals: tuple[Tensor, ...] = (sample,)
    for block in unet.down_blocks:
        if getattr(block, "has_cross_attention", False):
            sample, made = block(
                sample, embedding, encoder_hidden_states=context, cross_attention_kwargs=kwargs
            )
        else:
            sample, made = block(sample, embedding)
        residuals += made
    sample = unet.mid_block(sample, embedding, encoder_hidden_states=context, cross_attention_kwargs=kwargs)
    last = _last_attention(unet)
    if last is None:
        sample, embedding, context = sample[::views], embedding[::views], context[::views]
        residuals, views = tuple(r[::views] for r in residuals), 1
    dropped = 1  # every how manieth picture of a residual is still needed
    for index, block in enumerate(unet.up_blocks):
        count = len(block.resnets)
        taken, residuals = residuals[-count:], residuals[:-count]
        for layer, resnet in enumerate(block.resnets):
            sample = resnet(torch.cat([sample, taken[-1 - layer][::dropped]], dim=1), embedding)
            if not getattr(block, "has_cross_attention", False):
                continue
            if views > 1 and (index, layer) == last:
                sample = _thermal_view(block.attentions[layer], sample, context, views)
                embedding, context = embedding[::views], context[::views]
                dropped, views = views, 1
            else:
                attend = block.attentions[layer]
                kwargs = {"views": views}
                sample = attend(sample, context, cross_attention_kwargs=kwargs, return_dict=False)[0]
        for upsampler in block.upsamplers or ():
            # Odd sizes: the stock factor of two would not meet the residual.
            size = residuals[-1].shape[2:]
            exact = tuple(size) == tuple(2 * side for side in sample.shape[2:])
            sample = upsampler(sample, None if exact else size)
    if unet.conv_norm_out:
        sample = unet.conv_act(unet.conv_norm_out(sample))
    return unet.conv_out(sample)


def _last_attention(unet: Any) -> tuple[int, int] | None:
    """(up block, layer) of the last transformer in the decoder half."""
    found = None
    for index, block in enumerate(unet.up_blocks):
        if getattr(block, "has_cross_attention", False):
            found = (index, len(block.attentions) - 1)
    return found


def _thermal_view(transformer: Any, sample: Tensor, context: Tensor, views: int) -> Tensor:
    """`Transformer2DModel.forward` where only the thermal view leaves: (B * views, ...) to (B, ...)."""
    height, width = sample.shape[2:]
    residual = sample[::views]
    tokens = transformer.norm(sample)
    if transformer.use_linear_projection:
        tokens = transformer.proj_in(tokens.flatten(2).transpose(1, 2))
    else:
        tokens = transformer.proj_in(tokens).flatten(2).transpose(1, 2)
    *earlier, final = transformer.transformer_blocks
    for block in earlier:
        tokens = block(tokens, encoder_hidden_states=context, cross_attention_kwargs={"views": views})
    mixed = final.attn1.processor(final.attn1, final.norm1(tokens), views=views, thermal_only=True)
    tokens = tokens[::views] + mixed
    tokens = tokens + final.attn2(final.norm2(tokens), encoder_hidden_states=context[::views])
    tokens = tokens + final.ff(final.norm3(tokens))
    if transformer.use_linear_projection:
        tokens = transformer.proj_out(tokens)
    picture = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, height, width)
    if not transformer.use_linear_projection:
        picture = transformer.proj_out(picture)
    return picture + residual
