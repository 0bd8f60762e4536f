"""The ladder: every frame leaves, for a stated reason, and the best tier comes back."""

import dataclasses
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.enhancers.base import EnhancedFrame, Enhancer, EnhanceRequest, LoadingEnhancer
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder, defect
from thermal_enhance.enhancers.passthrough import PassthroughEnhancer
from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame, Units

COLOR = ColorFrame(np.zeros((4, 4, 3), np.uint8))


def ask(dtype=np.uint8, scale=1, color=None, fill=1):
    return EnhanceRequest(ThermalFrame(np.full((4, 6), fill, dtype), Units.COUNTS, 5, "cam"), color, scale)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Tier:
    """Does what it is told: returns, raises, takes time, waits at a gate."""

    def __init__(self, name, clock=None, *, isolated=False, needs_rgb=False, uses_rgb=False):
        self.name, self.clock = name, clock
        self.isolated, self.needs_rgb, self.uses_rgb = isolated, needs_rgb, uses_rgb
        self.error = None
        self.takes = 0.0
        self.gate = None
        self.change = None
        self.calls, self.resets, self.closed = 0, [], threading.Event()

    def __call__(self, request):
        self.calls += 1
        if self.clock is not None:
            self.clock.now += self.takes
        if self.gate is not None:
            self.gate.wait(20)
        if self.error is not None:
            raise self.error
        frame = PassthroughEnhancer()(request).thermal
        if self.change is not None:
            frame = self.change(frame)
        return EnhancedFrame(frame, self.name)

    def reset(self, reason):
        self.resets.append(reason)

    def close(self):
        self.closed.set()


def status(ladder, name):
    return next(tier for tier in ladder.status().tiers if tier.name == name)


def test_the_top_tier_works_without_a_word():
    ladder = QualityLadder([Tier("model"), Tier("classical"), PassthroughEnhancer()])
    result = ladder(ask(scale=2))
    assert (result.tier, result.tier_reason) == ("model", "")
    assert isinstance(ladder, Enhancer)
    assert [t.name for t in ladder.status().tiers] == ["model", "classical", "passthrough"]
    assert ladder.status().current == "model" and status(ladder, "model").frames == 1


def test_an_error_steps_down_that_very_frame_and_climbs_back():
    clock = Clock()
    model, classical = Tier("model"), Tier("classical")
    ladder = QualityLadder([model, classical], LadderConfig(climb_after_s=2.0), clock)
    model.error = RuntimeError("device lost")
    first = ladder(ask())
    assert (first.tier, first.tier_reason) == ("classical", "error: RuntimeError: device lost")
    model.error = None
    clock.now += 1.9
    assert ladder(ask()).tier == "classical" and model.calls == 1
    assert status(ladder, "model").state == "backing_off"
    assert status(ladder, "model").retry_in_s == pytest.approx(0.1)
    clock.now += 0.2
    back = ladder(ask())
    assert (back.tier, back.tier_reason) == ("model", "")
    assert status(ladder, "model").troubles == {"error": 2}


def test_backing_off_doubles_is_capped_and_forgiven():
    clock = Clock()
    model = Tier("model")
    ladder = QualityLadder([model], LadderConfig(climb_after_s=1.0, backoff_cap_s=4.0), clock)
    model.error = RuntimeError("x")
    pauses = []
    for _ in range(5):
        ladder(ask())
        pauses.append(status(ladder, "model").retry_in_s)
        clock.now += pauses[-1] + 0.001
    assert pauses == pytest.approx([1, 2, 4, 4, 4])
    model.error = None
    ladder(ask())
    clock.now += 5
    ladder(ask())  # good for longer than it was left alone
    model.error = RuntimeError("x")
    ladder(ask())
    assert status(ladder, "model").retry_in_s == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda f: ThermalFrame(f.data[:-1], f.units, f.stamp_ns, f.frame_id),
            "error: output is 6x3, not 6x4",
        ),
        (
            lambda f: ThermalFrame(f.data.astype(np.uint16), f.units, f.stamp_ns, f.frame_id),
            "error: output is uint16, not float32",
        ),
        (lambda f: ThermalFrame(f.data, f.units, 6, f.frame_id), "error: output has another stamp"),
        (lambda f: ThermalFrame(f.data, f.units, 5, "other"), "error: output has another stamp"),
        (lambda f: ThermalFrame(f.data * np.nan, f.units, f.stamp_ns, f.frame_id), "non_finite"),
    ],
)
def test_invalid_output_does_not_leave(change, reason):
    model = Tier("model")
    model.change = change
    ladder = QualityLadder([model])
    result = ladder(ask(np.float32))
    assert result.tier == "passthrough" and result.tier_reason.startswith(reason)
    assert np.isfinite(result.thermal.data).all()


def test_nan_is_allowed_where_the_input_had_it():
    data = np.ones((4, 6), np.float32)
    data[1, 2] = np.nan
    request = EnhanceRequest(ThermalFrame(data), scale=2)
    made = PassthroughEnhancer()(request)
    assert defect(made, request) == ""
    spoiled = made.thermal.data.copy()
    spoiled[0, 0] = np.nan
    assert defect(EnhancedFrame(ThermalFrame(spoiled), "x"), request) == "non_finite"


def test_missing_rgb_steps_down_without_backing_off():
    model = Tier("model", needs_rgb=True, uses_rgb=True)
    ladder = QualityLadder([model, Tier("classical")])
    assert ladder(ask()).tier_reason == "rgb_missing"
    assert (ladder(ask(color=COLOR)).tier, model.calls) == ("model", 1)
    assert ladder(ask()).tier == "classical"
    assert status(ladder, "model").troubles == {"rgb_missing": 2}


def test_a_slow_inline_tier_gives_way_and_returns():
    clock = Clock()
    classical = Tier("classical", clock)
    ladder = QualityLadder([classical], LadderConfig(deadline_s=0.05, climb_after_s=2.0), clock)
    classical.takes = 0.2
    tiers = [ladder(ask()).tier for _ in range(9)]
    assert tiers == ["classical"] * 8 + ["passthrough"]
    assert ladder.status().reason == "deadline"
    classical.takes = 0.01
    clock.now += 2.5
    assert [ladder(ask()).tier for _ in range(20)] == ["classical"] * 20


def test_one_slow_frame_is_forgiven():
    clock = Clock()
    classical = Tier("classical", clock)
    ladder = QualityLadder([classical], LadderConfig(deadline_s=0.05, window=100), clock)
    for index in range(60):
        classical.takes = 0.2 if index == 30 else 0.01
        assert ladder(ask()).tier == "classical"


def test_a_late_isolated_tier_steps_down_at_once_then_is_busy_then_back():
    clock = Clock()
    model = Tier("model", isolated=True)
    model.gate = threading.Event()
    ladder = QualityLadder(
        [model, Tier("classical")], LadderConfig(deadline_s=0.05, climb_after_s=1.0), clock
    )
    assert (ladder(ask()).tier, ladder.status().reason) == ("classical", "deadline")
    clock.now += 1.5
    assert ladder(ask()).tier_reason == "busy"
    assert status(ladder, "model").state == "busy"
    model.gate.set()
    assert ladder._rungs[0].worker.wait_idle(5)
    assert status(ladder, "model").late_results == 1
    ladder.configure(LadderConfig(deadline_s=5.0))
    assert ladder(ask()).tier == "model"
    ladder.close()


def test_a_hung_tier_is_built_anew_once_and_then_disabled():
    clock = Clock()
    gates = [threading.Event(), threading.Event()]
    built = []

    permit = threading.Event()

    def factory():
        permit.wait(20)
        fresh = Tier("model", isolated=True)
        fresh.gate = gates[1]
        built.append(fresh)
        return fresh

    model = Tier("model", isolated=True)
    model.gate = gates[0]
    config = LadderConfig(deadline_s=0.02, climb_after_s=0.5, hang_timeout_s=3.0)
    ladder = QualityLadder([], config, clock)
    ladder.add_tier(model, factory=factory)
    assert ladder(ask()).tier_reason == "deadline"
    clock.now += 4.0
    assert ladder(ask()).tier_reason == "busy"
    assert status(ladder, "model").reason == "starting anew"
    permit.set()
    assert ladder._rungs[0].worker.wait_idle(5) and len(built) == 1
    clock.now += 1.0
    assert ladder(ask()).tier_reason == "deadline" and built[0].calls == 1
    clock.now += 4.0
    last = ladder(ask())
    assert (last.tier, last.tier_reason) == ("passthrough", "disabled: hung again for more than 3 s")
    assert status(ladder, "model").state == "disabled"
    assert model.calls == 1 and len(built) == 1
    ladder.close()
    for gate in gates:  # the hung calls come back at last, and free what they held
        gate.set()
    assert model.closed.wait(5) and built[0].closed.wait(5)


def test_a_hung_tier_without_factory_is_disabled():
    clock = Clock()
    model = Tier("model", isolated=True)
    model.gate = threading.Event()
    ladder = QualityLadder([model], LadderConfig(deadline_s=0.02, hang_timeout_s=3.0), clock)
    ladder(ask())
    clock.now += 3.5
    assert ladder(ask()).tier_reason == "disabled: hung for more than 3 s"
    model.gate.set()
    ladder.close()


def test_a_factory_that_fails_disables_the_tier():
    clock = Clock()
    model = Tier("model", isolated=True)
    model.gate = threading.Event()

    def factory():
        raise OSError("engine is gone")

    ladder = QualityLadder([], LadderConfig(deadline_s=0.02, hang_timeout_s=3.0), clock)
    ladder.add_tier(model, factory=factory)
    ladder(ask())
    clock.now += 3.5
    ladder(ask())
    assert ladder._rungs[0].worker.join(5)
    assert ladder(ask()).tier_reason == "disabled: OSError: engine is gone"
    model.gate.set()


def test_closing_does_not_wait_and_frames_still_leave():
    model, classical = Tier("model", isolated=True), Tier("classical")
    model.gate = threading.Event()
    ladder = QualityLadder([model, classical], LadderConfig(deadline_s=0.02))
    ladder(ask())
    ladder.close()
    ladder.close()
    assert classical.closed.is_set() and not model.closed.is_set()
    assert ladder(ask()).tier == "passthrough"
    with pytest.raises(RuntimeError, match="closed"):
        ladder.add_tier(Tier("late"))
    model.gate.set()
    assert model.closed.wait(5)


def test_tiers_join_and_leave_while_running():
    classical = Tier("classical")
    ladder = QualityLadder([classical])
    assert ladder(ask()).tier == "classical" and not ladder.uses_rgb
    model = Tier("model", uses_rgb=True)
    ladder.add_tier(model, 0)
    assert ladder(ask()).tier == "model" and ladder.uses_rgb
    with pytest.raises(ValueError, match="model"):
        ladder.add_tier(Tier("model"))
    assert ladder.remove("model") and model.closed.is_set()
    assert not ladder.remove("model")
    assert ladder(ask()).tier == "classical"


def test_a_tier_removed_in_the_middle_of_its_call_is_closed_after_it():
    ladder = QualityLadder([])
    model = Tier("model")
    seen = []

    def remove(frame):
        ladder.remove("model")
        seen.append(model.closed.is_set())
        return frame

    model.change = remove
    ladder.add_tier(model)
    assert ladder(ask()).tier == "model"
    assert seen == [False] and model.closed.is_set()


def test_a_tier_closed_in_the_middle_of_its_call_is_closed_after_it():
    model, below = Tier("model"), Tier("classical")
    ladder = QualityLadder([model, below])
    seen = []

    def close(frame):
        ladder.close()
        seen.append((model.closed.is_set(), below.closed.is_set()))
        raise RuntimeError("its session went away")

    model.change = close
    result = ladder(ask())
    assert (result.tier, below.calls) == ("passthrough", 0)
    assert seen == [(False, True)] and model.closed.is_set()


@pytest.mark.parametrize("pin", ["", "classical", "passthrough"])
def test_a_closed_ladder_says_so(pin):
    ladder = QualityLadder([Tier("classical")], LadderConfig(pin=pin))
    ladder.close()
    result = ladder(ask(scale=2))
    assert (result.tier, result.tier_reason) == ("passthrough", "closed")
    assert ladder.status().reason == "closed"


def test_a_pinned_tier_knows_no_deadline_and_no_backing_off():
    clock = Clock()
    model, classical = Tier("model", clock), Tier("classical", clock)
    ladder = QualityLadder([model, classical], LadderConfig(deadline_s=0.01, pin="classical"), clock)
    classical.takes = 9.0
    assert [ladder(ask()).tier for _ in range(30)] == ["classical"] * 30
    assert model.calls == 0
    classical.error = RuntimeError("x")
    assert ladder(ask()).tier == "passthrough"
    classical.error = None
    assert ladder(ask()).tier == "classical"
    ladder.configure(LadderConfig(pin="passthrough"))
    assert (ladder(ask()).tier, ladder(ask()).tier_reason) == ("passthrough", "")
    with pytest.raises(ValueError, match="pin"):
        ladder.configure(LadderConfig(pin="nothing"))
    with pytest.raises(ValueError, match="pin"):
        QualityLadder([], LadderConfig(pin="model"))


def test_reset_reaches_all_and_survives_one():
    model, classical, other = Tier("model", isolated=True), Tier("classical"), Tier("other")

    def refuse(reason):
        raise RuntimeError(reason)

    other.reset = refuse
    ladder = QualityLadder([model, classical, other], LadderConfig(deadline_s=5.0))
    ladder.reset("gap")
    ladder(ask())
    assert model.resets == ["gap"] and classical.resets == ["gap"]
    assert status(ladder, "other").state == "backing_off"
    ladder.close()


def test_the_fallback_has_its_time_kept_back():
    clock = Clock()
    given_times = []

    class Worker:
        build_error, busy, late_results = "", False, 0

        def call(self, request, timeout):
            given_times.append(timeout)
            return type("R", (), {"frame": None, "reason": "deadline"})()

        def busy_for(self):
            return 0.0

        def close(self):
            pass

    model, classical = Tier("model", isolated=True), Tier("classical", clock)
    classical.takes = 0.03
    ladder = QualityLadder([model, classical], LadderConfig(deadline_s=0.1, climb_after_s=0.001), clock)
    ladder._rungs[0].worker.close()
    ladder._rungs[0].worker = Worker()
    ladder(ask())
    clock.now += 1
    ladder(ask())
    assert given_times == pytest.approx([0.1, 0.07])


@given(st.lists(st.sampled_from(["good", "error", "nan", "size", "rgb", "slow"]), max_size=40))
@settings(max_examples=60, deadline=None)
def test_whatever_the_tiers_do_a_valid_frame_leaves(script):
    clock = Clock()
    model = Tier("model", clock)
    ladder = QualityLadder([model, Tier("classical", clock)], LadderConfig(deadline_s=0.05), clock)
    for index, what in enumerate(script):
        model.error = RuntimeError("x") if what == "error" else None
        model.needs_rgb = what == "rgb"
        model.takes = 1.0 if what == "slow" else 0.001
        model.change = {
            "nan": lambda f: ThermalFrame(f.data * np.float32(np.nan), f.units, f.stamp_ns, f.frame_id),
            "size": lambda f: ThermalFrame(f.data[:1], f.units, f.stamp_ns, f.frame_id),
        }.get(what)
        request = ask(np.float32, scale=1 + index % 2)
        result = ladder(request)
        assert defect(result, request) == ""
        assert (result.tier_reason == "") == (result.tier == "model")
        clock.now += 0.7
    counted = sum(t.frames for t in ladder.status().tiers)
    assert counted == len(script)


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_s": 0.0},
        {"climb_after_s": -1.0},
        {"backoff_factor": 0.5},
        {"hang_timeout_s": float("inf")},
        {"window": 1},
    ],
)
def test_config_names_the_parameter_to_change(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LadderConfig(**wrong)


class LoadingTier(Tier):
    """A model: has to load first, which waits at a gate, and makes scale 1 only."""

    def __init__(self, clock=None, load_error=None):
        super().__init__("model", clock, isolated=True)
        self.load_gate, self.load_error, self.loads, self.loaded = threading.Event(), load_error, 0, False

    @property
    def description(self):
        return "a model, on paper" if self.loaded else ""

    def refuses(self, request):
        return "" if request.scale == 1 else f"scale {request.scale} is not one of the model"

    def is_loaded(self, request):
        return self.loaded

    def load(self, request):
        if self.loaded:
            return
        self.loads += 1
        assert self.load_gate.wait(20)
        if self.load_error is not None:
            raise self.load_error
        self.loaded = True

    def __call__(self, request):
        self.load(request)
        return super().__call__(request)


def wait_for(condition):
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.005)
    raise AssertionError("did not come true")


def test_a_model_loads_while_the_tier_below_makes_the_frames():
    model = LoadingTier()
    assert isinstance(model, LoadingEnhancer)
    ladder = QualityLadder([model, Tier("classical")], LadderConfig(deadline_s=5.0))
    for _ in range(3):
        frame = ladder(ask())
        assert (frame.tier, frame.tier_reason) == ("classical", "loading")
    assert (status(ladder, "model").state, status(ladder, "model").reason) == ("busy", "loading")
    assert status(ladder, "model").detail == "" and model.calls == 0
    model.load_gate.set()
    wait_for(lambda: status(ladder, "model").state == "ok")
    frame = ladder(ask())
    assert (frame.tier, frame.tier_reason) == ("model", "")
    assert model.loads == 1 and status(ladder, "model").detail == "a model, on paper"
    ladder.close()


def test_loading_may_take_longer_than_a_hung_call():
    clock = Clock()
    model = LoadingTier(clock)
    ladder = QualityLadder([model, Tier("classical")], LadderConfig(hang_timeout_s=5.0), clock)
    ladder(ask())
    clock.now += 60
    assert ladder(ask()).tier_reason == "loading"
    clock.now += 300
    assert ladder(ask()).tier_reason.startswith("disabled: hung")
    model.load_gate.set()
    ladder.close()


def test_a_model_that_cannot_be_loaded_is_disabled_with_the_reason():
    model = LoadingTier(load_error=OSError("weights.safetensors is missing"))
    model.load_gate.set()
    ladder = QualityLadder([model, Tier("classical")], LadderConfig(deadline_s=5.0))
    ladder(ask())
    wait_for(lambda: ladder(ask()).tier_reason.startswith("disabled"))
    frame = ladder(ask())
    assert frame.tier == "classical"
    assert frame.tier_reason == "disabled: OSError: weights.safetensors is missing"
    assert status(ladder, "model").state == "disabled" and model.loads == 1
    ladder.close()


def test_a_frame_that_is_not_for_the_model_is_not_held_against_it():
    model = LoadingTier()
    model.loaded = True
    ladder = QualityLadder([model, Tier("classical")], LadderConfig(deadline_s=5.0))
    frame = ladder(ask(scale=2))
    assert (frame.tier, frame.tier_reason) == ("classical", "scale 2 is not one of the model")
    assert ladder(ask()).tier == "model"
    ladder.close()


@pytest.mark.parametrize("config", [LadderConfig(deadline_s=None), LadderConfig(pin="model")])
def test_without_deadlines_a_frame_waits_for_the_model(config):
    model = LoadingTier()
    model.load_gate.set()
    ladder = QualityLadder([model, Tier("classical")], config)
    assert ladder(ask()).tier == "model"
    ladder.close()


def paced(period_s):
    return dataclasses.replace(ask(), period_s=period_s)


def test_a_model_that_cannot_keep_up_with_the_stream_steps_down_for_good():
    clock = Clock()
    model = Tier("model", clock, isolated=True)
    model.takes = 0.06
    ladder = QualityLadder([model, Tier("classical")], LadderConfig(deadline_s=5.0), clock)
    slow = [ladder(paced(0.2)).tier for _ in range(20)]
    assert set(slow) == {"model"}, "5 Hz leave it time enough"
    tiers, reasons = [], set()
    for _ in range(3000):
        frame = ladder(paced(1 / 30))
        clock.now += 1 / 30 if frame.tier == "classical" else 0.0
        tiers.append(frame.tier)
        reasons.add(frame.tier_reason)
    assert reasons == {"", "rate"}
    switches = sum(a != b for a, b in pairwise(tiers))
    # 100 s: it is tried again after 2, 4, 8, 16, 32 ... s, a few frames each.
    assert switches <= 12 and tiers.count("model") < 25
    clock.now += 100
    model.takes = 0.01
    assert {ladder(paced(1 / 30)).tier for _ in range(40)} == {"model"}
    ladder.close()


@pytest.mark.parametrize("change", [{"hold_rate": False}, {"pin": "model"}, {"deadline_s": None}])
def test_the_rate_is_not_held_where_it_is_not_asked_for(change):
    clock = Clock()
    model = Tier("model", clock, isolated=True)
    model.takes = 0.06
    config = dataclasses.replace(LadderConfig(deadline_s=5.0), **change)
    ladder = QualityLadder([model, Tier("classical")], config, clock)
    assert {ladder(paced(1 / 30)).tier for _ in range(40)} == {"model"}
    ladder.close()
