"""Online estimate of where the thermal picture lies in the RGB picture.

The cameras are neither calibrated nor aligned, but they are bolted together: one slowly refined matrix for
the whole stream is right (parallax of near objects stays, and is what the per-frame trust is for). A job of
search and refinement (`alignment_search`) runs in small pieces, a few each frame, so that no frame pays for
all of it; a result is taken only when it stands out from chance, is plausible, and two jobs agree where it
would jump.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.alignment_config import Alignment, AlignmentConfig, corner_distance
from thermal_enhance.imaging.alignment_search import SEARCH_WIDTH, AlignmentSearch, plausible
from thermal_enhance.imaging.alignment_tiles import Found
from thermal_enhance.imaging.registration import (
    Image,
    Matrix,
    lit_area,
    orientation_field,
    pixel_matrix,
    resize_to_width,
    shrink_to_width,
    significance,
    unit_matrix,
    warp_to_grid,
)

__all__ = [
    "Alignment",
    "AlignmentConfig",
    "AlignmentEstimator",
    "corner_distance",
    "pixel_matrix",
    "unit_matrix",
]


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
        self._job: Iterator[Found | None] | None = None
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
                self._job = self._job_from("full", thermal.copy(), luma.copy(), self._matrix)
            elif self._since_job >= self.config.refine_period:
                self._job = self._job_from("refine", thermal.copy(), luma.copy(), self._matrix)
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
        """Search and refine on this one pair to the end (offline; 50 to 400 ms); no state is kept."""
        guess = self.config.first_guess()
        found = _result(AlignmentSearch(self.config, thermal, luma).full(guess))
        return self._judge(found, thermal, luma, skew_s)

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
            found = _result(AlignmentSearch(self.config, thermal, luma).refine(self._matrix))
            fresh = self._judge(found, thermal, luma, skew_s)
        if self._pooled == 0:
            self._matrix, self._pooled = fresh.homography, int(fresh.accepted and fresh.trust > 0)
            return fresh
        near = corner_distance(fresh.homography, self._matrix) <= self.config.max_jump
        if near and fresh.accepted and fresh.trust > 0:
            self._pooled = min(self._pooled + 1, 30)
            self._matrix = self._matrix + (fresh.homography - self._matrix) / self._pooled
        kept = self.assess(thermal, luma, self._matrix, skew_s, accepted=True)
        if not near and fresh.accepted and fresh.trust > 0:
            # By the same measure: a search's own evidence is on another scale.
            found_agrees = self.assess(thermal, luma, fresh.homography, skew_s, accepted=True).significance
            if found_agrees > 1.2 * kept.significance:
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
        grid_thermal, grid_luma = (
            resize_to_width(thermal, SEARCH_WIDTH),
            shrink_to_width(luma, 2 * SEARCH_WIDTH),
        )
        size = (grid_thermal.shape[1], grid_thermal.shape[0])
        pixels = pixel_matrix(matrix, size, (grid_luma.shape[1], grid_luma.shape[0]))
        warped, mask = warp_to_grid(grid_luma, pixels, size, lit_area(grid_luma))
        stands_out = significance(orientation_field(grid_thermal, 0.8), orientation_field(warped, 0.8, mask))
        config = self.config
        skew = 0.0 if math.isnan(skew_s) else abs(skew_s)
        factors = {
            "structure": _ramp(stands_out, config.trust_from, config.trust_full),
            "dark": _ramp(float(grid_luma.std()), 0.013, 0.04),
            "blur": _ramp(_sharpness(grid_luma), 0.14, 0.3),
            "skew": 1.0 - _ramp(skew, config.skew_full_s, config.skew_zero_s),
        }
        weakest = min(factors, key=lambda name: factors[name])
        trust = math.prod(factors.values())
        known = self._accepted if accepted is None else accepted
        reason = f"rgb_{weakest}" if factors[weakest] < 0.5 else "" if known else self._reason
        return Alignment(matrix.copy(), trust, known, reason, stands_out)

    def _judge(self, found: Found, thermal: Image, luma: Image, skew_s: float) -> Alignment:
        """What a search by itself is worth: nothing when its evidence may be chance."""
        config = self.config
        belief = _ramp(found.score, config.search_from, config.search_full)
        if belief == 0.0 or not plausible(found.matrix, config):
            guess = self.assess(thermal, luma, config.first_guess(), skew_s, accepted=False)
            return replace(guess, trust=0.0, reason="rgb_structure" if belief == 0.0 else "implausible")
        alignment = self.assess(thermal, luma, found.matrix, skew_s, accepted=True)
        return replace(alignment, trust=alignment.trust * belief, significance=found.score)

    def _take(self, result: Found, thermal: Image, luma: Image) -> None:
        """Accept, blend, hold back for confirmation or refuse the result of a job."""
        config, found = self.config, result.matrix
        if not plausible(found, config):
            self._reason = "implausible"
            return
        fresh, current = (self.assess(thermal, luma, matrix).significance for matrix in (found, self._matrix))
        if result.score < config.search_from or fresh < 0.9 * current:
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

    def _job_from(self, kind: str, thermal: Image, luma: Image, start: Matrix) -> Iterator[Found | None]:
        search = AlignmentSearch(self.config, thermal, luma)
        yield None
        yield from search.full(start) if kind == "full" else search.refine(start)


def _result(job: Iterator[Found | None]) -> Found:
    return next(found for found in job if found is not None)


def _sharpness(luma: Image) -> float:
    """Energy of the finest octave over that of the next: above 1.3 when sharp, 1/9 at the blurriest."""
    fine = cv2.GaussianBlur(luma, (0, 0), 1.0)
    coarse = cv2.GaussianBlur(luma, (0, 0), 2.0)
    return float(np.var(luma - fine) / (np.var(fine - coarse) + 1e-9))
