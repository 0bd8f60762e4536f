"""Parameters and result of the alignment of thermal with RGB."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thermal_enhance.imaging.registration import Matrix, pixel_matrix

ALIGNMENT_MODELS = ("translation", "similarity", "stretch", "affine", "homography")
_CORNERS = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])


@dataclass(frozen=True)
class AlignmentConfig:
    """Parameters of `AlignmentEstimator`.

    Attributes:
        initial_homography: 9 numbers, row by row: thermal to RGB, both in [0, 1] across their width and
            height; None for the field-of-view ratio or, without one, the identity.
        rgb_fov_deg: (horizontal, vertical) field of view of the RGB camera, degrees; None if unknown.
        thermal_fov_deg: the same of the thermal camera.
        model: what refinement may change: translation, similarity, stretch (a similarity with a scale for
            each axis), affine or homography.
        search_scale: largest scale error of the first guess that is searched for, as a ratio (1.2 = 20 %).
        search_rotation_deg: largest rotation searched for, either way.
        search_shift: largest shift searched for, as a share of the side.
        search_fov: how much more RGB may see than the first guess says, along either axis, as a ratio; looked
            at only when nothing convincing is found nearer. 1 for not at all.
        candidates: how many results of the coarse search are refined.
        pieces_per_frame: pieces of the job (0.5 to 3 ms each) run in one `update`.
        refine_period: frames between two refinements once locked.
        blend: weight of a new estimate in the running one.
        max_jump: corner movement, as a share of the width, that a second estimate must confirm.
        max_perspective: largest |h31|, |h32| accepted.
        search_from: evidence (standard deviations above chance, after searching) from which what a search
            found is believed at all: unrelated pictures reach it about once in a hundred.
        search_full: the same at which it is believed without reserve.
        keep_guess: share of the best evidence at which the first guess is kept as it is: registered or
            calibrated pairs then stay where they are. Above 1: never.
        keep_simple: the same for a simpler model than what was found: a similarity of the first guess, or one
            with a scale for each axis.
        trust_from: significance (standard deviations above chance) at which trust starts to rise from 0.
        trust_full: significance at which trust is 1.
        lost_after: frames without agreement before the lock is given up and a search starts.
        skew_full_s: |RGB stamp - thermal stamp| up to which trust is not reduced, seconds.
        skew_zero_s: the same at which trust reaches 0, seconds.
    """

    initial_homography: tuple[float, ...] | None = None
    rgb_fov_deg: tuple[float, float] | None = None
    thermal_fov_deg: tuple[float, float] | None = None
    model: str = "homography"
    search_scale: float = 1.2
    search_rotation_deg: float = 8.0
    search_shift: float = 0.15
    search_fov: float = 1.8
    candidates: int = 4
    pieces_per_frame: int = 1
    refine_period: int = 30
    blend: float = 0.3
    max_jump: float = 0.02
    max_perspective: float = 0.4
    search_from: float = 7.5
    search_full: float = 9.0
    keep_guess: float = 0.8
    keep_simple: float = 0.9
    trust_from: float = 3.2
    trust_full: float = 5.0
    lost_after: int = 45
    skew_full_s: float = 0.02
    skew_zero_s: float = 0.3

    def __post_init__(self) -> None:
        if self.initial_homography is not None and len(self.initial_homography) != 9:
            raise ValueError("initial_homography needs 9 numbers, row by row")
        if (self.rgb_fov_deg is None) != (self.thermal_fov_deg is None):
            raise ValueError("rgb_fov_deg and thermal_fov_deg must be set together")
        for name in ("rgb_fov_deg", "thermal_fov_deg"):
            fov = getattr(self, name)
            if fov is not None and (len(fov) != 2 or not all(0 < angle < 170 for angle in fov)):
                raise ValueError(f"{name} needs two angles between 0 and 170 degrees, not {fov}")
        if self.model not in ALIGNMENT_MODELS:
            raise ValueError(f"model must be one of {', '.join(ALIGNMENT_MODELS)}, not {self.model!r}")
        if not 1.0 <= self.search_scale <= 2.0 or not 0.0 <= self.search_rotation_deg <= 45.0:
            raise ValueError("search_scale must lie in 1..2 and search_rotation_deg in 0..45")
        if not 1.0 <= self.search_fov <= 3.0:
            raise ValueError("search_fov must lie in 1..3")
        if not 0.0 < self.search_from < self.search_full:
            raise ValueError("search_from must be positive and smaller than search_full")
        for name in ("keep_guess", "keep_simple"):
            if not getattr(self, name) > 0.5:
                raise ValueError(f"{name} must be above 0.5 (above 1 for never), not {getattr(self, name)}")
        if not 0.0 < self.search_shift <= 0.45:
            raise ValueError("search_shift must lie in (0, 0.45]")
        if min(self.pieces_per_frame, self.refine_period, self.lost_after, self.candidates) < 1:
            raise ValueError("pieces_per_frame, refine_period, lost_after and candidates must be at least 1")
        if not 0.0 < self.blend <= 1.0 or not 0.0 <= self.trust_from < self.trust_full:
            raise ValueError("blend must lie in (0, 1] and trust_from below trust_full")
        if not 0.0 <= self.skew_full_s < self.skew_zero_s:
            raise ValueError("skew_full_s must be smaller than skew_zero_s")

    def first_guess(self) -> Matrix:
        """3x3 thermal-to-RGB matrix in [0, 1] coordinates before anything was seen."""
        if self.initial_homography is not None:
            return np.asarray(self.initial_homography, np.float64).reshape(3, 3)
        if self.rgb_fov_deg is None or self.thermal_fov_deg is None:
            return np.eye(3)
        ratio = [
            math.tan(math.radians(mine / 2)) / math.tan(math.radians(theirs / 2))
            for mine, theirs in zip(self.thermal_fov_deg, self.rgb_fov_deg)
        ]
        return np.array([[ratio[0], 0, 0.5 - ratio[0] / 2], [0, ratio[1], 0.5 - ratio[1] / 2], [0, 0, 1.0]])


@dataclass(frozen=True)
class Alignment:
    """What is known about the pair of cameras at one frame.

    Attributes:
        homography: 3x3, thermal to RGB, both in [0, 1] across width and height (pixel (x, y) of a picture
            of width W and height H lies at ((x + 0.5) / W, (y + 0.5) / H)).
        trust: 0 (do not use RGB) to 1, for this very frame.
        accepted: a refined estimate stands behind the matrix, not only the first guess.
        reason: why trust is low, or what happened last; empty when all is well.
        significance: agreement of structure in this frame, standard deviations above chance.
    """

    homography: Matrix
    trust: float
    accepted: bool
    reason: str = ""
    significance: float = 0.0

    def pixel_matrix(self, thermal_size: tuple[int, int], color_size: tuple[int, int]) -> Matrix:
        """3x3 from pixel centres of a thermal grid (width, height) to those of an RGB picture."""
        return pixel_matrix(self.homography, thermal_size, color_size)


def corner_distance(a: Matrix, b: Matrix) -> float:
    """Largest movement of a thermal corner in the RGB picture, as a share of its width."""
    pa, pb = a @ _CORNERS, b @ _CORNERS
    return float(np.abs(pa[:2] / pa[2] - pb[:2] / pb[2]).max())
