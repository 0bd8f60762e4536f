"""The pairing benchmark: deterministic, so what it must show is asserted here."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from thermal_enhance.evaluation import bench_pairing
from thermal_enhance.evaluation.bench_pairing import BenchRow, compare, first_fit, main, run
from thermal_enhance.evaluation.pairing_traces import (
    Event,
    Trace,
    generated_traces,
    read_trace,
    recorded_traces,
    write_trace,
)

MS = 1_000_000
SLOP = 40 * MS
SITUATIONS = {"steady", "jitter", "loss", "reorder", "thermal9", "rgb9", "offset", "jump", "jump9"}


def row(trace: Trace) -> BenchRow:
    return compare(trace, first_fit, SLOP)


@pytest.mark.parametrize("trace", recorded_traces(), ids=lambda trace: trace.name)
def test_never_worse_on_recorded_traces(trace: Trace) -> None:
    measured = row(trace)
    assert measured.never_worse or not trace.gated, measured


@pytest.mark.parametrize("seed", range(4))
def test_never_worse_on_generated_traces(seed: int) -> None:
    traces = generated_traces(seed, 20)
    assert {trace.name for trace in traces if trace.gated} == SITUATIONS
    for trace in traces:
        measured = row(trace)
        assert measured.never_worse or not trace.gated, measured
        assert sum(measured.dropped.values()) == 0


def test_all_situations_are_recorded() -> None:
    names = {trace.name for trace in recorded_traces() if trace.gated}
    assert names == SITUATIONS
    assert all(trace.thermal_frames > 60 for trace in recorded_traces())


@pytest.mark.parametrize("trace", recorded_traces() + generated_traces(1, 20), ids=lambda t: t.name)
def test_thermal_never_waits_longer_than_the_slop(trace: Trace) -> None:
    ours, dropped = bench_pairing.run_ours(trace, bench_pairing.PairConfig(slop_ns=SLOP))
    assert max(match.waited_ns for match in ours.values()) <= SLOP
    assert len(ours) + sum(dropped.values()) == trace.thermal_frames


@pytest.mark.parametrize("source", ["recorded", "generated"])
def test_pairing_goes_on_after_the_jump_where_the_reference_stops(source: str) -> None:
    traces = recorded_traces() if source == "recorded" else generated_traces(1, 20)
    (trace,) = (t for t in traces if t.name == "jump9")
    measured = row(trace)
    assert measured.after_jump is not None and measured.after_jump_reference is not None
    later = sum(e.stream == "thermal" and e.arrival_ns >= (trace.jump_at or 0) for e in trace.events)
    assert measured.after_jump >= 0.95 * later
    assert measured.after_jump_reference < 0.2 * later


def test_restated_rule() -> None:
    pairs: list[tuple[int, int]] = []
    feed = first_fit(40, 2, lambda thermal, color: pairs.append((thermal, color)))
    feed("thermal", 100, 0)
    feed("color", 140, 1)  # strict: exactly the slop is too far
    assert pairs == []
    feed("color", 139, 2)  # the first fit
    feed("color", 100, 3)  # the best comes too late
    assert pairs == [(0, 2)]
    feed("thermal", 300, 4)
    feed("thermal", 400, 5)  # thermal is full
    feed("thermal", 50, 6)  # a jump back: lost at once
    feed("color", 50, 7)
    assert pairs == [(0, 2)]


def test_real_synchronizer_is_used_where_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with message_filters' face that pairs equal stamps only."""

    class SimpleFilter:
        def __init__(self) -> None:
            self.callback = None

        def signalMessage(self, message: SimpleNamespace) -> None:  # noqa: N802
            if self.callback is not None:
                self.callback(message)

    class Synchronizer:
        def __init__(self, inputs: list[SimpleFilter], queue: int, slop: float) -> None:
            self.seen: list[dict[int, SimpleNamespace]] = [{}, {}]
            for number, one in enumerate(inputs):
                one.callback = lambda message, number=number: self.add(number, message)

        def registerCallback(self, callback: object) -> None:  # noqa: N802
            self.out = callback

        def add(self, number: int, message: SimpleNamespace) -> None:
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            self.seen[number][stamp] = message
            if stamp in self.seen[1 - number]:
                self.out(self.seen[0][stamp], self.seen[1][stamp])  # type: ignore[operator]

    filters, messages = ModuleType("message_filters"), ModuleType("builtin_interfaces.msg")
    filters.SimpleFilter, filters.ApproximateTimeSynchronizer = SimpleFilter, Synchronizer  # type: ignore
    messages.Time = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "message_filters", filters)
    monkeypatch.setitem(sys.modules, "builtin_interfaces", ModuleType("builtin_interfaces"))
    monkeypatch.setitem(sys.modules, "builtin_interfaces.msg", messages)
    name, make = bench_pairing.reference_maker()
    assert name == "message_filters.ApproximateTimeSynchronizer"
    events = (
        Event(1, "thermal", -5),
        Event(2, "color", -5),
        Event(3, "thermal", 10**10),
        Event(9, "color", 7),
    )
    matches = bench_pairing.run_reference(Trace("x", "", events), make, SLOP, 10)
    assert matches == {0: bench_pairing.Match(0, 1)}


def test_rule_is_restated_where_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "message_filters", None)
    name, make = bench_pairing.reference_maker()
    assert "restated" in name and make is first_fit


def test_the_real_synchronizer_and_the_restated_rule_agree() -> None:
    pytest.importorskip("message_filters", reason="message_filters is not installed")
    for trace in generated_traces(3, 10):
        real = bench_pairing.run_reference(trace, bench_pairing.message_filters_feed, SLOP, 10)
        assert real == bench_pairing.run_reference(trace, first_fit, SLOP, 10)


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_traces_survive_a_file(tmp_path: Path, suffix: str) -> None:
    trace = Trace(
        "odd", "a, note", (Event(5000, "color", -7000), Event(6000, "thermal", 10**18)), -60 * MS, False
    )
    path = tmp_path / f"odd.{suffix}"
    write_trace(trace, path)
    assert read_trace(path) == trace


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "arrival,stream,stamp\n", "a.csv:1: header"),
        ("a.csv", "arrival_ns,stream,stamp_ns\n1,thermal\n", "a.csv:2"),
        ("a.csv", "arrival_ns,stream,stamp_ns\nx,thermal,1\n", "a.csv:2"),
        ("a.csv", "arrival_ns,stream,stamp_ns\n1,lidar,1\n", "'thermal' or 'color'"),
        ("a.csv", "# {not json\n", "not a trace"),
        ("a.json", "{}", "not a trace"),
        ("a.json", '{"events": [1]}', "not a trace"),
    ],
)
def test_bad_trace_files_are_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError) as caught:
        read_trace(tmp_path / name)
    assert says in str(caught.value)


def test_generated_traces_are_reproducible_and_differ_by_seed() -> None:
    assert generated_traces(1, 5) == generated_traces(1, 5)
    assert generated_traces(1, 5) != generated_traces(2, 5)


def test_a_worse_row_shows_unless_it_does_not_count() -> None:
    base = row(generated_traces(1, 5)[0])
    worse = dataclasses.replace(base, never_worse=False)
    result = bench_pairing.BenchResult("x", 40, 10, (base, worse))
    assert not result.never_worse and "WORSE" in result.to_markdown()
    excused = dataclasses.replace(worse, gated=False)
    assert bench_pairing.BenchResult("x", 40, 10, (base, excused)).never_worse


def test_late_rgb_and_thermal_only_do_not_break_the_figures() -> None:
    lonely = Trace("lonely", "", tuple(Event(k * 33 * MS, "thermal", k * 33 * MS) for k in range(9)))
    measured = row(lonely)
    assert (measured.share, measured.share_reference, measured.common) == (0, 0, 0)
    content = json.loads(bench_pairing.BenchResult("x", 40, 10, (measured,)).to_json())
    assert content["rows"][0]["skew_ms"] is None
    assert " - / - " in bench_pairing.BenchResult("x", 40, 10, (measured,)).to_markdown()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, data = tmp_path / "out", tmp_path / "result.json"
    traces = tmp_path / "traces"
    code = main(["--quick", "--out", str(out), "--json", str(data), "--write-traces", str(traces)])
    shown = capsys.readouterr().out
    assert code == 0 and "Verdict: never worse." in shown
    content = json.loads(data.read_text(encoding="utf-8"))
    assert content == json.loads((out / "pairing.json").read_text(encoding="utf-8"))
    assert (out / "pairing.md").read_text(encoding="utf-8") == shown
    assert content["never_worse"] is True and len(content["rows"]) == len(shown.splitlines()) - 6
    assert main(["--trace", str(traces / "jump9.csv")]) == 0
    assert "jump9 (file)" in capsys.readouterr().out


def test_command_line_refuses_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--trace", str(tmp_path / "none.csv")]) == 2
    assert "none.csv" in capsys.readouterr().err
    assert main(["--queue", "0"]) == 2
    assert main(["--slop-ms", "-1", "--quick"]) == 2
    assert "slop_ns" in capsys.readouterr().err


def test_run_takes_any_traces() -> None:
    result = run(quick=True, traces=generated_traces(5, 3)[:1])
    assert [(r.trace, r.source) for r in result.rows] == [("steady", "file")]
