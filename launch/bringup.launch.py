"""Bring up the suite: enhancement and task router, composed in one process or one process each.

    ros2 launch thermal_enhance bringup.launch.py thermal_topic:=/flir/image_raw rgb_topic:=/usb_cam/image_raw
    ros2 launch thermal_enhance bringup.launch.py source:=rig composed:=false

Composed (the default) the process configures and activates its own nodes and hands frames over in memory;
otherwise launch drives each node through its lifecycle by events. `ros2 launch -s` lists the arguments.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.events.process import ProcessExited
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

from launch import LaunchContext, LaunchDescription

PACKAGE = "thermal_enhance"
NODES = ("enhancement_node", "task_router_node")
SOURCES = {"none": "", "rig": "camera_rig_node"}

RANGE_VARIABLE = "ROS_AUTOMATIC_DISCOVERY_RANGE"
PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"

BOOLEANS = ("true", "false")
ARGUMENTS = (
    DeclareLaunchArgument("namespace", default_value="", description="Namespace of every node and topic."),
    DeclareLaunchArgument(
        "params_file",
        default_value="cpu",
        description="Deployment parameters: a YAML file, or a name in config/ (cpu, desktop, jetson).",
    ),
    DeclareLaunchArgument(
        "camera",
        default_value="",
        description="Camera parameters, applied over params_file: a name in config/cameras/, or a YAML file.",
    ),
    DeclareLaunchArgument(
        "composed",
        default_value="true",
        choices=BOOLEANS,
        description="One process (frames handed over in memory), or one process a node.",
    ),
    DeclareLaunchArgument(
        "mode", default_value="", description="Enhancement mode; empty: as in params_file."
    ),
    DeclareLaunchArgument(
        "model", default_value="", description="Model of the mode; empty: as in params_file."
    ),
    DeclareLaunchArgument(
        "task_policy",
        default_value="",
        choices=("", "fixed", "round_robin", "on_demand"),
        description="How the task router chooses tasks; empty: as in params_file.",
    ),
    DeclareLaunchArgument(
        "source",
        default_value="none",
        choices=tuple(SOURCES),
        description="Stand-in for the cameras: none, or rig (the simulated rig).",
    ),
    DeclareLaunchArgument(
        "thermal_topic", default_value="thermal/image_raw", description="Thermal image topic of the camera."
    ),
    DeclareLaunchArgument(
        "rgb_topic", default_value="rgb/image_raw", description="RGB image topic of the camera."
    ),
    DeclareLaunchArgument(
        "thermal_info_topic", default_value="", description="Empty: camera_info beside thermal_topic."
    ),
    DeclareLaunchArgument(
        "rgb_info_topic", default_value="", description="Empty: camera_info beside rgb_topic."
    ),
    DeclareLaunchArgument(
        "use_sim_time", default_value="false", choices=BOOLEANS, description="Follow /clock."
    ),
    DeclareLaunchArgument(
        "autostart",
        default_value="true",
        choices=BOOLEANS,
        description="Configure and activate the nodes; otherwise they wait for `ros2 lifecycle set`.",
    ),
    DeclareLaunchArgument(
        "respawn",
        default_value="false",
        choices=BOOLEANS,
        description="Restart a process that died; it brings its nodes up by itself then.",
    ),
    DeclareLaunchArgument(
        "log_level",
        default_value="info",
        choices=("debug", "info", "warn", "error", "fatal"),
        description="Log level of the nodes.",
    ),
    DeclareLaunchArgument(
        "discovery",
        default_value="localhost",
        choices=("localhost", "subnet", "keep"),
        description="Who may find the graph: this machine only (where the environment does not say "
        "otherwise), the network (see SROS2 in the README), or whatever the environment says.",
    ),
)


def generate_launch_description() -> LaunchDescription:
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=bringup)])


def bringup(context: LaunchContext) -> list[Any]:
    """Everything that depends on the arguments' values."""
    value = context.launch_configurations
    share = Path(get_package_share_directory(PACKAGE))
    source = SOURCES[value["source"]]
    names = [*([source] if source else []), *NODES]
    common = {
        "package": PACKAGE,
        "namespace": value["namespace"],
        "remappings": camera_remappings(value),
        "ros_arguments": ["--log-level", value["log_level"], *parameter_arguments(value, share)],
        "output": "screen",
        "emulate_tty": True,
        "respawn": value["respawn"] == "true",
        "respawn_delay": 1.0,
        # A worker hung in a model is given up by its watchdog; let that happen before the process is killed.
        "sigterm_timeout": "10",
        "sigkill_timeout": "10",
    }
    actions: list[Any] = dds_environment(value["discovery"], share, context.environment)
    if value["composed"] == "true":
        # No `name`: launch would rename every node of the process.
        arguments = ["--nodes", ",".join(names), "--autostart", value["autostart"]]
        processes = [Node(executable="thermal_enhance_container", arguments=arguments, **common)]
        main_process = processes[0]
        actions += processes
    else:
        # Until discovery gives up a dead process (20 s), its services cannot be told from its successor's
        # and launch's requests may go to the dead one: processes that respawn bring themselves up.
        alone = value["autostart"] == "true" and common["respawn"]
        arguments = ["--autostart"] if alone else []
        processes = [
            LifecycleNode(executable=name, name=name, arguments=arguments, **common) for name in names
        ]
        main_process = processes[names.index("enhancement_node")]
        for node in processes:
            actions += [node, *(autostart(node) if value["autostart"] == "true" and not alone else [])]
    if not common["respawn"]:
        actions.insert(0, RegisterEventHandler(OnProcessExit(target_action=main_process, on_exit=end)))
    return actions


def parameter_arguments(value: dict[str, str], share: Path) -> list[str]:
    """Command line of the parameters; the last one given wins."""
    files = [named_file(share / "config", value["params_file"], "params_file")]
    if value["camera"]:
        files.append(named_file(share / "config" / "cameras", value["camera"], "camera"))
    arguments = [text for path in files for text in ("--params-file", str(path))]
    # A parameter that a node does not declare is ignored by it, so these may go to every process.
    rules = {"use_sim_time": value["use_sim_time"]}
    rules |= {
        name: json.dumps(value[argument])
        for argument, name in (("mode", "mode"), ("model", "model"), ("task_policy", "policy"))
        if value[argument]
    }
    return [*arguments, *(text for name, rule in rules.items() for text in ("-p", f"{name}:={rule}"))]


def autostart(node: LifecycleNode) -> list[Any]:
    """Configure a node that has just been started, and activate it once it is configured."""
    activate = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change_state(node, Transition.TRANSITION_ACTIVATE)],
        # Once: a node that somebody configures by hand later is not activated behind their back.
        handle_once=True,
    )
    return [RegisterEventHandler(activate), change_state(node, Transition.TRANSITION_CONFIGURE)]


def end(event: ProcessExited, context: LaunchContext) -> list[Any]:
    """The main process has ended, and with it the launch; a failure becomes the launch's exit status.

    Raises:
        RuntimeError: it ended with an error while nobody was shutting down.
    """
    if context.is_shutdown:
        return []
    if event.returncode:
        raise RuntimeError(f"{event.process_name} ended with status {event.returncode}: see its message")
    return [Shutdown(reason=f"{event.process_name} has ended")]


def change_state(node: LifecycleNode, transition: int) -> EmitEvent:
    """Ask a node for a lifecycle transition."""
    return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))


def camera_remappings(value: dict[str, str]) -> list[tuple[str, str]]:
    """Remappings from the suite's names to the cameras' topics, camera_info and compressed ones included."""
    remappings = []
    for camera in ("thermal", "rgb"):
        image = value[f"{camera}_topic"]
        info = value[f"{camera}_info_topic"] or beside(image, "camera_info")
        pairs = (
            (f"{camera}/image_raw", image),
            (f"{camera}/image_raw/compressed", f"{image}/compressed"),
            (f"{camera}/camera_info", info),
        )
        remappings += [(ours, theirs) for ours, theirs in pairs if ours != theirs]
    return remappings


def beside(topic: str, name: str) -> str:
    """The topic `name` in the same namespace as another topic."""
    return f"{topic.rpartition('/')[0]}/{name}" if "/" in topic else name


def named_file(folder: Path, text: str, argument: str) -> Path:
    """The YAML file that an argument means: a path, or a name in the package's folder.

    Raises:
        FileNotFoundError: it is neither; the message lists the names.
    """
    for path in (Path(text).expanduser(), folder / f"{text}.yaml", folder / text):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise FileNotFoundError(f"{argument}:={text} is neither a file nor one of {known} in {folder}")


def dds_environment(discovery: str, share: Path, environment: Any) -> list[SetEnvironmentVariable]:
    """Discovery range and Fast DDS profile; what the user has set is left alone."""
    if discovery == "keep":
        return []
    settings = {}
    reach = environment.get(RANGE_VARIABLE, "")
    if discovery == "subnet":
        reach = settings[RANGE_VARIABLE] = "SUBNET"
    elif not reach:
        reach = settings[RANGE_VARIABLE] = "LOCALHOST"
    if environment.get("ROS_DISTRO") == "humble":
        # Humble knows only the older switch.
        settings["ROS_LOCALHOST_ONLY"] = environment.get("ROS_LOCALHOST_ONLY") or str(
            int(discovery == "localhost")
        )
    if not environment.get(PROFILE_VARIABLE):
        # A profile bound to loopback would contradict a wider range that the user has asked for.
        profile = "fastdds.xml" if reach in ("LOCALHOST", "OFF") else "fastdds_subnet.xml"
        settings[PROFILE_VARIABLE] = str(share / "config" / profile)
    return [SetEnvironmentVariable(name, text) for name, text in settings.items()]
