from __future__ import annotations

import argparse
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make setup)")

from thermal_enhance.nodes.composition import (
    NODES,
    load_node,
    ordered,
    parse_bool,
    source_report,
    sources_finished,
    write_report,
)


def test_every_node_loads_and_sources_come_up_first() -> None:
    for name in NODES:
        assert load_node(name).__name__.endswith("Node")
    assert ordered(["task_router_node", "enhancement_node", "camera_rig_node"])[0] == "camera_rig_node"


def test_unknown_node_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="enhancement_node"):
        load_node("toaster_node")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("1", True), ("no", False)])
def test_parse_bool(text: str, value: bool) -> None:
    assert parse_bool(text) is value


def test_parse_bool_refuses_the_rest() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="maybe"):
        parse_bool("maybe")


def test_report_holds_what_the_sources_say(tmp_path) -> None:
    nodes = [SimpleNamespace(published={"thermal": 5}, skipped={}), SimpleNamespace()]
    write_report(SimpleNamespace(nodes=nodes), tmp_path / "r.json")
    assert (tmp_path / "r.json").read_text() == '{"published": {"thermal": 5}, "skipped": {}}'


def test_report_without_sources_is_empty() -> None:
    assert source_report(SimpleNamespace(nodes=[SimpleNamespace()])) == {}


def test_finished_when_every_source_is() -> None:
    sources = [SimpleNamespace(finished=threading.Event()) for _ in range(2)]
    suite = SimpleNamespace(nodes=[*sources, SimpleNamespace()])
    sources[0].finished.set()
    assert not sources_finished(suite)
    sources[1].finished.set()
    assert sources_finished(suite)
    assert not sources_finished(SimpleNamespace(nodes=[SimpleNamespace()])), "no source, nothing to wait for"
