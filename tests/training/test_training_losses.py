"""Loss terms: zero for equal pictures, growing with the error they are named after, and differentiable."""

import sys

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (pip install 'thermal_enhance[train]')")

from thermal_enhance.metrics.image import gmsd
from thermal_enhance.training import losses


def pictures(seed=0, size=48):
    rng = np.random.default_rng(seed)
    stack = [cv2.GaussianBlur(rng.random((size, size)).astype(np.float32), (0, 0), 2) for _ in range(2)]
    return torch.from_numpy(np.stack(stack))[:, None] * 2 - 0.5


@pytest.mark.parametrize("name", sorted(losses.TERMS))
def test_terms_are_zero_for_equal_pictures_and_differentiable(name):
    truth = pictures()
    term = losses.TERMS[name]
    assert float(term(truth, truth)) == pytest.approx(0, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(truth.shape, generator=generator) * 0.05
    small, large = float(term(truth + 0.2 * noise, truth)), float(term(truth + noise, truth))
    assert 0 < small < large
    for start in (truth, truth + noise):
        made = start.clone().requires_grad_(True)
        term(made, truth).backward()
        assert torch.isfinite(made.grad).all()
    assert made.grad.abs().sum() > 0


def test_values_by_hand():
    made, truth = torch.full((1, 1, 4, 4), 0.5), torch.full((1, 1, 4, 4), 0.25)
    assert float(losses.l1(made, truth)) == pytest.approx(0.25)
    assert float(losses.l2(made, truth)) == pytest.approx(0.0625)
    assert float(losses.charbonnier(made, truth)) == pytest.approx(0.249002, abs=1e-6)
    assert float(losses.gradient_loss(made, truth)) == 0
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert float(losses.gradient_loss(ramp, torch.zeros_like(ramp))) == pytest.approx(0.5)
    assert float(losses.l1(made, truth, torch.full_like(made, 2.0))) == pytest.approx(0.5)


def test_gmsd_is_the_metric_but_for_its_border():
    truth = pictures(1, 128)
    made = truth + 0.1 * pictures(2, 128)
    expected = np.mean([gmsd(a[0].numpy(), b[0].numpy(), 1.0) for a, b in zip(made, truth)])
    assert float(losses.gmsd_loss(made, truth)) == pytest.approx(expected, rel=0.03)


def test_high_frequency_weights_find_the_detail():
    truth = torch.zeros(1, 1, 64, 64)
    truth[..., 32:] = 1.0
    weight = losses.high_frequency_weight(truth)
    assert weight.shape == truth.shape and float(weight.mean()) == pytest.approx(1, abs=1e-5)
    assert weight[0, 0, 10, 32] > 5 * weight[0, 0, 10, 5]
    assert torch.allclose(losses.high_frequency_weight(truth, strength=0), torch.ones_like(truth))
    assert torch.allclose(losses.high_frequency_weight(torch.ones(1, 1, 8, 8)), torch.ones(1, 1, 8, 8))


def test_gaussian_blur_is_opencvs():
    image = pictures()
    expected = cv2.GaussianBlur(image[0, 0].numpy(), (13, 13), 2.0, borderType=cv2.BORDER_REFLECT_101)
    np.testing.assert_allclose(losses.gaussian_blur(image, 2.0)[0, 0].numpy(), expected, atol=1e-5)
    flat = torch.full((2, 3, 4, 5), 0.3)
    assert torch.allclose(losses.gaussian_blur(flat, 3.0), flat)


def test_any_features_make_a_perceptual_distance():
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 8, 3, stride=2)
    distance = losses.feature_loss(lambda image: [first(image), second(first(image))])
    truth = pictures()
    assert float(distance(truth, truth).detach()) == pytest.approx(0, abs=1e-6)
    made = (truth + 0.1).requires_grad_(True)
    distance(made, truth).backward()
    assert made.grad.abs().sum() > 0


def test_the_weighted_sum_and_its_parts():
    made, truth = torch.full((1, 1, 8, 8), 0.5), torch.full((1, 1, 8, 8), 0.25)
    loss = losses.WeightedLoss({"l1": 2.0, "l2": 0.5, "gmsd": 0.0, "mine": 1.0}, extra={"mine": losses.l1})
    total, parts = loss(made, truth)
    assert parts == pytest.approx({"l1": 0.25, "l2": 0.0625, "mine": 0.25})
    assert float(total) == pytest.approx(0.5 + 0.03125 + 0.25)
    with_features = losses.WeightedLoss({"features": 1.0}, features=lambda image: [image])
    assert float(with_features(made, truth)[0]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ({"l3": 1.0}, r"loss.l3: no such term; known: .*charbonnier"),
        ({"features": 1.0}, "loss.features needs a feature extractor"),
        ({"l1": -1.0}, "loss.l1 must be at least 0"),
        ({"l1": 0.0}, "at least one term"),
        ({}, "at least one term"),
    ],
)
def test_impossible_weights_are_named(weights, reason):
    with pytest.raises(ValueError, match=reason):
        losses.WeightedLoss(weights)


def test_missing_lpips_is_told_with_its_substitutes(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install lpips, or use the terms gradient"):
        losses.WeightedLoss({"lpips": 1.0})
    losses.WeightedLoss({"lpips": 0.0, "l1": 1.0})


def test_lpips_gets_three_channels_from_minus_one_to_one(monkeypatch):
    seen = []

    class Fake(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()

        def forward(self, a, b):
            seen.extend([a, b])
            return (a - b).square().mean(dim=(1, 2, 3), keepdim=True)

    monkeypatch.setitem(sys.modules, "lpips", type("lpips", (), {"LPIPS": Fake}))
    made, truth = torch.ones(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    total, _ = losses.WeightedLoss({"lpips": 1.0})(made, truth)
    assert float(total) == pytest.approx(4.0)
    assert seen[0].shape == (2, 3, 8, 8) and float(seen[0].max()) == 1.0 and float(seen[1].min()) == -1.0


def test_a_backbone_that_cannot_be_had_is_told(monkeypatch):
    def offline(net, verbose):
        raise OSError("no route")

    monkeypatch.setitem(sys.modules, "lpips", type("lpips", (), {"LPIPS": staticmethod(offline)}))
    with pytest.raises(RuntimeError, match="backbone cannot be loaded or downloaded"):
        losses.LpipsLoss()
