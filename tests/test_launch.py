"""The launch files, the DDS profiles and the deployment files they choose from.

What `launch` makes of them is tested where it is installed; the rest holds everywhere.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
BRINGUP_ARGUMENTS = {
    "namespace": "",
    "params_file": "cpu",
    "camera": "",
    "composed": "true",
    "mode": "",
    "model": "",
    "task_policy": "",
    "source": "none",
    "thermal_topic": "thermal/image_raw",
    "rgb_topic": "rgb/image_raw",
    "thermal_info_topic": "",
    "rgb_info_topic": "",
    "use_sim_time": "false",
    "autostart": "true",
    "respawn": "false",
    "log_level": "info",
    "discovery": "localhost",
}
REPLAY_ARGUMENTS = {
    "bag": None,
    "rate": "1.0",
    "loop": "false",
    "start_offset": "0.0",
    "thermal_topic": "",
    "rgb_topic": "",
}
FAST_DDS = {"dds": "http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"}
SCRIPT = """#!{python}
import sys
from thermal_enhance.nodes.{module} import main
sys.exit(main())
"""
EXECUTABLES = {
    "thermal_enhance_container": "composition",
    "enhancement_node": "enhancement_node",
    "task_router_node": "task_router_node",
    "camera_rig_node": "camera_rig_node",
}


def has_launch() -> bool:
    # Not `launch` alone: from the repository root our own folder of that name would be found.
    return all(importlib.util.find_spec(name) is not None for name in ("launch_ros", "osrf_pycommon"))


needs_launch = pytest.mark.skipif(not has_launch(), reason="launch is not installed")


def declared(file: str) -> dict[str, str | None]:
    """{argument: default} as written in a launch file, without importing it."""
    tree = ast.parse((ROOT / "launch" / file).read_text(encoding="utf-8"))
    found: dict[str, str | None] = {}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "DeclareLaunchArgument":
            options = {option.arg: option.value for option in call.keywords}
            default = options.get("default_value")
            found[ast.literal_eval(call.args[0])] = ast.literal_eval(default) if default else None
            assert ast.literal_eval(options["description"]).endswith("."), "a description is a sentence"
    return found


# ---- without launch -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "expected"), [("bringup.launch.py", BRINGUP_ARGUMENTS), ("replay.launch.py", REPLAY_ARGUMENTS)]
)
def test_arguments_and_defaults_are_the_documented_ones(file: str, expected: dict[str, str | None]) -> None:
    assert declared(file) == expected


def test_every_bringup_argument_is_used() -> None:
    text = (ROOT / "launch" / "bringup.launch.py").read_text(encoding="utf-8")
    unused = {
        name for name in BRINGUP_ARGUMENTS if text.count(f'"{name}"') < 2 and not name.endswith("_topic")
    }
    assert not unused


@pytest.mark.parametrize("page", ["README.md", "docs/verification.md"])
def test_every_bringup_argument_is_documented(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [n for n in BRINGUP_ARGUMENTS if n not in text and not n.endswith("_info_topic")]
    assert not missing, f"{page} does not mention {missing}"


@pytest.mark.parametrize(("file", "addresses"), [("fastdds.xml", ["127.0.0.1"]), ("fastdds_subnet.xml", [])])
def test_transport_profile(file: str, addresses: list[str]) -> None:
    root = ET.parse(ROOT / "config" / file).getroot()
    by_type = {
        t.findtext("dds:type", "", FAST_DDS): t
        for t in root.iterfind(".//dds:transport_descriptor", FAST_DDS)
    }
    assert set(by_type) == {"SHM", "UDPv4"}
    frame = 1920 * 1080 * 3
    segment = int(by_type["SHM"].findtext("dds:segment_size", "0", FAST_DDS))
    largest = int(by_type["SHM"].findtext("dds:maxMessageSize", "0", FAST_DDS))
    assert frame < largest <= segment, "a 1080p rgb8 frame must fit into one message"
    allowed = by_type["UDPv4"].iterfind("dds:interfaceWhiteList/dds:address", FAST_DDS)
    assert [address.text for address in allowed] == addresses
    participant = root.find(".//dds:participant", FAST_DDS)
    assert participant is not None
    assert participant.get("is_default_profile") == "true"
    assert participant.findtext(".//dds:useBuiltinTransports", "", FAST_DDS) == "false"
    used = {
        element.text for element in participant.iterfind(".//dds:userTransports/dds:transport_id", FAST_DDS)
    }
    assert used == {t.findtext("dds:transport_id", "", FAST_DDS) for t in by_type.values()}


@pytest.mark.parametrize("name", ["cpu", "desktop", "jetson"])
def test_deployment_file_changes_what_it_says(name: str) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    from thermal_enhance.nodes.enhancement_config import EnhancementConfig

    content = yaml.safe_load((ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(content) == {"/**/enhancement_node"}, "a bare node name matches in the root namespace only"
    values = content["/**/enhancement_node"]["ros__parameters"]
    fields = {field.name: field for field in dataclasses.fields(EnhancementConfig)}
    for parameter, value in values.items():
        field = fields[parameter]
        assert type(value) is type(field.default), f"{parameter} has another type than its default"
        assert value != field.default, f"{parameter} repeats its default"
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        assert low is None or low <= value <= high
        assert not choices or value in choices


# ---- with launch ----------------------------------------------------------------------------


def load(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.split(".")[0], ROOT / "launch" / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation of the package as colcon lays it out, on top of whatever is there."""
    share = tmp_path / "share" / "thermal_enhance"
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    scripts = tmp_path / "lib" / "thermal_enhance"
    for folder in (share, index, scripts):
        folder.mkdir(parents=True)
    (index / "thermal_enhance").touch()
    for part in ("launch", "config"):
        shutil.copytree(ROOT / part, share / part)
    for name, module in EXECUTABLES.items():
        (scripts / name).write_text(SCRIPT.format(python=sys.executable, module=module), encoding="utf-8")
        (scripts / name).chmod(0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path}:{os.environ.get('AMENT_PREFIX_PATH', '')}")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))
    return tmp_path


def actions(file: str, **arguments: str) -> tuple[list[Any], Any]:
    """The actions that a launch file makes of some arguments, and the launch context."""
    from launch import LaunchContext

    context = LaunchContext()
    context.launch_configurations.update(arguments)
    made: list[Any] = []
    pending = list(load(file).generate_launch_description().entities)
    while pending:
        entity = pending.pop(0)
        made.append(entity)
        # A process is not started here; everything that leads to it is carried out.
        if type(entity).__name__ not in ("Node", "LifecycleNode", "RegisterEventHandler"):
            pending = [*(entity.visit(context) or []), *pending]
    return made, context


def command(node: Any, context: Any) -> list[str]:
    node._perform_substitutions(context)
    parts = []
    for part in node.cmd:
        try:
            parts.append("".join(text.perform(context) for text in part))
        except AttributeError:
            continue  # ros_specific_arguments: known only when the process starts
    return parts


def nodes_of(made: list[Any], kind: str) -> list[Any]:
    return [action for action in made if type(action).__name__ == kind]


@needs_launch
def test_composed_is_one_process_with_all_nodes(prefix: Path) -> None:
    made, context = actions("bringup.launch.py", source="rig", mode="classical", thermal_topic="/cam/image")
    assert not nodes_of(made, "LifecycleNode")
    (node,) = nodes_of(made, "Node")
    line = command(node, context)
    assert line[0] == str(prefix / "lib" / "thermal_enhance" / "thermal_enhance_container")
    assert line[line.index("--nodes") + 1] == "camera_rig_node,enhancement_node,task_router_node"
    assert line[line.index("--autostart") + 1] == "true"
    for rule in (
        'mode:="classical"',
        "use_sim_time:=false",
        "thermal/image_raw:=/cam/image",
        "thermal/image_raw/compressed:=/cam/image/compressed",
        "thermal/camera_info:=/cam/camera_info",
    ):
        assert rule in line
    assert not any("__node:=" in part for part in line), "it would rename every node of the process"
    assert not any(part.startswith(("rgb/", "policy:=", "model:=")) for part in line), "defaults stay"


@needs_launch
def test_one_process_a_node_with_lifecycle_handlers(prefix: Path) -> None:
    made, context = actions("bringup.launch.py", composed="false", task_policy="fixed")
    nodes = nodes_of(made, "LifecycleNode")
    assert [Path(command(node, context)[0]).name for node in nodes] == [
        "enhancement_node",
        "task_router_node",
    ]
    assert all('policy:="fixed"' in command(node, context) for node in nodes)
    # One to start each node, and one for the end of the enhancement node.
    assert len(nodes_of(made, "RegisterEventHandler")) == 3
    made, context = actions("bringup.launch.py", composed="false", respawn="true")
    assert not nodes_of(made, "RegisterEventHandler")
    assert all("--autostart" in command(node, context) for node in nodes_of(made, "LifecycleNode"))
    made, context = actions("bringup.launch.py", composed="false", autostart="false", respawn="true")
    assert not any("--autostart" in command(node, context) for node in nodes_of(made, "LifecycleNode"))


@needs_launch
def test_camera_and_params_files_by_name_and_by_path(prefix: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("/**:\n  ros__parameters: {}\n", encoding="utf-8")
    made, context = actions("bringup.launch.py", params_file=str(mine), camera="lepton")
    line = command(nodes_of(made, "Node")[0], context)
    files = [line[i + 1] for i, part in enumerate(line) if part == "--params-file"]
    config = prefix / "share" / "thermal_enhance" / "config"
    assert files == [str(mine), str(config / "cameras" / "lepton.yaml")], "the camera's file wins"
    with pytest.raises(FileNotFoundError, match=r"camera:=leptn is neither a file nor one of .*lepton"):
        actions("bringup.launch.py", camera="leptn")


@needs_launch
@pytest.mark.parametrize(
    ("discovery", "before", "after"),
    [
        ("localhost", {}, ("LOCALHOST", "fastdds.xml")),
        ("subnet", {}, ("SUBNET", "fastdds_subnet.xml")),
        ("keep", {}, (None, None)),
        ("localhost", {"range": "SUBNET"}, ("SUBNET", "fastdds_subnet.xml")),
        ("localhost", {"profile": "/mine.xml"}, ("LOCALHOST", "mine.xml")),
        ("subnet", {"range": "LOCALHOST", "profile": "/mine.xml"}, ("SUBNET", "mine.xml")),
    ],
)
def test_dds_environment_respects_the_user(
    prefix: Path,
    monkeypatch: pytest.MonkeyPatch,
    discovery: str,
    before: dict[str, str],
    after: tuple[str | None, str | None],
) -> None:
    names = {"range": "ROS_AUTOMATIC_DISCOVERY_RANGE", "profile": "FASTRTPS_DEFAULT_PROFILES_FILE"}
    for key, variable in names.items():
        # Set first, so that it is put back after the test in either case.
        monkeypatch.setenv(variable, before.get(key, ""))
        if key not in before:
            monkeypatch.delenv(variable)
    _, context = actions("bringup.launch.py", discovery=discovery)
    profile = context.environment.get(names["profile"])
    found = (context.environment.get(names["range"]), Path(profile).name if profile else None)
    for variable in names.values():
        os.environ.pop(variable, None)
    assert found == after


@needs_launch
def test_replay_plays_into_bringup_on_its_clock(prefix: Path) -> None:
    made, context = actions(
        "replay.launch.py", bag="/data/run.mcap", thermal_topic="/flir/image", rate="0.5", namespace="robot"
    )
    suite, player = (command(node, context) for node in nodes_of(made, "Node"))
    assert "use_sim_time:=true" in suite
    assert not any("/flir" in part for part in suite), "the player publishes under the suite's names"
    assert player[player.index("--nodes") + 1] == "replay_node"
    for rule in ('bag:="/data/run.mcap"', "rate:=0.5", 'thermal_topic:="/flir/image"', "loop:=false"):
        assert rule in player


LAUNCH = """
import signal, sys
# A shell that starts this in the background leaves SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(argument.split(":=", 1)) for argument in sys.argv[2:]]
service = LaunchService(noninteractive=True)
source = PythonLaunchDescriptionSource(sys.argv[1])
include = IncludeLaunchDescription(source, launch_arguments=arguments)
service.include_launch_description(LaunchDescription([include]))
sys.exit(service.run())
"""


def start_launch(file: Path, arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """What `ros2 launch` does, in a process group of its own."""
    with log.open("wb") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(file), *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Not the checkout: its launch/ folder would be taken for the package.
            cwd=log.parent,
        )


def watch_until_active(namespace: str, names: list[str], timeout_s: float = 60.0) -> dict[str, str]:
    """Lifecycle states of nodes, asked again until all are active or the time is over."""
    import rclpy
    from lifecycle_msgs.srv import GetState
    from rclpy.executors import SingleThreadedExecutor

    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("watcher", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    clients = {name: node.create_client(GetState, f"{namespace}/{name}/get_state") for name in names}
    states = dict.fromkeys(names, "not there")
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and set(states.values()) != {"active"}:
        for name, client in clients.items():
            if client.service_is_ready():
                future = client.call_async(GetState.Request())
                executor.spin_until_future_complete(future, timeout_sec=2.0)
                if future.done():
                    states[name] = future.result().current_state.label
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    return states


def write_bag(path: Path, frames: int) -> Path:
    """A recording of a thermal camera at 20 Hz."""
    from thermal_enhance.imaging.encodings import encode
    from thermal_enhance.nodes import cdr
    from thermal_enhance.nodes.bags import IMAGE, BagWriter

    with BagWriter(path) as writer:
        writer.add_topic("/boson/image_raw", IMAGE)
        for index in range(frames):
            stamp = 1_700_000_000_000_000_000 + index * 50_000_000
            data = np.full((48, 64), 3000 + index, np.uint16)
            writer.write(
                "/boson/image_raw", stamp, cdr.serialize_image(encode(data, "mono16", stamp, "boson"))
            )
    return path


@needs_launch
@pytest.mark.ros
@pytest.mark.parametrize("composed", ["true", "false"])
def test_bringup_comes_up_and_ends_with_zero(prefix: Path, composed: str, tmp_path: Path) -> None:
    """The real thing: every node active, frames come out, Ctrl-C twice to the whole group, exit 0."""
    log = tmp_path / "launch.log"
    arguments = ["source:=rig", "namespace:=launched", f"composed:={composed}"]
    process = start_launch(ROOT / "launch" / "bringup.launch.py", arguments, log)
    try:
        states = watch_until_active("/launched", ["enhancement_node", "task_router_node", "camera_rig_node"])
        os.killpg(process.pid, signal.SIGINT)
        process.send_signal(signal.SIGINT)
        status = process.wait(40)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text(errors="replace")
    assert states and all(state == "active" for state in states.values()), f"{states}\n{text}"
    assert status == 0, text
    assert "process has died" not in text, text


@needs_launch
@pytest.mark.ros
def test_replay_ends_with_the_recording(prefix: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", frames=20)
    log = tmp_path / "launch.log"
    process = start_launch(ROOT / "launch" / "replay.launch.py", [f"bag:={bag}"], log)
    try:
        status = process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    text = log.read_text(errors="replace")
    assert status == 0, text
    assert "played" in text and "thermal 20" in text, text


@needs_launch
@pytest.mark.ros
def test_replay_of_nothing_is_an_error(prefix: Path, tmp_path: Path) -> None:
    log = tmp_path / "launch.log"
    process = start_launch(ROOT / "launch" / "replay.launch.py", [f"bag:={tmp_path / 'none.mcap'}"], log)
    try:
        status = process.wait(60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert status == 1
    assert "could not be played" in log.read_text(errors="replace")
