"""What an uncalibrated colour camera does to a training pair: the augmentation of METHODS 1.11.

3M-TI shows shifts, scales, rotations and projections of the RGB picture but publishes no numbers; these are
ours. The thermal picture is never warped. A `matrix` maps pixels of the thermal grid to pixels of the aligned
RGB picture (cv2's WARP_INVERSE_MAP), so in the picture that `warp_color` returns, what belongs to thermal
pixel p is found at inv(matrix) p: that inverse is the truth for a network that estimates alignment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

FILLS = ("black", "reflect")
Matrix = NDArray[np.float64]
Color = NDArray[np.uint8]


@dataclass(frozen=True)
class MisalignmentConfig:
    """Ranges and probabilities. Lengths are shares of the side of the picture.

    Attributes:
        shift_probability: how often the RGB picture is shifted.
        shift: largest shift, either way, along each side.
        scale_probability: how often it is scaled.
        scale: range of the factor by which its content grows.
        rotation_probability: how often it is rotated.
        rotation_deg: largest angle, either way, degrees.
        perspective_probability: how often its corners are pulled.
        perspective: largest pull of a corner along each side.
        fov_probability: how often the RGB camera sees more than the thermal one.
        fov_ratio: range of its view over the thermal one's, drawn for each side (1.62 x 1.21 in the
            paper's rig).
        reflect_probability: how often what lies outside the picture is its mirror image; else it is black.
        dark_probability: how often the picture is darkened.
        dark_gamma: range of the exponent.
        motion_blur_probability: how often it is smeared.
        motion_blur_px: longest smear, pixels.
    """

    shift_probability: float = 0.5
    shift: float = 0.08
    scale_probability: float = 0.5
    scale: tuple[float, float] = (0.85, 1.2)
    rotation_probability: float = 0.5
    rotation_deg: float = 12.0
    perspective_probability: float = 0.5
    perspective: float = 0.08
    fov_probability: float = 0.0
    fov_ratio: tuple[float, float] = (1.0, 1.8)
    reflect_probability: float = 0.3
    dark_probability: float = 0.3
    dark_gamma: tuple[float, float] = (1.0, 4.0)
    motion_blur_probability: float = 0.2
    motion_blur_px: float = 12.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if name.endswith("_probability") and not 0 <= value <= 1:
                raise ValueError(f"misalignment.{name} must be within 0..1, not {value}")
        for name, highest in (("shift", 1.0), ("perspective", 0.24), ("rotation_deg", 180.0)):
            value = getattr(self, name)
            # Corners pulled by a quarter of the side could meet: the map would not be invertible.
            if not 0 <= value <= highest:
                raise ValueError(f"misalignment.{name} must be within 0..{highest:g}, not {value}")
        for name in ("scale", "fov_ratio", "dark_gamma"):
            low, high = getattr(self, name)
            if not (math.isfinite(high) and 0 < low <= high):
                raise ValueError(f"misalignment.{name} must be a range within 0 < low <= high: {low}, {high}")
        if not 0 <= self.motion_blur_px <= 200:
            raise ValueError(f"misalignment.motion_blur_px must be within 0..200, not {self.motion_blur_px}")

    @classmethod
    def off(cls) -> MisalignmentConfig:
        """Aligned, bright and sharp."""
        names = [name for name in cls.__dataclass_fields__ if name.endswith("_probability")]
        never: dict[str, Any] = dict.fromkeys(names, 0.0)
        return cls(**never)

    def scaled(self, strength: float) -> MisalignmentConfig:
        """The same geometry with all ranges shrunk: 0 gives the identity, 1 all of it (for a curriculum).

        Raises:
            ValueError: strength is not within 0..1.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be within 0..1, not {strength}")
        return replace(
            self,
            shift=self.shift * strength,
            scale=(self.scale[0] ** strength, self.scale[1] ** strength),
            rotation_deg=self.rotation_deg * strength,
            perspective=self.perspective * strength,
            fov_ratio=(self.fov_ratio[0] ** strength, self.fov_ratio[1] ** strength),
        )


def random_homography(
    rng: np.random.Generator, size: tuple[int, int], config: MisalignmentConfig
) -> tuple[Matrix, str]:
    """Draw where the RGB camera looks.

    Args:
        rng: source of randomness.
        size: (width, height) of the picture, pixels.
        config: ranges and probabilities.

    Returns:
        (3, 3) float64, thermal pixels to pixels of the aligned RGB picture, invertible over the picture;
        exactly the identity if nothing was drawn. And the fill, one of `FILLS`.
    """
    width, height = size
    fill = "reflect" if rng.random() < config.reflect_probability else "black"
    matrix = np.eye(3)
    if rng.random() < config.fov_probability:
        matrix = np.diag((rng.uniform(*config.fov_ratio), rng.uniform(*config.fov_ratio), 1.0))
    if rng.random() < config.scale_probability:
        # Content grows by s where the map shrinks by it.
        factor = 1 / rng.uniform(*config.scale)
        matrix = np.diag((factor, factor, 1.0)) @ matrix
    if rng.random() < config.rotation_probability:
        angle = math.radians(rng.uniform(-config.rotation_deg, config.rotation_deg))
        cosine, sine = math.cos(angle), math.sin(angle)
        matrix = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]]) @ matrix
    if rng.random() < config.shift_probability:
        shift = rng.uniform(-config.shift, config.shift, 2) * (width, height)
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]]) @ matrix
    if rng.random() < config.perspective_probability:
        pull = rng.uniform(0, config.perspective)
        matrix = _perspective(rng.uniform(-pull, pull, (4, 2)), size) @ matrix
    if np.array_equal(matrix, np.eye(3)):
        return matrix, fill
    centre = np.array([[1, 0, (width - 1) / 2], [0, 1, (height - 1) / 2], [0, 0, 1.0]])
    matrix = centre @ matrix @ np.linalg.inv(centre)
    return matrix / matrix[2, 2], fill


def _perspective(pull: NDArray[np.float64], size: tuple[int, int]) -> Matrix:
    """Corners of a centred picture moved by `pull` (4, 2), in shares of the sides."""
    half = np.array(size, np.float64) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64) * half
    moved = corners + pull * 2 * half
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), moved.astype(np.float32))
    return np.asarray(matrix, np.float64)


def corner_displacement(matrix: Matrix, size: tuple[int, int]) -> NDArray[np.float64]:
    """How far the corner pixels of a (width, height) picture move: (4, 2) pixels."""
    width, height = size
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
    mapped = np.concatenate([corners, np.ones((4, 1))], axis=1) @ matrix.T
    return np.asarray(mapped[:, :2] / mapped[:, 2:] - corners)


def warp_color(color: Color, matrix: Matrix, fill: str = "black", *, margin: int = 0) -> Color:
    """Look at an RGB picture through a homography (bilinear).

    Args:
        color: (h + 2 margin, w + 2 margin, 3) uint8.
        matrix: (3, 3), pixels of the result to pixels of the inner (h, w) part of `color`.
        fill: what lies outside `color`, one of `FILLS`.
        margin: pixels of real surroundings around the inner part, so that a warp finds picture there.

    Returns:
        (h, w, 3) uint8; the inner part itself for the identity.

    Raises:
        ValueError: unknown fill, or no picture inside the margin.
    """
    if fill not in FILLS:
        raise ValueError(f"fill must be one of {', '.join(FILLS)}, not {fill!r}")
    height, width = color.shape[0] - 2 * margin, color.shape[1] - 2 * margin
    if margin < 0 or height < 1 or width < 1:
        raise ValueError(f"a margin of {margin} leaves nothing of a picture {color.shape}")
    if np.array_equal(matrix, np.eye(3)):
        return np.ascontiguousarray(color[margin : margin + height, margin : margin + width])
    offset = np.array([[1, 0, margin], [0, 1, margin], [0, 0, 1.0]])
    border = cv2.BORDER_REFLECT_101 if fill == "reflect" else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(color, offset @ matrix, (width, height), flags=flags, borderMode=border)
    return np.asarray(warped, np.uint8)


def degrade_color(color: Color, rng: np.random.Generator, config: MisalignmentConfig) -> Color:
    """Darken and smear an RGB picture at random: (H, W, 3) uint8 to the same."""
    if rng.random() < config.dark_probability:
        color = darken(color, rng.uniform(*config.dark_gamma))
    if rng.random() < config.motion_blur_probability:
        color = motion_blur(color, rng.uniform(0, config.motion_blur_px), rng.uniform(0, math.pi))
    return color


def darken(color: Color, gamma: float) -> Color:
    """Raise to a power: 255 (x / 255) ** gamma, (H, W, 3) uint8."""
    table = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)
    return np.asarray(cv2.LUT(color, table), np.uint8)


def motion_blur(color: Color, length_px: float, angle_rad: float) -> Color:
    """Smear along a line: (H, W, 3) uint8. Up to one pixel nothing happens."""
    side = 2 * math.ceil(length_px / 2) + 1
    if length_px <= 1:
        return color
    kernel: NDArray[Any] = np.zeros((side, side), np.float32)
    reach = np.linspace(-length_px / 2, length_px / 2, 8 * side)
    rows = np.rint(side // 2 + reach * math.sin(angle_rad)).astype(int)
    columns = np.rint(side // 2 + reach * math.cos(angle_rad)).astype(int)
    np.add.at(kernel, (rows, columns), np.float32(1 / reach.size))
    return np.asarray(cv2.filter2D(color, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)
