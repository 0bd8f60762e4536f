"""Where frames leave the pipeline: interpolated ones beside the real ones, and every topic in stamp order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from thermal_enhance.nodes.statistics import FrameStatistics

if TYPE_CHECKING:
    from thermal_enhance.nodes.pipeline import FrameResult


class Outlet:
    """Publishes results so that stamps rise on each topic, whatever tier made what. Belongs to one thread.

    A tier that looks ahead gives a frame later than one that does not: where one takes over from the other, a
    frame may be shown twice or come too late, and is dropped.

    Args:
        publish: called with each frame that leaves.
        statistics: where interpolated frames that do not leave are counted.
        log: called with (level, sentence).
    """

    def __init__(
        self,
        publish: Callable[[FrameResult], None],
        statistics: FrameStatistics,
        log: Callable[[str, str], None],
    ) -> None:
        self._publish = publish
        self._statistics = statistics
        self._log = log
        self._shown_ns: dict[bool, int] = {}

    def restart(self) -> None:
        """A new timeline: stamps may be smaller than before."""
        self._shown_ns.clear()

    def send(self, result: FrameResult, newest_first: bool) -> str:
        """Publish a frame and the interpolated ones that come with it.

        Args:
            result: the frame, its `frame.extra` the interpolated ones.
            newest_first: the frame first, and the others on topics of their own; else all in stamp order.

        Returns:
            Why the frame itself was not published: "already_shown" or "out_of_order"; empty when it was.
            An interpolated frame that is not is counted as an event.
        """
        dropped = ""
        for part in _parts(result, newest_first):
            stamp_ns, shown_ns = part.frame.thermal.stamp_ns, self._shown_ns.get(part.aside)
            late = shown_ns is not None and stamp_ns <= shown_ns
            if part.interpolated:
                if late or not self._published(part):
                    self._statistics.event("interpolated_late" if late else "interpolated_failed")
                    continue
            elif late:
                dropped = "already_shown" if stamp_ns == shown_ns else "out_of_order"
                continue
            else:
                self._publish(part)
            self._shown_ns[part.aside] = stamp_ns
        return dropped

    def _published(self, part: FrameResult) -> bool:
        """Publish an interpolated frame: what goes wrong with it costs no real one."""
        try:
            self._publish(part)
        except Exception as error:
            self._log("error", f"interpolated frame not published: {type(error).__name__}: {error}")
            return False
        return True


def _parts(result: FrameResult, newest_first: bool) -> Iterator[FrameResult]:
    """The frame and its interpolated ones, in the order in which they are to leave."""
    if newest_first:
        yield result
    for thermal in result.frame.extra:
        # It has no input to be true to, and no RGB frame of its own.
        frame = replace(
            result.frame, thermal=thermal, extra=(), rgb_trust=math.nan, consistency_residual=math.nan
        )
        yield replace(
            result,
            frame=frame,
            pair=replace(result.pair, color=None, skew_ns=None),
            stage_ms=dict(result.stage_ms),
            interpolated=True,
            aside=newest_first,
        )
    if not newest_first:
        yield result
