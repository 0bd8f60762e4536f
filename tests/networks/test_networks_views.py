"""The UNet over several views against diffusers' own forward pass."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from tests.networks.conftest import tiny_unet
from thermal_enhance.networks.diffusion import attention
from thermal_enhance.networks.diffusion.attention import FUSIONS
from thermal_enhance.networks.diffusion.views import denoise

SIZES = [(16, 16), (16, 24), (9, 13)]
"""Latents; the last one does not halve evenly, which the decoder half has to make up for."""


def inputs(batch: int, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    step = torch.full((batch,), 199, dtype=torch.int64)
    return torch.randn(batch, 4, *size), step, torch.randn(batch, 5, 16)


def stock(unet: Any, latent: Any, step: Any, context: Any, **kwargs: Any) -> torch.Tensor:
    return unet(latent, step, encoder_hidden_states=context, **kwargs).sample


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("linear", [True, False])
def test_one_view_is_the_stock_unet(size: tuple[int, int], linear: bool) -> None:
    unet = tiny_unet(use_linear_projection=linear)
    latent, step, context = inputs(2, size)
    with torch.no_grad():
        wanted = stock(unet, latent, step, context)  # diffusers' own processors
        attention.install(unet, "csm")
        made = denoise(unet, latent, step, context, views=1)
    assert torch.allclose(made, wanted, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_dropping_the_rgb_view_is_exact(fusion: str, size: tuple[int, int]) -> None:
    unet = tiny_unet()
    attention.install(unet, fusion)
    for name, parameter in unet.named_parameters():
        if ".processor." in name:
            torch.nn.init.normal_(parameter, std=0.3)
    latent, step, context = inputs(4, size)
    with torch.no_grad():
        wanted = stock(unet, latent, step, context, cross_attention_kwargs={"views": 2})[::2]
        made = denoise(unet, latent, step, context, views=2)
    assert made.shape == (2, 4, *size)
    assert torch.allclose(made, wanted, atol=1e-5)


@pytest.mark.parametrize("changes", [{"use_linear_projection": False}, {"transformer_layers_per_block": 2}])
def test_dropping_is_exact_in_other_shapes(changes: dict[str, Any]) -> None:
    unet = tiny_unet(**changes)
    attention.install(unet, "csm")
    latent, step, context = inputs(2, (16, 16))
    with torch.no_grad():
        wanted = stock(unet, latent, step, context, cross_attention_kwargs={"views": 2})[::2]
        assert torch.allclose(denoise(unet, latent, step, context, views=2), wanted, atol=1e-5)


def test_attention_in_the_middle_alone() -> None:
    unet = tiny_unet(down_block_types=("DownBlock2D",) * 4, up_block_types=("UpBlock2D",) * 4)
    attention.install(unet, "csm")
    latent, step, context = inputs(2, (16, 16))
    with torch.no_grad():
        wanted = stock(unet, latent, step, context, cross_attention_kwargs={"views": 2})[::2]
        assert torch.allclose(denoise(unet, latent, step, context, views=2), wanted, atol=1e-5)


def test_most_of_the_last_level_sees_one_view() -> None:
    unet = tiny_unet()
    attention.install(unet, "csm")
    batches = []
    unet.conv_out.register_forward_pre_hook(lambda _module, given: batches.append(len(given[0])))
    last = unet.up_blocks[-1].attentions[-1].transformer_blocks[-1].ff
    last.register_forward_pre_hook(lambda _module, given: batches.append(len(given[0])))
    with torch.no_grad():
        denoise(unet, *inputs(2, (16, 16)), views=2)
    assert batches == [1, 1]


def test_chunked_queries_change_nothing() -> None:
    unet = tiny_unet()
    latent, step, context = inputs(2, (16, 16))
    with torch.no_grad():
        attention.install(unet, "csm")
        whole = denoise(unet, latent, step, context, views=2)
        attention.install(unet, "csm", query_chunk=100)
        assert torch.allclose(denoise(unet, latent, step, context, views=2), whole, atol=1e-5)


def test_diffusers_hands_the_views_to_the_processor() -> None:
    """It reads the signature of `__call__` and drops what it does not find there."""
    unet = tiny_unet()
    attention.install(unet, "csm")
    latent, step, context = inputs(2, (16, 16))
    with torch.no_grad():
        joint = stock(unet, latent, step, context, cross_attention_kwargs={"views": 2})
        apart = stock(unet, latent, step, context)
    assert not torch.allclose(joint, apart, atol=1e-4)
