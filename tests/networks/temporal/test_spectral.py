from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from thermal_enhance.networks.temporal.spectral import COLUMNS, ROWS, SpectralMask, hartley


def masked(seed: int = 0) -> SpectralMask:
    mask = SpectralMask(5)
    with torch.no_grad():
        mask.gain.copy_(torch.randn(5, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)))
    return mask


@pytest.mark.parametrize("matrices", [False, True])
def test_identity_at_first(matrices: bool) -> None:
    mask = SpectralMask(5)
    frames = torch.randn(2, 5, 12, 9)
    transforms = (hartley(12), hartley(9)) if matrices else None
    torch.testing.assert_close(mask(frames, transforms), frames, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(30, 40), (16, 20), (7, 9), (12, 33), (128, 160)])
def test_matrices_equal_the_transform(size: tuple[int, int]) -> None:
    mask = masked()
    frames = torch.randn(2, 5, *size)
    wanted = mask(frames)
    by_matrices = mask(frames, (hartley(size[0]), hartley(size[1])))
    assert (by_matrices - wanted).abs().max() < 1e-4
    assert (wanted - frames).abs().max() > 0.1, "the mask does something"


@pytest.mark.parametrize("size", [1, 2, 7, 40, 160, 320])
def test_hartley_is_its_own_inverse(size: int) -> None:
    matrix = hartley(size)
    torch.testing.assert_close(matrix @ matrix, torch.eye(size), atol=1e-5, rtol=0)


def test_the_mask_is_real_and_even_and_any_size() -> None:
    for height, width in ((16, 20), (15, 21)):
        mask = masked().mask(height, width)
        torch.testing.assert_close(mask[:, 1:], mask[:, 1:].flip(1))
        torch.testing.assert_close(mask[..., 1:], mask[..., 1:].flip(2))


def test_corners_of_the_stored_grid_are_the_extreme_frequencies() -> None:
    mask = masked()
    found = mask.mask(32, 32)
    torch.testing.assert_close(found[:, 0, 0], 1 + mask.gain[:, 0, 0])
    torch.testing.assert_close(found[:, 16, 16], 1 + mask.gain[:, -1, -1])
    torch.testing.assert_close(found[:, 16, 0], 1 + mask.gain[:, -1, 0])
    torch.testing.assert_close(found[:, 0, 2], 1 + mask.gain[:, 0, 1])


def test_a_pass_band_passes_its_wave_alone() -> None:
    mask = SpectralMask(1)
    with torch.no_grad():
        mask.gain.fill_(-1)
        mask.gain[:, 0, 4] = 0  # fx = 1/4
    x = torch.arange(16)
    kept = torch.cos(torch.pi / 2 * x).expand(1, 1, 16, 16)
    stopped = torch.cos(torch.pi * x / 8).expand(1, 1, 16, 16)
    torch.testing.assert_close(mask(kept + stopped + 3), kept, atol=1e-5, rtol=0)


def test_gradients_reach_the_grid() -> None:
    mask = SpectralMask(3)
    mask(torch.randn(2, 3, 34, 18)).square().sum().backward()
    assert mask.gain.grad is not None and (mask.gain.grad != 0).all()
