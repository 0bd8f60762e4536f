"""Cross-modal image registration: the pieces that `alignment` runs one at a time.

Thermal and visible pictures of one scene share edges, not brightness, and an edge may be bright-to-dark in
one and dark-to-bright in the other. Two measures survive that:

 - the *double-angle orientation field* (gradient squared as a complex number, so that opposite directions
   agree; Granlund 1978), correlated by FFT for the coarse search and by Gauss-Newton for the basin;
 - *local correlation*: inside every window the colour band-pass may explain the thermal one with a gain of
   either sign. It is what guided upsampling lives on, so the last step maximises exactly that.

All matrices map grid pixels of the thermal picture to grid pixels of the luma picture, centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Matrix = NDArray[np.float64]

_TINY = 1e-9
_MODELS = {"translation": 2, "similarity": 4, "affine": 6, "homography": 8}


@dataclass(frozen=True)
class OrientationField:
    """Locally normalised double-angle gradient field.

    Attributes:
        cosine: (H, W) float32, strength times cos(2 angle).
        sine: (H, W) float32, strength times sin(2 angle).
    """

    cosine: Image
    sine: Image

    def smoothed(self, sigma: float) -> OrientationField:
        """The field blurred by a Gaussian of `sigma` pixels (widens the basin of convergence)."""
        return OrientationField(_blur(self.cosine, sigma), _blur(self.sine, sigma))

    @property
    def energy(self) -> float:
        """Root of the summed squared strength."""
        return float(np.sqrt(np.vdot(self.cosine, self.cosine) + np.vdot(self.sine, self.sine)))


def _blur(image: Image, sigma: float) -> Image:
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)


def _gradient(image: Image) -> tuple[Image, Image]:
    x = cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=3, scale=0.125)
    y = cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=3, scale=0.125)
    return np.asarray(x, np.float32), np.asarray(y, np.float32)


def orientation_field(image: Image, sigma: float, mask: Image | None = None) -> OrientationField:
    """Double-angle gradient field at scale `sigma`, divided by the local gradient energy.

    Args:
        image: (H, W) float32, about [0, 1].
        sigma: Gaussian scale of the derivative, pixels.
        mask: (H, W) float32 in {0, 1}; the field is zero where it is 0.
    """
    gx, gy = _gradient(_blur(image, sigma))
    power = gx * gx + gy * gy
    if mask is not None:
        power = power * mask
    # The floor keeps flat, noise-only areas from being blown up to full strength.
    local = np.sqrt(_blur(power, 6.0) + 1e-8)
    strength = 1.0 / (np.sqrt(power) * local + 0.5 * power + 1e-12)
    if mask is not None:
        strength = strength * mask
    return OrientationField((gx * gx - gy * gy) * strength, 2.0 * gx * gy * strength)


def warp_to_grid(luma: Image, matrix: Matrix, size: tuple[int, int]) -> tuple[Image, Image]:
    """Sample `luma` on the thermal grid.

    Args:
        luma: (h, w) float32.
        matrix: 3x3, grid pixel to luma pixel.
        size: (width, height) of the grid.

    Returns:
        (H, W) float32 picture (edges replicated) and (H, W) float32 mask, 1 where luma was really there.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(luma, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = inside_mask(matrix, size, (luma.shape[1], luma.shape[0]))
    eroded = cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1.0)
    return np.asarray(warped, np.float32), np.asarray(eroded, np.float32)


def inside_mask(matrix: Matrix, size: tuple[int, int], source: tuple[int, int]) -> Image:
    """(H, W) float32 mask: 1 where the grid pixel falls inside a source picture of (width, height)."""
    x = np.arange(size[0], dtype=np.float32)[None, :]
    y = np.arange(size[1], dtype=np.float32)[:, None]
    m = matrix.astype(np.float32)
    w = m[2, 0] * x + m[2, 1] * y + m[2, 2]
    u = m[0, 0] * x + m[0, 1] * y + m[0, 2]
    v = m[1, 0] * x + m[1, 1] * y + m[1, 2]
    limit_u, limit_v = source[0] - 0.5, source[1] - 0.5
    inside = (w > _TINY) & (u >= -0.5 * w) & (u <= limit_u * w) & (v >= -0.5 * w) & (v <= limit_v * w)
    return inside.astype(np.float32)


def similarity_matrix(size: tuple[int, int], scale: float, angle: float, dx: float, dy: float) -> Matrix:
    """Similarity about the centre of a (width, height) grid: scale, rotation (radians), shift (pixels)."""
    cx, cy = (size[0] - 1) / 2, (size[1] - 1) / 2
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return np.array([[c, -s, cx - c * cx + s * cy + dx], [s, c, cy - s * cx - c * cy + dy], [0.0, 0.0, 1.0]])


def rescale_matrix(matrix: Matrix, factor: tuple[float, float]) -> Matrix:
    """The same mapping between grids whose sides (both of them) are `factor` times as long."""
    k = np.array([[factor[0], 0, (factor[0] - 1) / 2], [0, factor[1], (factor[1] - 1) / 2], [0, 0, 1.0]])
    return k @ matrix @ np.linalg.inv(k)


def spectrum(field: OrientationField) -> NDArray[np.complexfloating]:
    """2-D FFT of the field as one complex picture."""
    return np.asarray(np.fft.fft2(field.cosine + 1j * field.sine))


def correlation_map(
    thermal: NDArray[np.complexfloating], energy: float, color: OrientationField
) -> NDArray[np.floating]:
    """Normalised circular cross-correlation of two orientation fields, (H, W), zero shift at [0, 0]."""
    product = thermal * np.conj(spectrum(color))
    return np.asarray(np.fft.ifft2(product).real / (energy * color.energy + _TINY))


def significance(thermal: OrientationField, color: OrientationField) -> float:
    """How far the match at zero shift stands out from that of all other shifts, in standard deviations.

    Unrelated pictures stay under about 6, aligned ones lie around 7 to 20.
    """
    surface = correlation_map(spectrum(thermal), thermal.energy, color)
    peak = max(float(surface[dy, dx]) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    return (peak - float(surface.mean())) / (float(surface.std()) + _TINY)


def best_shift(
    thermal: NDArray[np.complexfloating], energy: float, color: OrientationField, max_shift: float
) -> tuple[float, float, float]:
    """Best whole-pixel shift of the colour field, looked for by FFT.

    Args:
        thermal: spectrum of the thermal field.
        energy: its energy.
        color: field of the warped colour picture.
        max_shift: largest shift, as a share of each side.

    Returns:
        Correlation at the peak, and (dx, dy): thermal pixel x matches colour pixel x + d.
    """
    surface = correlation_map(thermal, energy, color)
    my, mx = (max(1, int(side * max_shift)) for side in surface.shape)
    window = np.roll(surface, (my, mx), (0, 1))[: 2 * my + 1, : 2 * mx + 1]
    row, column = np.unravel_index(int(window.argmax()), window.shape)
    return float(window[row, column]), -(float(column) - mx), -(float(row) - my)


class GaussNewton:
    """One registration problem on one grid; `step` does one bounded iteration.

    Args:
        thermal: (H, W) float32 in [0, 1].
        luma: (h, w) float32 in [0, 1]; any size.
        model: translation, similarity, affine or homography.
    """

    def __init__(self, thermal: Image, luma: Image, model: str = "similarity") -> None:
        if model not in _MODELS:
            raise ValueError(f"model must be one of {', '.join(_MODELS)}, not {model!r}")
        self.thermal, self.luma, self.model = thermal, luma, model
        height, width = thermal.shape
        self.size = (width, height)
        self._half = width / 2
        self._x = ((np.arange(width) - (width - 1) / 2) / self._half).astype(np.float32)[None, :]
        self._y = ((np.arange(height) - (height - 1) / 2) / self._half).astype(np.float32)[:, None]
        self._to_unit = np.array(
            [[1 / self._half, 0, -(width - 1) / width], [0, 1 / self._half, -(height - 1) / width], [0, 0, 1]]
        )
        self._from_unit = np.linalg.inv(self._to_unit)

    def orientation_step(self, matrix: Matrix, sigma: float, smooth: float) -> tuple[Matrix, float]:
        """One iteration on the orientation fields.

        Returns:
            The next matrix, and the agreement (-1 to 1) of the fields under the one given.
        """
        mine = orientation_field(self.thermal, sigma).smoothed(smooth)
        warped, mask = warp_to_grid(self.luma, matrix, self.size)
        theirs = orientation_field(warped, sigma, mask).smoothed(smooth)
        gain = mine.energy / (theirs.energy + _TINY)
        match = np.vdot(mine.cosine, theirs.cosine) + np.vdot(mine.sine, theirs.sine)
        agreement = float(match) / (mine.energy * theirs.energy + _TINY)
        freedom = _MODELS[self.model]
        normal, right = np.zeros((freedom, freedom)), np.zeros(freedom)
        for a, b in ((mine.cosine, theirs.cosine * gain), (mine.sine, theirs.sine * gain)):
            bx, by = _gradient(b)
            jacobian = self._jacobian(bx * mask, by * mask)
            normal = normal + jacobian @ jacobian.T
            right = right + jacobian @ ((a - b) * mask).ravel()
        return self._solve(matrix, normal, right, 0.1), agreement

    def local_step(self, matrix: Matrix, window: float, band: float) -> tuple[Matrix, float]:
        """One iteration on local correlation: thermal band = local signed gain x colour band.

        Args:
            matrix: current mapping.
            window: Gaussian sigma of the windows, pixels.
            band: coarse sigma of the band-pass, pixels (the fine one is 0.7).

        Returns:
            The next matrix, and the energy-weighted mean squared local correlation (0 to 1) under this one.
        """
        warped, mask = warp_to_grid(self.luma, matrix, self.size)
        a = _blur(self.thermal, 0.7) - _blur(self.thermal, band)
        b = (_blur(warped, 0.7) - _blur(warped, band)) * mask
        power_a, power_b = _blur(a * a, window) + 1e-6, _blur(b * b, window) + 1e-6
        covariance = _blur(a * b, window)
        gain = covariance / power_b
        rho2 = np.clip(covariance * gain / power_a, 0.0, 1.0)
        spread = np.sqrt(power_a)
        weight = spread * mask
        score = float((rho2 * weight).sum() / (weight.sum() + _TINY))
        # Dividing by the local contrast keeps one hot object from deciding alone.
        weight = mask * rho2 / spread
        bx, by = _gradient(b)
        jacobian = self._jacobian(bx * gain * weight, by * gain * weight)
        residual = ((a - gain * b) * weight).ravel()
        return self._solve(matrix, jacobian @ jacobian.T, jacobian @ residual, 0.05), score

    def _jacobian(self, bx: Image, by: Image) -> Image:
        bx, by = bx * np.float32(self._half), by * np.float32(self._half)
        x, y = self._x, self._y
        if self.model == "translation":
            rows = [bx, by]
        elif self.model == "similarity":
            rows = [bx, by, bx * x + by * y, by * x - bx * y]
        else:
            rows = [bx, by, bx * x, bx * y, by * x, by * y]
        if self.model == "homography":
            radial = bx * x + by * y
            rows += [radial * x, radial * y]
        return np.stack([row.ravel() for row in rows])

    def _solve(self, matrix: Matrix, normal: NDArray, right: NDArray, limit: float) -> Matrix:
        normal = normal.astype(np.float64)
        normal += np.eye(len(normal)) * (1e-3 * np.trace(normal) / len(normal) + 1e-12)
        p = np.linalg.solve(normal, right.astype(np.float64))
        largest = float(np.abs(p).max())
        if largest > limit:  # the linearisation holds for a few pixels only
            p = p * (limit / largest)
        delta = np.zeros((3, 3))
        delta[0, 2], delta[1, 2] = p[0], p[1]
        if self.model == "similarity":
            delta[:2, :2] = [[p[2], -p[3]], [p[3], p[2]]]
        elif self.model != "translation":
            delta[:2, :2] = [[p[2], p[3]], [p[4], p[5]]]
        if self.model == "homography":
            delta[2, :2] = -p[6:8]
        moved = matrix @ self._from_unit @ (np.eye(3) + delta) @ self._to_unit
        return np.asarray(moved / moved[2, 2])
