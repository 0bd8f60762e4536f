"""Loss terms on pictures: fidelity, edges, structure, detail, and a perceptual distance that plugs in.

3M-TI minimises L2 plus LPIPS (METHODS 1.7). LPIPS needs a backbone that has to be downloaded; `features`
takes any function to feature maps in its place, for instance the encoder of our own trained autoencoder, and
`gradient` and `gmsd` need nothing at all. All take (B, C, H, W) tensors of one unit and span.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Term = Callable[[Tensor, Tensor], Tensor]
Features = Callable[[Tensor], Sequence[Tensor]]

GMSD_CONSTANT = 170.0 / 255.0**2
"""Of Xue et al. (2014), for a span of 1."""


def l1(made: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error, weighted by a map that broadcasts over the pictures."""
    return _mean((made - truth).abs(), weight)


def l2(made: Tensor, truth: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared error."""
    return _mean((made - truth).square(), weight)


def charbonnier(made: Tensor, truth: Tensor, weight: Tensor | None = None, epsilon: float = 1e-3) -> Tensor:
    """sqrt(e**2 + epsilon**2) - epsilon: L1 without its kink, 0 for equal pictures (Lai et al., 2017)."""
    return _mean(((made - truth).square() + epsilon**2).sqrt() - epsilon, weight)


def gradient_loss(made: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of the finite differences along rows and columns, halved."""
    return (
        sum(((made.diff(dim=d) - truth.diff(dim=d)).abs().mean() for d in (-1, -2)), made.new_zeros(())) / 2
    )


def gmsd_loss(made: Tensor, truth: Tensor, span: float = 1.0, epsilon: float = 1e-10) -> Tensor:
    """Deviation of the gradient magnitude similarity (Xue et al., 2014): `metrics.image.gmsd` to learn by.

    Halved pictures, Prewitt gradients, without the border; the roots are rounded off by `epsilon`, where
    they have no derivative.

    Args:
        made: (B, 1, H, W), at least 6x6.
        truth: the same.
        span: of possible values.
        epsilon: small against GMSD_CONSTANT squared gradients.

    Returns:
        Mean over the batch, 0 for equal pictures.
    """
    first, second = (_prewitt(functional.avg_pool2d(image / span, 2), epsilon) for image in (made, truth))
    similarity = (2 * first * second + GMSD_CONSTANT) / (first.square() + second.square() + GMSD_CONSTANT)
    variance = similarity.flatten(1).var(dim=1, unbiased=False)
    return ((variance + epsilon).sqrt() - epsilon**0.5).mean()


def high_frequency_weight(truth: Tensor, strength: float = 4.0, sigma_px: float = 2.0) -> Tensor:
    """Weights that grow with the detail of the truth: 1 + strength |d| / mean |d|, d = truth - blurred truth.

    Most of a thermal picture is smooth and solved; what is left to learn is where the detail is.

    Args:
        truth: (B, C, H, W).
        strength: 0 for weights of 1.
        sigma_px: of the Gaussian.

    Returns:
        The same shape, without gradient, of mean 1 over each picture.
    """
    with torch.no_grad():
        detail = (truth - gaussian_blur(truth, sigma_px)).abs()
        mean = detail.mean(dim=(1, 2, 3), keepdim=True)
        weight = 1 + strength * detail / mean.clamp_min(1e-6)
        return weight / weight.mean(dim=(1, 2, 3), keepdim=True)


def high_frequency_l1(made: Tensor, truth: Tensor, strength: float = 4.0, sigma_px: float = 2.0) -> Tensor:
    """L1 under `high_frequency_weight`."""
    return l1(made, truth, high_frequency_weight(truth, strength, sigma_px))


def gaussian_blur(image: Tensor, sigma_px: float) -> Tensor:
    """Separable Gaussian blur, mirrored at the border: (B, C, H, W) to the same."""
    radius = min(max(1, round(3 * sigma_px)), image.shape[-1] - 1, image.shape[-2] - 1)
    x = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / sigma_px).square())
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, -1)
    padded = functional.pad(image, (radius,) * 4, mode="reflect")
    rows = functional.conv2d(padded, kernel[:, :, None, :], groups=image.shape[1])
    return functional.conv2d(rows, kernel[:, :, :, None], groups=image.shape[1])


def feature_loss(features: Features) -> Term:
    """A perceptual distance from any feature extractor, in the manner of LPIPS without its learnt weights.

    Args:
        features: (B, C, H, W) to feature maps (B, c, h, w); frozen, but open to gradients of its input.

    Returns:
        Mean over the maps of the squared distance between features of unit length.
    """

    def distance(made: Tensor, truth: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = [functional.normalize(f, dim=1) for f in features(truth)]
        found = [functional.normalize(f, dim=1) for f in features(made)]
        terms = [(a - b).square().sum(dim=1).mean() for a, b in zip(found, wanted)]
        return torch.stack(terms).mean()

    return distance


class LpipsLoss(nn.Module):
    """LPIPS (Zhang et al., 2018) by the `lpips` package: VGG in training, as in METHODS 1.7.

    Args:
        net: "vgg" or "alex".
        span: of possible values; pictures from 0 to span.

    Raises:
        ModuleNotFoundError: the package is not installed.
        RuntimeError: its backbone is not on this machine and cannot be downloaded.
    """

    def __init__(self, net: str = "vgg", span: float = 1.0) -> None:
        super().__init__()
        try:
            import lpips
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "loss.lpips needs the package lpips: pip install lpips, or use the terms gradient, gmsd or "
                "features",
                name="lpips",
            ) from error
        self._span = span
        try:
            self._distance = lpips.LPIPS(net=net, verbose=False).requires_grad_(False).eval()
        except OSError as error:
            raise RuntimeError(
                f"loss.lpips: the {net} backbone cannot be loaded or downloaded ({error}); use the terms "
                "gradient, gmsd or features"
            ) from error

    def forward(self, made: Tensor, truth: Tensor) -> Tensor:
        """Mean distance of gray or RGB pictures."""
        signed = [2 * image / self._span - 1 for image in (made, truth)]
        gray = made.shape[1] == 1
        first, second = (image.expand(-1, 3, -1, -1) if gray else image for image in signed)
        distance: Tensor = self._distance(first, second)
        return distance.mean()


TERMS: Mapping[str, Term] = {
    "l1": l1,
    "l2": l2,
    "charbonnier": charbonnier,
    "gradient": gradient_loss,
    "gmsd": gmsd_loss,
    "high_frequency": high_frequency_l1,
}
"""Terms that need nothing but the pictures, from 0 to 1."""


class WeightedLoss:
    """The weighted sum of a recipe's `loss` terms, on pictures from 0 to 1.

    Args:
        weights: by name: those of `TERMS`, "lpips", or of `extra`. A weight of 0 leaves a term out.
        extra: terms of the method's own.
        features: what "features" compares, see `feature_loss`.
        device: of "lpips".

    Raises:
        ValueError: an unknown or impossible term.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        extra: Mapping[str, Term] | None = None,
        features: Features | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        known: dict[str, Term] = {**TERMS, **(extra or {})}
        if features is not None:
            known["features"] = feature_loss(features)
        self._terms: dict[str, tuple[float, Term]] = {}
        for name, weight in weights.items():
            if name == "lpips" and weight and name not in known:
                known[name] = LpipsLoss().to(device)
            if name == "features" and name not in known:
                raise ValueError("loss.features needs a feature extractor, which this method does not give")
            if name not in known and name != "lpips":
                raise ValueError(f"loss.{name}: no such term; known: {', '.join(sorted({*known, 'lpips'}))}")
            if not weight >= 0:
                raise ValueError(f"loss.{name} must be at least 0, not {weight}")
            if weight:
                self._terms[name] = (weight, known[name])
        if not self._terms:
            raise ValueError("loss: at least one term must have a weight greater than 0")

    def __call__(self, made: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, float]]:
        """(sum, the terms without their weights)."""
        total, parts = made.new_zeros(()), {}
        for name, (weight, term) in self._terms.items():
            value = term(made, truth)
            total = total + weight * value
            parts[name] = float(value.detach())
        return total, parts


def _mean(error: Tensor, weight: Tensor | None) -> Tensor:
    return error.mean() if weight is None else (error * weight).mean()


def _prewitt(image: Tensor, epsilon: float) -> Tensor:
    """Gradient magnitude of each channel, without the border."""
    kernel = image.new_tensor([[1.0, 0.0, -1.0]] * 3) / 3
    stack = torch.stack([kernel, kernel.T])[:, None]
    flat = image.reshape(-1, 1, *image.shape[-2:])
    gradient = functional.conv2d(flat, stack)
    magnitude = (gradient.square().sum(dim=1, keepdim=True) + epsilon).sqrt()
    return magnitude.reshape(*image.shape[:2], *magnitude.shape[-2:])
