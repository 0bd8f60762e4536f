"""Prefetching: in order, bounded, failing where it failed, and ending its threads."""

import threading
import time

import pytest

from thermal_enhance.training.prefetch import Prefetcher


def names():
    return [t.name for t in threading.enumerate() if t.name.startswith("batches")]


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_order(workers):
    def make(step):
        time.sleep(0.002 * (step % 3))
        return step * step

    with Prefetcher(make, 4, 20, workers=workers, depth=5) as batches:
        assert [batches.get(step) for step in range(4, 20)] == [s * s for s in range(4, 20)]
    assert not names()


def test_it_works_ahead_but_not_too_far():
    made = []
    with Prefetcher(lambda step: made.append(step) or step, 0, None, workers=1, depth=3) as batches:
        assert batches.get(0) == 0
        deadline = time.monotonic() + 5
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2]


def test_nothing_is_made_past_the_end():
    made = []
    with Prefetcher(made.append, 0, 2, workers=2, depth=8) as batches:
        batches.get(0)
        batches.get(1)
    assert sorted(made) == [0, 1]


def test_a_failure_is_raised_where_its_batch_is_asked_for():
    def make(step):
        if step == 2:
            raise OSError("picture is gone")
        return step

    with Prefetcher(make, workers=2) as batches:
        assert [batches.get(0), batches.get(1)] == [0, 1]
        with pytest.raises(OSError, match="picture is gone"):
            batches.get(2)
        assert batches.get(3) == 3
    assert not names()


def test_steps_can_be_skipped_and_repeated():
    with Prefetcher(lambda step: step, workers=2) as batches:
        assert [batches.get(s) for s in (0, 5, 6, 3)] == [0, 5, 6, 3]
