"""The worker thread: late results, errors, hangs and closing never hold up the caller."""

import threading

import numpy as np

from thermal_enhance.enhancers.base import EnhancedFrame, EnhanceRequest
from thermal_enhance.enhancers.worker import TierWorker, describe_error
from thermal_enhance.imaging.frames import ThermalFrame

REQUEST = EnhanceRequest(ThermalFrame(np.zeros((2, 2), np.uint8)))


class Tier:
    name = "model"
    needs_rgb = False
    uses_rgb = False
    isolated = True

    def __init__(self, gate=None, error=None):
        self.gate, self.error = gate, error
        self.threads, self.resets, self.closed = set(), [], threading.Event()

    def __call__(self, request):
        self.threads.add(threading.get_ident())
        if self.gate is not None:
            self.gate.wait(20)
        if self.error is not None:
            raise self.error
        return EnhancedFrame(request.thermal, self.name)

    def reset(self, reason):
        self.threads.add(threading.get_ident())
        self.resets.append(reason)

    def close(self):
        self.threads.add(threading.get_ident())
        self.closed.set()


def worker(tier):
    made = TierWorker("model", lambda: tier)
    assert made.wait_idle(5)
    return made


def test_calls_resets_and_close_share_one_thread():
    tier = Tier()
    made = worker(tier)
    assert made.call(REQUEST, 5).frame is not None
    made.reset("gap")
    assert made.call(REQUEST, None).frame is not None
    assert tier.resets == ["gap"]
    made.close()
    assert made.join(5) and tier.closed.is_set()
    assert len(tier.threads) == 1 and threading.get_ident() not in tier.threads
    assert made.call(REQUEST, 1).reason == "closed"


def test_a_late_result_is_thrown_away_and_counted():
    gate = threading.Event()
    made = worker(Tier(gate))
    assert made.call(REQUEST, 0.02).reason == "deadline"
    assert made.call(REQUEST, 0.02).reason == "busy" and made.busy
    assert made.late_results == 0
    gate.set()
    assert made.wait_idle(5)
    assert made.late_results == 1
    assert made.call(REQUEST, 5).frame is not None
    assert made.late_results == 1
    made.close()


def test_an_error_is_told_and_survived():
    tier = Tier(error=RuntimeError("out of memory\nwith a long tail"))
    made = worker(tier)
    assert made.call(REQUEST, 5).reason == "error: RuntimeError: out of memory"
    tier.error = None
    assert made.call(REQUEST, 5).frame is not None
    tier.error = SystemExit(3)
    assert made.call(REQUEST, 5).reason.startswith("error: SystemExit")
    tier.error = None
    assert made.call(REQUEST, 5).frame is not None
    made.close()


def test_close_does_not_wait_for_a_hung_call():
    gate = threading.Event()
    tier = Tier(gate)
    made = worker(tier)
    made.call(REQUEST, 0.01)
    made.close()
    assert not made.join(0.01)
    gate.set()
    assert made.join(5) and tier.closed.is_set()


def test_close_frees_a_waiting_caller():
    gate = threading.Event()
    made = worker(Tier(gate))
    closer = threading.Timer(0.05, made.close)
    closer.start()
    assert made.call(REQUEST, 20).reason == "closed"
    gate.set()
    closer.join()


def test_building_happens_on_the_thread_and_may_fail():
    gate = threading.Event()

    def build():
        gate.wait(20)
        raise OSError("no such engine")

    made = TierWorker("model", build)
    assert made.call(REQUEST, 0.01).reason == "busy"
    gate.set()
    assert made.join(5)
    assert made.build_error == "OSError: no such engine"
    assert made.call(REQUEST, 1).reason == "closed"


def test_busy_time_runs_on_the_given_clock():
    now = [100.0]
    gate = threading.Event()
    made = TierWorker("model", lambda: Tier(gate), lambda: now[0])
    assert made.wait_idle(5) and made.busy_for() == 0.0
    made.call(REQUEST, 0.01)
    now[0] += 7.0
    assert made.busy_for() == 7.0
    gate.set()
    assert made.wait_idle(5) and made.busy_for() == 0.0
    made.close()


def test_errors_are_described_in_one_short_line():
    assert describe_error(ValueError("  ")) == "ValueError"
    assert describe_error(ValueError("a\nb")) == "ValueError: a"
    assert len(describe_error(ValueError("x" * 999))) == 160


class LoadingTier(Tier):
    """A tier that loads, and says on which thread."""

    description = ""

    def __init__(self, gate=None, load_error=None):
        super().__init__(gate)
        self.load_error, self.loaded = load_error, []

    def refuses(self, request):
        return ""

    def is_loaded(self, request):
        return bool(self.loaded)

    def load(self, request):
        self.threads.add(threading.get_ident())
        if self.gate is not None:
            self.gate.wait(20)
        if self.load_error is not None:
            raise self.load_error
        self.loaded.append(request)


def test_loading_happens_on_the_worker_and_nobody_waits():
    gate = threading.Event()
    tier = LoadingTier(gate)
    made = worker(tier)
    assert made.enhancer is tier
    assert made.start_loading(REQUEST)
    assert made.busy and not made.start_loading(REQUEST)
    assert made.call(REQUEST, 1).reason == "busy"
    gate.set()
    assert made.wait_idle(5)
    assert tier.loaded == [REQUEST] and made.build_error == "" and made.late_results == 0
    assert made.call(REQUEST, 5).frame is not None
    assert len(tier.threads) == 1 and threading.get_ident() not in tier.threads
    made.close()
    assert not made.start_loading(REQUEST)


def test_a_failed_load_is_kept():
    made = worker(LoadingTier(load_error=OSError("gone")))
    assert made.start_loading(REQUEST) and made.wait_idle(5)
    assert made.build_error == "OSError: gone"
    made.close()
    assert made.join(5)
