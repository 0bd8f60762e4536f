from __future__ import annotations

from thermal_enhance.nodes.throttle import ThrottledLog


def test_equal_messages_are_held_back_and_counted() -> None:
    said: list[tuple[str, str]] = []
    log = ThrottledLog(lambda level, text: said.append((level, text)), period_s=0.0)
    log("warn", "a")
    log("warn", "a")
    assert said == [("warn", "a"), ("warn", "a")]

    said.clear()
    log = ThrottledLog(lambda level, text: said.append((level, text)), period_s=1000.0)
    for i in range(5):
        log("warn", f"frame {i} refused", key="refused")
    log("error", "other")
    assert said == [("warn", "frame 0 refused"), ("error", "other")]


def test_distinct_messages_do_not_grow_without_bound() -> None:
    log = ThrottledLog(lambda level, text: None, period_s=1000.0)
    for i in range(2000):
        log("warn", f"message {i}")
    assert len(log._last) <= 257
