"""How old a frame is, also when the camera's clock is not ours."""

from __future__ import annotations

from collections import deque

WINDOW = 120
STEP_S = 0.5
"""A delay this much above all recent ones is either a stalled transport or a clock that was set."""
PLAUSIBLE_S = 60.0
"""No transport is this late: a step beyond it is a clock at once."""
STEP_FRAMES = 5
"""So many frames in a row decide for the clock; until then they count as late."""


class AgeGauge:
    """Age of frames by their stamps, corrected for a constant clock difference.

    A frame's age is now minus its stamp. If even the freshest of the recent frames looks older than
    `tolerance_s` (or younger than now), the two clocks differ; that difference is taken off, since
    dropping every frame of a camera with an unsynchronised clock would leave the robot blind.

    Args:
        tolerance_s: a smallest age beyond this is a clock difference, seconds.
    """

    def __init__(self, tolerance_s: float = 0.5) -> None:
        self._tolerance_s = tolerance_s
        self._recent: deque[float] = deque(maxlen=WINDOW)
        self._stepped: list[float] = []

    @property
    def baseline_s(self) -> float | None:
        """Smallest stamp age on arrival among recent frames, seconds; None before the first."""
        return min(self._recent) if self._recent else None

    @property
    def clocks_differ(self) -> bool:
        """Are the stamps evidently of another clock?"""
        baseline = self.baseline_s
        return baseline is not None and not -0.05 <= baseline <= self._tolerance_s

    def update(self, stamp_ns: int, now_ns: int, since_arrival_s: float) -> float:
        """Age in seconds of a frame stamped `stamp_ns` that arrived `since_arrival_s` ago."""
        age = (now_ns - stamp_ns) * 1e-9
        self._observe(age - since_arrival_s)
        return age - min(self._recent) if self.clocks_differ else age

    def _observe(self, on_arrival_s: float) -> None:
        if self._recent and on_arrival_s > min(self._recent) + PLAUSIBLE_S:
            self._recent.clear()
            self._recent.append(on_arrival_s)
        elif self._recent and on_arrival_s > min(self._recent) + STEP_S:
            self._stepped.append(on_arrival_s)
            if len(self._stepped) < STEP_FRAMES:
                return
            self._recent.clear()
            self._recent.extend(self._stepped)
        else:
            if self._recent and on_arrival_s < min(self._recent) - STEP_S:
                # Younger than any before: the earlier ages were of another clock.
                self._recent.clear()
            self._recent.append(on_arrival_s)
        self._stepped.clear()
