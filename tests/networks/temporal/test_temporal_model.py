"""The temporal model: shapes, its safe start, its switches, and that all of it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.networks.temporal.conftest import straight, window_inputs
from thermal_enhance.networks.temporal.blocks import ScanBlock, TssmBlock
from thermal_enhance.networks.temporal.configuration import TemporalConfig
from thermal_enhance.networks.temporal.mixing import mixing_matrix
from thermal_enhance.networks.temporal.model import PixelShuffle, TemporalModel
from thermal_enhance.networks.temporal.orders import RasterOrder


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("size", [(16, 16), (18, 22), (24, 32)])
@pytest.mark.parametrize("stride", [2, 4])
def test_shapes(tiny: TemporalConfig, scale: int, size: tuple[int, int], stride: int) -> None:
    model = TemporalModel(replace(tiny, scale=scale, token_stride=stride))
    height, width = size
    frames, grid, tau, cues = window_inputs(tiny, height, width, batch=2, times=3)
    assert model.encode(frames[0]).shape == (3, tiny.channels, height // 2, width // 2)
    residual = model(frames, grid, tau, cues)
    assert residual.shape == (2, 3, 1, scale * height, scale * width)
    assert torch.isfinite(residual).all()


def test_frames_are_encoded_one_by_one(tiny: TemporalConfig) -> None:
    model = TemporalModel(tiny).eval()
    frames, *rest = window_inputs(tiny, 16, 24)
    features = torch.stack([model.encode(frame[None])[0] for frame in frames[0]])[None]
    torch.testing.assert_close(model.body(features, *rest), model(frames, *rest), atol=1e-6, rtol=1e-4)


def test_the_residual_is_small_at_first(tiny: TemporalConfig) -> None:
    residual = TemporalModel(tiny)(*window_inputs(tiny, 16, 24))
    assert 0 < residual.abs().max() < 1 / 127.5, "below one level"


def test_straight_grids_give_the_papers_mixture(tiny: TemporalConfig) -> None:
    """G_i = sum_n s_n W(n, e_i) F^_n cos((tau + 1/2) n pi / X), written out."""
    model = TemporalModel(tiny).eval()
    features = torch.randn(2, tiny.window, tiny.channels, 6, 8)
    tau = torch.tensor([[0.5, 1.5], [1.25, 2.0]])
    grid = straight(6, 8).expand(2, 2, tiny.window, 6, 8, 2)
    mixed, _, embedding = model.mixed(features, grid, tau)
    matrix = model.mixing(tau, embedding)
    wanted = torch.zeros_like(mixed)
    per_group = tiny.channels // tiny.groups
    for channel in range(tiny.channels):
        row = matrix[:, :, channel // per_group]
        wanted[..., channel] = (row[..., None, None] * features[:, None, :, channel]).sum(dim=2)
    torch.testing.assert_close(mixed, wanted, atol=1e-4, rtol=1e-4)
    observed = mixed[1, 1].permute(2, 0, 1)
    torch.testing.assert_close(observed, features[1, 2], atol=1e-4, rtol=0)  # exact_observed
    cold = mixing_matrix(tau, torch.zeros(tiny.window))
    assert (matrix - cold[:, :, None]).abs().max() < 0.03


def test_a_constant_stays_itself_at_any_time(tiny: TemporalConfig) -> None:
    model = TemporalModel(tiny).eval()
    level = torch.randn(1, 1, tiny.channels, 1, 1)
    features = level.expand(1, tiny.window, tiny.channels, 6, 8)
    tau = torch.tensor([[-0.3, 0.7, 1.999, 2.4]])
    grid = torch.randn(1, 4, tiny.window, 6, 8, 2)
    mixed = model.mixed(features, grid, tau)[0]
    wanted = level[:, :, :, 0, 0][:, :, None, None].expand_as(mixed)
    torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=0)


def test_every_time_by_itself_but_for_the_time_scan(tiny: TemporalConfig) -> None:
    """Times asked for together inform one another through the time block; without blocks not at all."""
    for blocks, apart in ((0, True), (1, False)):
        model = TemporalModel(replace(tiny, blocks=blocks)).eval()
        frames, grid, tau, cues = window_inputs(tiny, 16, 16)
        alone = model(frames, grid[:, 1:], tau[:, 1:], cues[:, 1:])
        together = model(frames, grid, tau, cues)[:, 1:]
        assert torch.allclose(alone, together, atol=1e-7) is apart


def test_zero_prompts_are_plain_mamba(tiny: TemporalConfig) -> None:
    block = ScanBlock(tiny, RasterOrder())
    tokens, embedding = torch.randn(1, 2, 4, 4, tiny.token_channels), torch.randn(1, 2, tiny.embedding)
    before = block(tokens, embedding)
    assert block.prompt is not None
    prompt, block.prompt = block.prompt, None
    assert torch.equal(block(tokens, embedding), before)
    block.prompt = prompt
    torch.nn.init.normal_(prompt[2].weight)
    assert (block(tokens, embedding) - before).abs().max() > 1e-4


def test_switches(tiny: TemporalConfig) -> None:
    def names(config: TemporalConfig) -> set[str]:
        return {name for name, _ in TemporalModel(config).named_parameters()}

    whole = names(tiny)
    unmasked = names(replace(tiny, spectral_mask=False))
    assert {name.split(".")[2] for name in whole - unmasked} == {"mask", "project"}
    unprompted = names(replace(tiny, thermal_prompt=False))
    assert whole - unprompted and all(".prompt." in name for name in whole - unprompted)
    for config in (replace(tiny, spectral_mask=False, thermal_prompt=False), replace(tiny, carry=True)):
        assert torch.isfinite(TemporalModel(config)(*window_inputs(tiny, 16, 16))).all()


def test_windows_shift_in_every_second_block(tiny: TemporalConfig) -> None:
    model = TemporalModel(replace(tiny, blocks=3))
    shifts = [block.scans[2].order.before for block in model.blocks if isinstance(block, TssmBlock)]
    assert shifts == [0, tiny.scan_window // 2, 0]


def test_backends_agree(tiny: TemporalConfig) -> None:
    model = TemporalModel(replace(tiny, scan_chunk=8)).eval()
    other = TemporalModel(replace(tiny, scan_backend="reference")).eval()
    other.load_state_dict(model.state_dict())
    inputs = window_inputs(tiny, 32, 40)
    wanted = other(*inputs)
    assert (model(*inputs) - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_everything_learns(tiny: TemporalConfig) -> None:
    """From the first or, behind layers that start at zero, the second step every tensor has a gradient."""
    model = TemporalModel(tiny)
    inputs = window_inputs(tiny, 16, 16, batch=2)
    target = 0.05 * torch.randn(2, 2, 1, 64, 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses: list[float] = []
    for _ in range(25):
        optimiser.zero_grad()
        loss = (model(*inputs) - target).abs().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
    assert losses[-1] < 0.995 * losses[0]


@pytest.mark.parametrize("factor", [2, 4])
def test_pixel_shuffle_is_torchs(factor: int) -> None:
    x = torch.randn(2, 3 * factor**2, 5, 7)
    assert torch.equal(PixelShuffle(factor)(x), torch.nn.functional.pixel_shuffle(x, factor))


def test_tokens_of_odd_feature_maps_keep_their_places(tiny: TemporalConfig) -> None:
    """18x22 frames have 9x11 features: padded to whole tokens, and cut back."""
    model = TemporalModel(tiny).eval()
    seen: list[Any] = []
    model.blocks[0].register_forward_pre_hook(lambda _module, args: seen.append(args[0].shape))
    model(*window_inputs(tiny, 18, 22))
    assert seen[0][2:4] == (5, 6)
