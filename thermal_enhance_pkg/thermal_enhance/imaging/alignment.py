"""Online estimate of where the thermal picture lies in the RGB picture.

The cameras are neither calibrated nor aligned, but they are bolted together: one slowly refined matrix for
the whole stream is right (parallax of near objects stays, and is what the per-frame trust is for). A job of
coarse search and refinement runs in small pieces, a few each frame, so that no frame pays for all of it; a
result is taken only when it stands out from chance, is plausible, and two jobs agree where it would jump.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.registration import (
    GaussNewton,
    Image,
    Matrix,
    best_shift,
    orientation_field,
    significance,
    similarity_matrix,
    spectrum,
    warp_to_grid,
)

_SEARCH_WIDTH = 80
_CORNERS = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])


@dataclass(frozen=True)
class AlignmentConfig:
    """Parameters of `AlignmentEstimator`.

    Attributes:
        initial_homography: 9 numbers, row by row: thermal to RGB, both in [0, 1] across their width and
            height; None for the field-of-view ratio or, without one, the identity.
        rgb_fov_deg: (horizontal, vertical) field of view of the RGB camera, degrees; None if unknown.
        thermal_fov_deg: the same of the thermal camera.
        model: what refinement may change: translation, similarity, affine or homography.
        search_scale: largest scale error of the first guess that is searched for, as a ratio (1.2 = 20 %).
        search_rotation_deg: largest rotation searched for, either way.
        search_shift: largest shift searched for, as a share of the side.
        pieces_per_frame: pieces of the job (0.5 to 3 ms each) run in one `update`.
        refine_period: frames between two refinements once locked.
        blend: weight of a new estimate in the running one.
        max_jump: corner movement, as a share of the width, that a second estimate must confirm.
        max_perspective: largest |h31|, |h32| accepted.
        trust_from: significance (standard deviations above chance) at which trust starts to rise from 0.
        trust_full: significance at which trust is 1.
        lost_after: frames without agreement before the lock is given up and a search starts.
        skew_full_s: |RGB stamp - thermal stamp| up to which trust is not reduced, seconds.
        skew_zero_s: the same at which trust reaches 0, seconds.
    """

    initial_homography: tuple[float, ...] | None = None
    rgb_fov_deg: tuple[float, float] | None = None
    thermal_fov_deg: tuple[float, float] | None = None
    model: str = "similarity"
    search_scale: float = 1.2
    search_rotation_deg: float = 8.0
    search_shift: float = 0.15
    pieces_per_frame: int = 1
    refine_period: int = 30
    blend: float = 0.3
    max_jump: float = 0.02
    max_perspective: float = 0.3
    trust_from: float = 4.0
    trust_full: float = 6.0
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
        if self.model not in ("translation", "similarity", "affine", "homography"):
            raise ValueError(
                f"model must be translation, similarity, affine or homography, not {self.model!r}"
            )
        if not 1.0 <= self.search_scale <= 2.0 or not 0.0 <= self.search_rotation_deg <= 45.0:
            raise ValueError("search_scale must lie in 1..2 and search_rotation_deg in 0..45")
        if not 0.0 < self.search_shift <= 0.45:
            raise ValueError("search_shift must lie in (0, 0.45]")
        if min(self.pieces_per_frame, self.refine_period, self.lost_after) < 1:
            raise ValueError("pieces_per_frame, refine_period and lost_after must be at least 1")
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


def corner_distance(a: Matrix, b: Matrix) -> float:
    """Largest movement of a thermal corner in the RGB picture, as a share of its width."""
    pa, pb = a @ _CORNERS, b @ _CORNERS
    return float(np.abs(pa[:2] / pa[2] - pb[:2] / pb[2]).max())


def _ramp(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))


class AlignmentEstimator:
    """Keeps the thermal-to-RGB matrix of one camera pair up to date.

    Args:
        config: see `AlignmentConfig`.
    """

    def __init__(self, config: AlignmentConfig | None = None) -> None:
        self.config = config or AlignmentConfig()
        self.reset("start")

    def reset(self, reason: str) -> None:
        """Go back to the first guess (new cameras, new size)."""
        self._matrix = self.config.first_guess()
        self._accepted = False
        self._reason = reason
        self._job: Iterator[Matrix | None] | None = None
        self._since_job = 0
        self._weak_frames = 0
        self._pending: Matrix | None = None
        self._thumbnail: NDArray[np.float32] | None = None
        self._pooled = 0

    def update(
        self, thermal: NDArray[np.float32], luma: NDArray[np.float32], stamp_ns: int = 0, skew_s: float = 0.0
    ) -> Alignment:
        """Take one pair in; run the next piece of work; say where things stand.

        Args:
            thermal: (h, w) float32, normalised to [0, 1] alike over the stream.
            luma: (h', w') float32 in [0, 1]; any size, about 320 wide is enough.
            stamp_ns: stamp of the thermal frame (kept for the caller's logs; order is what matters).
            skew_s: RGB stamp minus thermal stamp, seconds.

        Returns:
            The alignment to use for this frame.
        """
        del stamp_ns
        if self._job is None:
            self._since_job += 1
            if not self._accepted:
                self._job = self._full_job(thermal.copy(), luma.copy(), self._matrix)
            elif self._since_job >= self.config.refine_period:
                self._job = self._refine_job(thermal.copy(), luma.copy(), self._matrix)
        for _ in range(self.config.pieces_per_frame):
            if self._job is None:
                break
            try:
                found = next(self._job)
            except StopIteration:  # a job always ends on a result
                self._job = None
                break
            if found is not None:
                self._job, self._since_job = None, 0
                self._take(found, thermal, luma)
        alignment = self.assess(thermal, luma, self._matrix, skew_s)
        self._watch(alignment.significance)
        return alignment

    def estimate(
        self, thermal: NDArray[np.float32], luma: NDArray[np.float32], skew_s: float = 0.0
    ) -> Alignment:
        """Search and refine on this one pair to the end (offline; 60 to 150 ms); no state is kept.

        The first guess itself is refined too and wins a tie, so that a registered pair stays registered.
        """
        guess = self.config.first_guess()
        candidates = []
        for job in (self._refine_job(thermal, luma, guess), self._full_job(thermal, luma, guess)):
            found = next(matrix for matrix in job if matrix is not None)
            if self._plausible(found, guess):
                candidates.append(self.assess(thermal, luma, found, skew_s, accepted=True))
                if candidates[-1].significance >= 1.5 * self.config.trust_full:
                    break
        fallback = self.assess(thermal, luma, guess, skew_s)
        best = max(candidates, key=lambda found: found.significance, default=fallback)
        return best if best.significance >= 0.9 * fallback.significance else fallback

    def follow(
        self, thermal: NDArray[np.float32], luma: NDArray[np.float32], skew_s: float = 0.0
    ) -> Alignment:
        """`estimate` for a folder: pools consecutive frames of a clip, starts anew with every other scene.

        Frames that look alike (thumbnail correlation above 0.9) are taken to come from one clip of one rig:
        their estimates are averaged and later ones only refined. A still of another scene inherits nothing.
        """
        small = cv2.resize(thermal, (32, 24), interpolation=cv2.INTER_AREA)
        thumbnail = np.asarray(small, np.float32).ravel()
        if self._thumbnail is None or not np.corrcoef(thumbnail, self._thumbnail)[0, 1] > 0.9:
            self._pooled = 0
        self._thumbnail = thumbnail
        if self._pooled < 3:
            fresh = self.estimate(thermal, luma, skew_s)
        else:
            found = next(m for m in self._refine_job(thermal, luma, self._matrix) if m is not None)
            fresh = self.assess(thermal, luma, found, skew_s, accepted=True)
        if self._pooled == 0:
            self._matrix, self._pooled = fresh.homography, int(fresh.accepted and fresh.trust > 0)
            return fresh
        near = corner_distance(fresh.homography, self._matrix) <= self.config.max_jump
        if near and fresh.accepted and fresh.trust > 0:
            self._pooled = min(self._pooled + 1, 30)
            self._matrix = self._matrix + (fresh.homography - self._matrix) / self._pooled
        kept = self.assess(thermal, luma, self._matrix, skew_s, accepted=True)
        if not near and fresh.significance > 1.2 * kept.significance:
            self._matrix, self._pooled = fresh.homography, 1
            return fresh
        return kept

    def assess(
        self,
        thermal: NDArray[np.float32],
        luma: NDArray[np.float32],
        matrix: Matrix,
        skew_s: float = 0.0,
        accepted: bool | None = None,
    ) -> Alignment:
        """Trust in `matrix` for this pair: structure, darkness, blur and time skew (about 1 ms)."""
        grid_thermal, grid_luma = _grid(thermal, _SEARCH_WIDTH), _shrink(luma, 2 * _SEARCH_WIDTH)
        size = (grid_thermal.shape[1], grid_thermal.shape[0])
        pixels = pixel_matrix(matrix, size, (grid_luma.shape[1], grid_luma.shape[0]))
        warped, mask = warp_to_grid(grid_luma, pixels, size)
        stands_out = significance(orientation_field(grid_thermal, 0.8), orientation_field(warped, 0.8, mask))
        config = self.config
        skew = 0.0 if math.isnan(skew_s) else abs(skew_s)
        factors = {
            "structure": _ramp(stands_out, config.trust_from, config.trust_full),
            "dark": _ramp(float(grid_luma.std()), 0.008, 0.03),
            "blur": _ramp(_sharpness(grid_luma), 0.14, 0.3),
            "skew": 1.0 - _ramp(skew, config.skew_full_s, config.skew_zero_s),
        }
        weakest = min(factors, key=lambda name: factors[name])
        trust = math.prod(factors.values())
        reason = f"rgb_{weakest}" if factors[weakest] < 0.5 else self._reason if not self._accepted else ""
        known = self._accepted if accepted is None else accepted
        return Alignment(matrix.copy(), trust, known, reason, stands_out)

    def _take(self, found: Matrix, thermal: Image, luma: Image) -> None:
        """Accept, blend, hold back for confirmation or refuse the result of a job."""
        config = self.config
        if not self._plausible(found, config.first_guess()):
            self._reason = "implausible"
            return
        fresh, current = (self.assess(thermal, luma, matrix).significance for matrix in (found, self._matrix))
        if fresh < config.trust_from or fresh < 0.9 * current:
            self._reason = "unsure"
            return
        if self._accepted and corner_distance(found, self._matrix) > config.max_jump:
            if self._pending is None or corner_distance(found, self._pending) > config.max_jump:
                self._pending, self._reason = found, "jump"
                return
            self._matrix = found
        elif self._accepted:
            # Corners move along straight lines for small steps, so blending matrices blends corners.
            self._matrix = (1.0 - config.blend) * self._matrix + config.blend * found
        else:
            self._matrix = found
        self._pending, self._accepted, self._reason = None, True, ""

    def _watch(self, stands_out: float) -> None:
        """Hysteresis: only a long run of frames without agreement gives up the lock."""
        if stands_out >= self.config.trust_from:
            self._weak_frames = 0
            return
        self._weak_frames += 1
        if self._accepted and self._weak_frames >= self.config.lost_after:
            self._accepted, self._job, self._pending, self._reason = False, None, None, "lost"
            self._weak_frames = 0

    def _plausible(self, matrix: Matrix, guess: Matrix) -> bool:
        """Within the search range of the first guess, and nearly free of perspective?"""
        if not np.isfinite(matrix).all() or np.abs(matrix[2, :2]).max() > self.config.max_perspective:
            return False
        change = np.linalg.inv(guess) @ matrix
        stretch = np.linalg.svd(change[:2, :2] / change[2, 2], compute_uv=False)
        slack = 1.15 * self.config.search_scale
        return bool(stretch.max() < slack and stretch.min() > 1 / slack)

    def _full_job(self, thermal: Image, luma: Image, start: Matrix) -> Iterator[Matrix | None]:
        """Coarse search from `start`, refinement of the three best; yields None between pieces."""
        config = self.config
        small, small_luma = _grid(thermal, _SEARCH_WIDTH), _shrink(luma, 2 * _SEARCH_WIDTH)
        size = (small.shape[1], small.shape[0])
        luma_size = (small_luma.shape[1], small_luma.shape[0])
        base = pixel_matrix(start, size, luma_size)
        field = orientation_field(small, 1.0)
        mine, energy = spectrum(field), field.energy
        found: list[tuple[float, Matrix]] = []
        angles = (
            np.deg2rad(np.linspace(-1, 1, _steps(config.search_rotation_deg, 4.0)))
            * config.search_rotation_deg
        )
        log_scale = math.log(config.search_scale)
        scales = np.exp(np.linspace(-log_scale, log_scale, _steps(log_scale, 0.06)))
        for scale in scales:
            for angle in angles:
                matrix = base @ similarity_matrix(size, float(scale), float(angle), 0.0, 0.0)
                warped, mask = warp_to_grid(small_luma, matrix, size)
                theirs = orientation_field(warped, 1.0, mask)
                score, dx, dy = best_shift(mine, energy, theirs, config.search_shift)
                found.append((score, matrix @ similarity_matrix(size, 1.0, 0.0, dx, dy)))
            yield None
        found.sort(key=lambda entry: -entry[0])
        # The first guess is a candidate too: for a registered rig nothing beats it.
        tries = [unit_matrix(m, size, luma_size) for _, m in found[:3]] + [start]
        best: tuple[float, Matrix] = (-2.0, start)
        for candidate in tries:
            solver = self._solver(thermal, luma, "similarity")
            matrix, agreement = solver.pixels(candidate), 0.0
            for _ in range(8):
                matrix, agreement = solver.orientation_step(matrix, 2.0, 3.0)
                yield None
            if agreement > best[0]:
                best = (agreement, solver.units(matrix))
        yield from self._refine_job(thermal, luma, best[1])

    def _refine_job(self, thermal: Image, luma: Image, start: Matrix) -> Iterator[Matrix | None]:
        """Refine `start`: orientation first, then local correlation; the best seen is the result."""
        solver = self._solver(thermal, luma, "similarity")
        matrix = solver.pixels(start)
        for _ in range(8):
            matrix, _ = solver.orientation_step(matrix, 1.5, 1.5)
            yield None
        models = ["similarity"] + ([self.config.model] if self.config.model != "similarity" else [])
        best: tuple[float, Matrix] = (-1.0, matrix)
        for model in models:
            fine = self._solver(thermal, luma, model)
            matrix = best[1]
            for _ in range(9):
                moved, score = fine.local_step(matrix, 5.0, 2.5)
                # More freedom must pay for itself: noise alone buys a little.
                if score > best[0] * (1.0 if model == models[0] else 1.02):
                    best = (score, matrix)
                matrix = moved
                yield None
        yield solver.units(best[1])

    def _solver(self, thermal: Image, luma: Image, model: str) -> _GridSolver:
        return _GridSolver(_grid(thermal, 2 * _SEARCH_WIDTH), _shrink(luma, 4 * _SEARCH_WIDTH), model)


class _GridSolver(GaussNewton):
    """`GaussNewton` that also converts to and from [0, 1] coordinates."""

    def pixels(self, unit: Matrix) -> Matrix:
        return pixel_matrix(unit, self.size, (self.luma.shape[1], self.luma.shape[0]))

    def units(self, pixels: Matrix) -> Matrix:
        return unit_matrix(pixels, self.size, (self.luma.shape[1], self.luma.shape[0]))


def _steps(reach: float, step: float) -> int:
    return 2 * math.ceil(reach / step) + 1


def _grid(image: NDArray[np.float32], width: int) -> Image:
    """`image` on a grid `width` pixels wide."""
    height = max(8, round(image.shape[0] * width / image.shape[1]))
    shrink = width < image.shape[1]
    method = cv2.INTER_AREA if shrink else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (width, height), interpolation=method), np.float32)


def _shrink(image: NDArray[np.float32], width: int) -> Image:
    """`image` reduced to `width` pixels; smaller ones are left alone."""
    return np.asarray(image, np.float32) if image.shape[1] <= width else _grid(image, width)


def _sharpness(luma: Image) -> float:
    """Energy of the finest octave over that of the next: above 1.3 when sharp, 1/9 at the blurriest."""
    fine = cv2.GaussianBlur(luma, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(luma, (0, 0), 2.0)
    return float(np.var(luma - fine) / (np.var(fine - coarse) + 1e-9))
