"""The cross-modal model in our own shape: skips, one and two views, tasks, sizes of pictures."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from torch import nn

from thermal_enhance.networks.cross_modal.configuration import CrossModalConfig, DenoiserConfig
from thermal_enhance.networks.cross_modal.model import CrossModalModel
from thermal_enhance.networks.diffusion.attention import FUSIONS
from thermal_enhance.networks.diffusion.autoencoder import PixelAutoencoderConfig
from thermal_enhance.networks.diffusion.task_lora import TaskLoraLinear, identity

TINY = CrossModalConfig(
    autoencoder=PixelAutoencoderConfig(
        channels=(4, 8, 8, 8), decoder_channels=(4, 8, 8, 8), latent_channels=4, decoder_blocks=(0, 1, 0, 0)
    ),
    denoiser=DenoiserConfig(
        channels=(8, 16), attention=(False, True), head_dim=8, context_dim=8, context_length=3, groups=4
    ),
    task_rank=2,
)


def tiny(**changes: object) -> CrossModalModel:
    model = CrossModalModel(replace(TINY, **changes)).eval()
    nn.init.normal_(model.autoencoder.to_picture.weight, std=4.0)  # all but zero at first, when residual
    return model


def views(height: int = 32, width: int = 48, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(batch, 3, height, width) * 2 - 1, torch.rand(batch, 3, height, width) * 2 - 1


@pytest.mark.parametrize("size", [(16, 16), (32, 80), (48, 16)])
@torch.no_grad()
def test_any_size_of_the_stride_with_and_without_rgb(size: tuple[int, int]) -> None:
    model = tiny()
    thermal, rgb = views(*size)
    assert model(thermal).shape == model(thermal, rgb).shape == (2, 1, *size)
    assert not torch.allclose(model(thermal), model(thermal, rgb), atol=1e-5)


@torch.no_grad()
def test_pictures_of_a_batch_do_not_meet() -> None:
    model = tiny()
    thermal, rgb = views()
    both = model(thermal, rgb)
    for index in range(2):
        alone = model(thermal[index : index + 1], rgb[index : index + 1])
        assert torch.allclose(both[index : index + 1], alone, atol=1e-5)


@torch.no_grad()
def test_thermal_only_path_never_computes_rgb() -> None:
    model = tiny()
    batches: list[int] = []
    model.unet.conv_in.register_forward_pre_hook(lambda _m, given: batches.append(len(given[0])))
    thermal, rgb = views(batch=1)
    model(thermal)
    model(thermal, rgb)
    assert batches == [1, 2]


@torch.no_grad()
def test_skips_start_without_effect() -> None:
    model = tiny()
    thermal, rgb = views()
    wanted = model(thermal, rgb)
    skips, guide = model.skips, model.guide_skips
    model.skips = model.guide_skips = None
    assert torch.equal(model(thermal, rgb), wanted)
    model.skips, model.guide_skips = skips, guide
    for group in (skips, guide):
        for index, layer in enumerate(group):
            nn.init.normal_(layer.weight)
            assert not torch.allclose(model(thermal, rgb), wanted, atol=1e-4), index
            nn.init.zeros_(layer.weight)


def test_zero_skips_have_a_gradient() -> None:
    model = tiny()
    thermal, rgb = views()
    model(thermal, rgb).square().mean().backward()
    for group in (model.skips, model.guide_skips):
        assert all(bool(layer.weight.grad.any()) for layer in group)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_fusions_without_rgb_are_one_network(fusion: str) -> None:
    plain, other = tiny(fusion="none"), tiny(fusion=fusion)
    other.load_state_dict(plain.state_dict(), strict=False)
    thermal, rgb = views()
    assert torch.allclose(other(thermal), plain(thermal), atol=1e-6)
    same = torch.allclose(other(thermal, rgb), plain(thermal, rgb), atol=1e-6)
    assert same == (fusion in {"none", "cross", "concat"})  # the added layers start at zero


@torch.no_grad()
def test_without_guide_skips_and_fusion_rgb_is_not_seen() -> None:
    model = tiny(fusion="none", guide_skips=False)
    thermal, rgb = views()
    assert torch.allclose(model(thermal, rgb), model(thermal), atol=1e-6)


@torch.no_grad()
def test_residual_adds_the_base_in_channel_0() -> None:
    model = tiny()
    whole = CrossModalModel(replace(TINY, residual=False)).eval()
    whole.load_state_dict(model.state_dict())
    thermal, rgb = views()
    added = whole(thermal, rgb) * TINY.residual_scale
    assert torch.allclose(model(thermal, rgb), thermal[:, :1] + added, atol=1e-5)


@torch.no_grad()
def test_a_grey_view_is_channel_0_alone() -> None:
    thermal, _ = views()
    other = thermal.clone()
    other[:, 1:] += 1.0
    grey, full = tiny(grey_view=True), tiny()
    assert torch.equal(grey(thermal), grey(other))
    assert not torch.equal(full(thermal), full(other))


@torch.no_grad()
def test_tasks_switch_and_come_back_bit_for_bit() -> None:
    model = tiny()
    for module in model.modules():
        if isinstance(module, TaskLoraLinear):
            nn.init.normal_(module.lora_up)
    thermal, rgb = views()
    plain = model(thermal, rgb)
    assert torch.equal(model(thermal, rgb, identity(2)), plain)
    one, other = torch.randn(2, 3, 2, 2)
    first, second, again = (model(thermal, rgb, task) for task in (one, other, one))
    assert torch.equal(first, again) and not torch.allclose(first, second, atol=1e-4)
    assert torch.equal(model(thermal, rgb), plain)


@torch.no_grad()
def test_context_can_be_given() -> None:
    model = tiny()
    thermal, rgb = views()
    own = model.context.expand(2, -1, -1)
    assert torch.equal(model(thermal, rgb, context=own), model(thermal, rgb))
    assert not torch.allclose(model(thermal, rgb, context=own + 1), model(thermal, rgb), atol=1e-5)


@torch.no_grad()
def test_query_chunks_change_nothing() -> None:
    model = tiny()
    pieces = tiny(query_chunk=5)
    pieces.load_state_dict(model.state_dict())
    thermal, rgb = views()
    assert torch.allclose(pieces(thermal, rgb), model(thermal, rgb), atol=1e-5)


@torch.no_grad()
def test_is_deterministic_and_needs_no_task_lora() -> None:
    model = tiny(task_rank=0)
    thermal, rgb = views()
    assert model.tasks is None
    assert torch.equal(model(thermal, rgb, identity(1)), model(thermal, rgb))
