"""The TFM loss: zero for heat that spreads, and no reward for edges or stillness where it is gated."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")

from thermal_enhance.training.tfm_loss import MAX_DIFFUSIVITY, TfmConfig, TfmLoss


def heat(diffusivity: float, frames: int = 3) -> torch.Tensor:
    """A mode of the heat equation on a grid: (1, frames, 32, 32) within 0..1, exact in space and time."""
    x = torch.arange(32, dtype=torch.float64)
    wave = torch.cos(torch.pi * (x + 0.5) * 3 / 32)
    rate = diffusivity * (2 - 2 * torch.cos(torch.tensor(torch.pi * 3 / 32, dtype=torch.float64)))
    times = torch.arange(frames, dtype=torch.float64)
    # The central difference in time of exp(-r t) is sinh(r): corrected, so that the residual is 0.
    exact = torch.asinh(rate)
    return (0.5 + 0.3 * torch.exp(-exact * times)[:, None, None] * wave[None, None])[None].expand(
        1, frames, 32, 32
    )


def moving() -> torch.Tensor:
    """A soft edge that moves by a pixel a step: (1, 3, 32, 32)."""
    x = torch.arange(32, dtype=torch.float64)
    return torch.stack([torch.sigmoid(x - 15 - t).expand(32, 32) for t in range(3)])[None]


def test_spreading_heat_costs_nothing() -> None:
    loss = TfmLoss(TfmConfig(kind="paper", alpha=0.0, diffusivity=0.15)).double()
    assert float(loss(heat(0.15), heat(0.15)).detach()) < 1e-12
    assert float(loss(heat(0.05), heat(0.05)).detach()) > 1e-8


def test_the_diffusivity_is_learnt() -> None:
    loss = TfmLoss(TfmConfig(kind="paper", alpha=0.0, diffusivity=0.05)).double()
    optimiser = torch.optim.Adam(loss.parameters(), lr=0.2)
    for _ in range(40):
        optimiser.zero_grad()
        loss(heat(0.15), heat(0.15)).backward()
        optimiser.step()
    assert float(loss.diffusivity.detach()) == pytest.approx(0.15, abs=0.02)
    with torch.no_grad():
        loss.rho.fill_(3.0)
    assert float(loss.diffusivity.detach()) == pytest.approx(MAX_DIFFUSIVITY)


def test_motion_is_not_held_against_a_frame_where_it_is_gated_or_matched() -> None:
    truth = moving()
    paper, gated, match = (TfmLoss(TfmConfig(kind=kind)).double() for kind in ("paper", "gated", "match"))
    assert float(match(truth, truth).detach()) == 0
    assert float(gated(truth, truth)) < 0.7 * float(paper(truth, truth))
    # Frozen frames please the paper's loss, and not the matching one.
    frozen = truth[:, 1:2].expand(-1, 3, -1, -1)
    assert float(paper(frozen, truth)) < float(paper(truth, truth))
    assert float(match(frozen, truth)) > 1e-6


def test_adding_edges_is_not_rewarded() -> None:
    made = moving().requires_grad_()
    loss = TfmLoss(TfmConfig(kind="paper")).double()
    loss(made, moving()).backward()
    assert made.grad is not None
    # The weight is detached: with the residual's own gradient alone, a step against it lowers the residual.
    with torch.no_grad():
        better = made - 1e-2 * made.grad / made.grad.abs().max()
        assert loss.residual(better).square().sum() < loss.residual(made).square().sum()


def test_only_valid_clips_count() -> None:
    loss = TfmLoss(TfmConfig(kind="paper")).double()
    both = torch.cat([moving(), heat(0.2)])
    alone = float(loss(moving(), moving()))
    assert float(loss(both, both, torch.tensor([1.0, 0.0]))) == pytest.approx(alone)
    assert float(loss(both, both, torch.tensor([0.0, 0.0]))) == 0


def test_what_cannot_be_is_refused() -> None:
    for bad in ({"kind": "soft"}, {"diffusivity": 0.3}, {"quantile": 0.0}, {"ramp": 2.0}):
        with pytest.raises(ValueError, match=r"task\.tfm"):
            TfmConfig(**bad)  # type: ignore[arg-type]
