"""TDIM against the published numbers, and its invariants."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from thermal_enhance.networks.temporal.mixing import (
    HeatMixing,
    TimeEmbedding,
    between,
    mix,
    mixing_matrix,
    warp,
)


def rows(
    count: int, taus: list[float], kappa: float = 0.0, positions: list[float] | None = None
) -> np.ndarray:
    matrix = mixing_matrix(
        torch.tensor(taus, dtype=torch.float64),
        torch.full((1, count), kappa, dtype=torch.float64),
        None if positions is None else torch.tensor(positions, dtype=torch.float64),
    )
    return np.asarray(matrix)


@pytest.mark.parametrize(
    ("count", "kappa", "tau", "wanted"),
    [
        (2, 0.0, 0.0, [1, 0]),
        (2, 0.0, 0.5, [0.5, 0.5]),
        (2, 0.0, 1.0, [0, 1]),
        (2, 0.1, 0.0, [0.8907, 0.1093]),
        (2, 0.1, 0.5, [0.5, 0.5]),
        (2, 0.1, 1.0, [0.1093, 0.8907]),
        (3, 0.0, 0.5, [0.4553, 0.6667, -0.1220]),
        (3, 0.0, 1.5, [-0.1220, 0.6667, 0.4553]),
        (3, 0.05, 0.5, [0.4728, 0.6010, -0.0738]),
        (3, 0.05, 1.0, [0.0656, 0.8687, 0.0656]),
        (4, 0.0, 0.5, [0.4413, 0.7119, -0.2119, 0.0587]),
        (4, 0.0, 1.5, [-0.1036, 0.6036, 0.6036, -0.1036]),
    ],
)
def test_published_rows(count: int, kappa: float, tau: float, wanted: list[float]) -> None:
    np.testing.assert_allclose(rows(count, [tau], kappa)[0], wanted, atol=6e-5)


def test_rows_sum_to_one_at_any_time_and_heat() -> None:
    generator = torch.Generator().manual_seed(0)
    tau = torch.rand(7, 5, generator=generator) * 6 - 1.5
    kappa = torch.rand(7, 5, 4, generator=generator) * 30
    for positions in (None, torch.tensor([0.0, 0.9, 2.2, 3.0])):
        sums = mixing_matrix(tau, kappa, positions).sum(dim=-1)
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)


def test_great_heat_is_the_mean_of_all_frames() -> None:
    np.testing.assert_allclose(rows(4, [0.0, 1.7, 3.0], 1e4), np.full((3, 4), 0.25), atol=1e-12)


def test_without_heat_frames_come_back_where_they_really_lie() -> None:
    jittered = [0.0, 0.8, 2.3]
    np.testing.assert_allclose(rows(3, jittered, positions=jittered), np.eye(3), atol=1e-12)
    np.testing.assert_allclose(rows(3, [0.4, 1.9], positions=[0, 1, 2]), rows(3, [0.4, 1.9]), atol=1e-12)


def test_positions_matter() -> None:
    """A signal that is a mode of the rod is met exactly between frames that are not evenly spaced."""
    positions = [0.0, 0.8, 2.3]

    def signal(t: np.ndarray) -> np.ndarray:
        return np.cos((t + 0.5) * np.pi / 3) + 0.3

    taus = np.array([0.3, 1.1, 2.0])
    frames = signal(np.array(positions))
    np.testing.assert_allclose(rows(3, list(taus), positions=positions) @ frames, signal(taus), atol=1e-12)
    assert np.abs(rows(3, list(taus)) @ frames - signal(taus)).max() > 0.05


def heated(exact_observed: bool) -> HeatMixing:
    mixing = HeatMixing(window=3, groups=2, width=6, exact_observed=exact_observed)
    torch.nn.init.normal_(mixing.kappa.weight)
    torch.nn.init.constant_(mixing.kappa.bias, 0.5)
    return mixing


def test_exact_observed_leaves_measured_frames_alone() -> None:
    tau, embedding = torch.tensor([[0.0, 0.5, 2.0]]), torch.randn(1, 3, 6)
    exact = heated(True)(tau, embedding)[0]
    unit = torch.eye(3)
    torch.testing.assert_close(exact[0], unit[0].expand(2, 3), atol=1e-6, rtol=0)
    torch.testing.assert_close(exact[2], unit[2].expand(2, 3), atol=1e-6, rtol=0)
    cold = mixing_matrix(tau[0, 1], torch.zeros(3))
    assert (exact[1] - cold).abs().max() > 0.02, "new frames keep their heat"
    assert (heated(False)(tau, embedding)[0, 0] - unit[0]).abs().max() > 0.02


def test_starts_as_almost_exact_interpolation() -> None:
    tau = torch.tensor([[0.0, 0.5, 1.0, 1.5, 2.0]])
    matrix = HeatMixing(3, 8, 16, exact_observed=False)(tau, torch.randn(1, 5, 16))
    cold = mixing_matrix(tau, torch.zeros(3))
    assert 1e-4 < (matrix - cold[:, :, None]).abs().max() < 0.03
    torch.testing.assert_close(matrix[:, :, 0], matrix[:, :, 7])


def test_groups_have_heat_of_their_own() -> None:
    matrix = heated(False)(torch.tensor([[1.0]]), torch.randn(1, 1, 6))
    assert (matrix[0, 0, 0] - matrix[0, 0, 1]).abs().max() > 1e-3


def test_change_between_the_frames_around_a_time() -> None:
    features = torch.randn(2, 3, 5, 6, 4)
    change = between(features, torch.tensor([[0.0, 0.5, 1.0, 1.7, 2.0]]).expand(2, 5))
    for index, pair in ((1, (0, 1)), (3, (1, 2))):
        wanted = (features[:, pair[0]] - features[:, pair[1]]).abs().mean(dim=(-2, -1))
        torch.testing.assert_close(change[:, index], wanted)
    assert not change[:, [0, 2, 4]].any(), "floor and ceiling of an observed frame are the same frame"


def test_embedding_tells_times_apart() -> None:
    embed = TimeEmbedding(3, 4, 16)
    tau = torch.tensor([[0.5, 1.5, 1.51]])
    one, two, three = embed(tau, torch.zeros(1, 3, 4))[0]
    assert (one - two).abs().max() > 1e-3 and (two - three).abs().max() > 1e-4


def straight(height: int, width: int) -> torch.Tensor:
    y = (torch.arange(height) * 2 + 1) / height - 1
    x = (torch.arange(width) * 2 + 1) / width - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)


@pytest.mark.parametrize("by_gather", [False, True])
def test_straight_grid_is_the_frame_itself(by_gather: bool) -> None:
    features = torch.randn(2, 3, 4, 6, 10)
    warped = warp(features, straight(6, 10).expand(2, 5, 3, 6, 10, 2), by_gather)
    wanted = features.permute(0, 1, 3, 4, 2)[:, :, None].expand(2, 3, 5, 6, 10, 4)
    torch.testing.assert_close(warped, wanted, atol=1e-5, rtol=0)


def test_gathers_sample_as_grid_sample_does_beyond_the_border_too() -> None:
    features = torch.randn(2, 3, 4, 6, 10)
    grid = torch.randn(2, 2, 3, 6, 10, 2)
    assert (grid.abs() > 1).any()
    torch.testing.assert_close(warp(features, grid, True), warp(features, grid), atol=1e-5, rtol=0)


def test_a_shift_brings_the_content_at_p_plus_d() -> None:
    features = torch.randn(1, 1, 3, 8, 8)
    grid = (straight(8, 8) + torch.tensor([2 * 2 / 8, 0.0])).expand(1, 1, 1, 8, 8, 2)
    warped = warp(features, grid)[0, 0, 0].permute(2, 0, 1)
    torch.testing.assert_close(warped[..., :6], features[0, 0, :, :, 2:], atol=1e-5, rtol=0)


def test_mix_weighs_each_group_by_its_own_row() -> None:
    aligned = torch.randn(2, 3, 4, 5, 6, 8)  # B, X, T, h, w, C
    matrix = torch.randn(2, 4, 2, 3)
    mixed = mix(torch.cat(aligned.unbind(1), dim=-1), matrix)
    wanted = torch.zeros_like(mixed)
    for channel in range(8):
        for x in range(3):
            weight = matrix[:, :, channel // 4, x, None, None]
            wanted[..., channel] += weight * aligned[:, x, ..., channel]
    torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=1e-5)
