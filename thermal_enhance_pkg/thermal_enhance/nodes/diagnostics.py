"""/diagnostics of the enhancement node: one status a subject, a level, and what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from thermal_enhance.enhancers.ladder import LadderStatus, QualityLadder
from thermal_enhance.imaging.frames import FfcState
from thermal_enhance.nodes.enhancement_config import EnhancementConfig
from thermal_enhance.nodes.ladders import LadderChoice
from thermal_enhance.nodes.pipeline import EnhancementPipeline

SETTLE_S = 5.0
"""Nothing is called missing before the graph has had time to find it."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


def status(name: str, level: bytes, message: str, values: dict[str, Any] | None = None) -> DiagnosticStatus:
    """One diagnostic status."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id="thermal_enhance",
        values=[KeyValue(key=str(key), value=str(value)) for key, value in (values or {}).items()],
    )


@dataclass(frozen=True)
class Recent:
    """What happened in the last seconds: differences of two snapshots.

    Attributes:
        frames_in: thermal frames that arrived.
        frames_out: frames published.
        paired: of those, with RGB.
        dropped: thermal frames dropped, by reason.
    """

    frames_in: int
    frames_out: int
    paired: int
    dropped: dict[str, int]

    @staticmethod
    def between(before: dict[str, Any], now: dict[str, Any]) -> Recent:
        """From an earlier snapshot to a later one of the same activation."""
        dropped = {
            reason: count - before["dropped"].get(reason, 0) for reason, count in now["dropped"].items()
        }
        return Recent(
            now["frames_in"] - before["frames_in"],
            now["frames_out"] - before["frames_out"],
            now["paired"] - before["paired"],
            {reason: count for reason, count in dropped.items() if count > 0},
        )


def enhancement_diagnostics(
    *,
    node_name: str,
    state: str,
    config: EnhancementConfig,
    statistics: dict[str, Any],
    recent: Recent,
    ladder: QualityLadder | None,
    choice: LadderChoice,
    pipeline: EnhancementPipeline,
    qos_problems: list[str],
    stamp: Any,
) -> DiagnosticArray:
    """The node's health, from the statistics of `FrameStatistics.snapshot`."""
    array = DiagnosticArray()
    array.header.stamp = stamp
    parts = [
        _input_status(state, statistics, recent),
        ("qos", ERROR if qos_problems else OK, "; ".join(qos_problems) or "compatible", {}),
        _pairing_status(state, config, statistics, recent, ladder, pipeline),
        _tier_status(statistics, ladder, choice),
        _latency_status(config, statistics, recent, pipeline),
        _shutter_status(pipeline.ffc_state, statistics),
    ]
    for subject, level, message, values in parts:
        array.status.append(status(f"{node_name}: {subject}", level, message, values))
    return array


class TierWatch:
    """Says once what happens to the tiers: a model is ready, one is given up, another makes the frames."""

    def __init__(self) -> None:
        self._details: dict[str, str] = {}
        self._disabled: set[str] = set()
        self._current = ""

    def changes(self, report: LadderStatus) -> list[tuple[str, str]]:
        """(level, sentence) of what has changed since the last call."""
        said = []
        for tier in report.tiers:
            if tier.detail and tier.detail != self._details.get(tier.name):
                said.append(("info", f"tier {tier.name} is ready: {tier.detail}"))
            if tier.state == "disabled" and tier.name not in self._disabled:
                said.append(("error", f"tier {tier.name} is disabled: {tier.reason}"))
        self._details = {tier.name: tier.detail for tier in report.tiers}
        self._disabled = {tier.name for tier in report.tiers if tier.state == "disabled"}
        if report.current and report.current != self._current:
            self._current = report.current
            why = f": {report.reason}" if report.reason else ""
            said.append(("info", f"frames are now made by tier {report.current}{why}"))
        return said


Part = tuple[str, bytes, str, dict[str, Any]]


def _input_status(state: str, statistics: dict[str, Any], recent: Recent) -> Part:
    values = {
        "state": state,
        "frames_in": statistics["frames_in"],
        "frames_out": statistics["frames_out"],
        "thermal_rate_hz": statistics["rates_hz"]["thermal"],
        "rgb_rate_hz": statistics["rates_hz"]["rgb"],
        "interpolated_out": statistics["interpolated_out"],
        **{f"dropped_{reason}": count for reason, count in statistics["dropped"].items()},
        **statistics["events"],
    }
    if state != "active":
        return "input", OK, f"node is {state}", values
    if statistics["frames_in"] == 0:
        return (
            "input",
            WARN,
            "no thermal frame has arrived yet: check the topic name and its remapping",
            values,
        )
    if statistics["rates_hz"]["thermal"] == 0.0:
        return "input", ERROR, "thermal frames have stopped: check the thermal camera", values
    malformed = {k: v for k, v in recent.dropped.items() if k.startswith("malformed")}
    if malformed:
        return "input", WARN, f"malformed thermal messages: {malformed}", values
    if recent.dropped.get("error"):
        return "input", ERROR, f"{recent.dropped['error']} frames lost to errors: see the log", values
    return "input", OK, f"thermal at {statistics['rates_hz']['thermal']:.1f} Hz", values


def _pairing_status(
    state: str,
    config: EnhancementConfig,
    statistics: dict[str, Any],
    recent: Recent,
    ladder: QualityLadder | None,
    pipeline: EnhancementPipeline,
) -> Part:
    values = {
        "paired": statistics["paired"],
        "alone": statistics["frames_out"] - statistics["paired"],
        **{f"skew_ms_{k}": v for k, v in statistics["pair_skew_ms"].items()},
        **{f"rgb_dropped_{reason}": count for reason, count in pipeline.rgb_drops.items()},
    }
    if state != "active" or not config.use_rgb or ladder is None or not ladder.uses_rgb:
        return "pairing", OK, "RGB is not used", values
    if statistics["active_s"] < SETTLE_S or recent.frames_out == 0:
        return "pairing", OK, "just started", values
    if statistics["rates_hz"]["rgb"] == 0.0:
        return "pairing", WARN, "no RGB frames: enhancing from thermal alone", values
    miss = pipeline.nearest_miss_ms
    if miss is not None and recent.paired < 0.5 * recent.frames_out:
        return (
            "pairing",
            WARN,
            f"nearest RGB frame is {abs(miss):.0f} ms away, slop is {config.slop * 1e3:.0f} ms: "
            "check the cameras' clocks, set rgb_offset, or raise slop",
            values,
        )
    return "pairing", OK, f"{recent.paired} of the last {recent.frames_out} frames paired", values


def _tier_status(statistics: dict[str, Any], ladder: QualityLadder | None, choice: LadderChoice) -> Part:
    values = {f"frames_{tier}": count for tier, count in statistics["tiers"].items()}
    values.update({f"stepped_down_{reason}": count for reason, count in statistics["tier_reasons"].items()})
    if ladder is None:
        return "tier", OK, "not configured", values
    report = ladder.status()
    for tier in report.tiers:
        values[f"state_{tier.name}"] = f"{tier.state} {tier.reason}".strip()
        values[f"p95_ms_{tier.name}"] = f"{tier.p95_ms:.1f}"
        if tier.detail:
            values[f"model_{tier.name}"] = tier.detail
        values.update({f"{name}_{tier.name}": count for name, count in tier.counters.items()})
    disabled = [tier for tier in report.tiers if tier.state == "disabled"]
    if disabled:
        return "tier", ERROR, f"{disabled[0].name} is disabled: {disabled[0].reason}", values
    if choice.reason:
        return "tier", WARN, choice.reason, values
    if report.reason:
        return "tier", WARN, f"running {report.current}: {report.reason}", values
    return "tier", OK, f"running {report.current or choice.mode}", values


def _latency_status(
    config: EnhancementConfig, statistics: dict[str, Any], recent: Recent, pipeline: EnhancementPipeline
) -> Part:
    latency = statistics["latency_ms"]
    values: dict[str, Any] = {f"total_ms_{k}": v for k, v in latency.items() if k != "by_stage"}
    for stage, numbers in latency.get("by_stage", {}).items():
        values.update({f"{stage}_ms_{k}": v for k, v in numbers.items()})
    offset = pipeline.clock_offset_s
    stale = recent.dropped.get("stale", 0)
    if offset is not None and not -0.05 <= offset <= 0.5:
        return (
            "latency",
            WARN,
            f"thermal stamps are {offset:.1f} s from the node's clock: synchronise the clocks, or set "
            "use_sim_time for a replayed bag",
            values,
        )
    if stale > 0.05 * max(recent.frames_in, 1):
        late = f", on arrival at least {offset:.2f} s" if offset is not None else ""
        return (
            "latency",
            WARN,
            f"{stale} of the last {recent.frames_in} frames were older than max_age "
            f"({config.max_age:.2f} s){late}: raise max_age, or find what delays them",
            values,
        )
    superseded = recent.dropped.get("superseded", 0)
    if superseded > 0.05 * max(recent.frames_in, 1):
        text = f"{superseded} of the last {recent.frames_in} frames dropped for lack of time: "
        return "latency", WARN, text + "lower scale, or choose a smaller mode", values
    return "latency", OK, f"p95 {latency.get('p95') or float('nan'):.1f} ms from callback to publish", values


def _shutter_status(state: FfcState, statistics: dict[str, Any]) -> Part:
    values = {"ffc_state": state.name.lower()}
    if state is FfcState.IN_PROGRESS:
        return "shutter", WARN, "the shutter is closed (FFC): the picture is frozen", values
    return "shutter", OK, state.name.lower().replace("_", " "), values
