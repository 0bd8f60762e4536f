"""Cross-modal image registration: the pieces that `alignment_search` and `alignment_tiles` work with.

Thermal and visible pictures of one scene share edges, not brightness, and an edge may be bright-to-dark in
one and dark-to-bright in the other. The *double-angle orientation field* (gradient squared as a complex
number, so that opposite directions agree; Granlund 1978) survives that; it is correlated by FFT.

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


@dataclass(frozen=True)
class OrientationField:
    """Locally normalised double-angle gradient field.

    Attributes:
        cosine: (H, W) float32, strength times cos(2 angle).
        sine: (H, W) float32, strength times sin(2 angle).
    """

    cosine: Image
    sine: Image

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


def orientation_field(
    image: Image, sigma: float, mask: Image | None = None, neighbourhood: float = 6.0
) -> OrientationField:
    """Double-angle gradient field at scale `sigma`, divided by the local gradient energy.

    Args:
        image: (H, W) float32, about [0, 1].
        sigma: Gaussian scale of the derivative, pixels.
        mask: (H, W) float32 in {0, 1}; the field is zero where it is 0.
        neighbourhood: sigma over which gradient energy is averaged, pixels.
    """
    gx, gy = _gradient(_blur(image, sigma))
    power = gx * gx + gy * gy
    if mask is not None:
        power = power * mask
    # The floor keeps flat, noise-only areas from being blown up to full strength.
    local = np.sqrt(_blur(power, neighbourhood) + 1e-8)
    strength = 1.0 / (np.sqrt(power) * local + 0.5 * power + 1e-12)
    if mask is not None:
        strength = strength * mask
    return OrientationField((gx * gx - gy * gy) * strength, 2.0 * gx * gy * strength)


def warp_to_grid(
    luma: Image, matrix: Matrix, size: tuple[int, int], lit: Image | None = None
) -> tuple[Image, Image]:
    """Sample `luma` on the thermal grid.

    Args:
        luma: (h, w) float32.
        matrix: 3x3, grid pixel to luma pixel.
        size: (width, height) of the grid.
        lit: (h, w) float32 from `lit_area`; all of it if None.

    Returns:
        (H, W) float32 picture (edges replicated) and (H, W) float32 mask, 1 where luma was really there.
    """
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(luma, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = inside_mask(matrix, size, (luma.shape[1], luma.shape[0]))
    if lit is not None:
        seen = cv2.warpPerspective(lit, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        inside *= np.asarray(seen > 0.99, np.float32)
    eroded = cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=1.0)
    return np.asarray(warped, np.float32), np.asarray(eroded, np.float32)


def lit_area(luma: Image) -> Image | None:
    """Where a luma picture shows anything: (H, W) float32 mask, or None for everywhere.

    A picture that was warped before it came here has black wedges at its border, and their edges are the
    strongest in it. Only black that touches the border counts, and only where there is some of it.
    """
    black = (luma < 1.0 / 510).astype(np.uint8)
    rim = np.concatenate([black[0], black[-1], black[:, 0], black[:, -1]])
    if int(rim.sum()) < 8:
        return None
    count, labels, stats, _ = cv2.connectedComponentsWithStats(black, connectivity=4)
    on_rim = np.zeros(count, bool)
    on_rim[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    on_rim &= stats[:, cv2.CC_STAT_AREA] >= 0.001 * black.size
    on_rim[0] = False
    if not on_rim.any():
        return None
    # Interpolation has smeared the edge over a pixel or two.
    unlit = cv2.dilate(on_rim[labels].astype(np.uint8), np.ones((5, 5), np.uint8))
    return np.asarray(1 - unlit, np.float32)


def resize_to_width(image: NDArray[np.float32], width: int) -> Image:
    """`image` on a grid `width` pixels wide."""
    height = max(8, round(image.shape[0] * width / image.shape[1]))
    shrink = width < image.shape[1]
    method = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.float32)


def shrink_to_width(image: NDArray[np.float32], width: int) -> Image:
    """`image` reduced to `width` pixels; smaller ones are left alone."""
    return np.asarray(image, np.float32) if image.shape[1] <= width else resize_to_width(image, width)


def pixel_matrix(homography: Matrix, source: tuple[int, int], target: tuple[int, int]) -> Matrix:
    """Turn a matrix over [0, 1] coordinates into one over pixel centres of two (width, height) grids."""
    into = np.array([[1 / source[0], 0, 0.5 / source[0]], [0, 1 / source[1], 0.5 / source[1]], [0, 0, 1.0]])
    out = np.array([[target[0], 0, -0.5], [0, target[1], -0.5], [0, 0, 1.0]])
    return np.asarray(out @ homography @ into)


def unit_matrix(matrix: Matrix, source: tuple[int, int], target: tuple[int, int]) -> Matrix:
    """The inverse of `pixel_matrix`: over pixel centres in, over [0, 1] coordinates out."""
    into = np.array([[1 / target[0], 0, 0.5 / target[0]], [0, 1 / target[1], 0.5 / target[1]], [0, 0, 1.0]])
    out = np.array([[source[0], 0, -0.5], [0, source[1], -0.5], [0, 0, 1.0]])
    unit = into @ matrix @ out
    return np.asarray(unit / unit[2, 2])


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

    Aligned pictures lie around 7 to 20; of unrelated ones hardly any pass 7, after a search for the best.
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
