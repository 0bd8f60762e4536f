"""Play a recording in the place of the cameras and bring up the suite on its clock.

    ros2 launch thermal_enhance replay.launch.py bag:=recording.mcap
    ros2 launch thermal_enhance replay.launch.py bag:=recording.mcap thermal_topic:=/flir/image_raw rate:=0.5

Ends when the recording ends, unless it loops. The arguments of bringup.launch.py hold here too, but for the
topics, which are those of the recording, and `use_sim_time`, which is true.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetLaunchConfiguration,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchContext, LaunchDescription

PACKAGE = "thermal_enhance"
LAST_FRAMES_S = 1.0
"""Time for the last frames to be enhanced after the recording has ended."""

# The player publishes under the suite's own names, on the recording's clock.
FIXED = {
    "use_sim_time": "true",
    "source": "none",
    "thermal_topic": "thermal/image_raw",
    "rgb_topic": "rgb/image_raw",
    "thermal_info_topic": "",
    "rgb_info_topic": "",
}
RECORDED = "recorded_"
"""Prefix of the recording's topics, kept while bringup takes FIXED for the same arguments."""
ARGUMENTS = (
    DeclareLaunchArgument("bag", description="rosbag2 folder, .mcap or .db3 file, or a folder of frames."),
    DeclareLaunchArgument("rate", default_value="1.0", description="Seconds of the recording per second."),
    DeclareLaunchArgument(
        "loop", default_value="false", choices=("true", "false"), description="Begin again at the end."
    ),
    DeclareLaunchArgument(
        "start_offset", default_value="0.0", description="Seconds to leave out at the beginning."
    ),
    DeclareLaunchArgument(
        "thermal_topic",
        default_value="",
        description="Thermal image topic in it; empty to find it.",
    ),
    DeclareLaunchArgument(
        "rgb_topic", default_value="", description="RGB image topic in it; empty to find it, none for none."
    ),
)


def generate_launch_description() -> LaunchDescription:
    bringup = Path(__file__).with_name("bringup.launch.py")
    return LaunchDescription(
        [
            *ARGUMENTS,
            *(
                SetLaunchConfiguration(RECORDED + name, LaunchConfiguration(name))
                for name in ("thermal_topic", "rgb_topic")
            ),
            # Before the player: it also sets the DDS environment that the player's process inherits.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(bringup)), launch_arguments=FIXED.items()
            ),
            OpaqueFunction(function=play),
        ]
    )


def play(context: LaunchContext) -> list[Any]:
    """The player, which waits for somebody to listen, and what happens when it ends."""
    player = player_node(context.launch_configurations)
    return [RegisterEventHandler(OnProcessExit(target_action=player, on_exit=end)), player]


def player_node(value: dict[str, str]) -> Node:
    """A process that plays the recording and exits at its end."""
    rules = {
        "bag": json.dumps(str(Path(value["bag"]).expanduser())),
        "rate": float(value["rate"]),
        "loop": value["loop"],
        "start_offset": float(value["start_offset"]),
        "thermal_topic": json.dumps(value[f"{RECORDED}thermal_topic"]),
        "rgb_topic": json.dumps(value[f"{RECORDED}rgb_topic"]),
        # The suite takes a moment to come up; nothing of the recording is to be missed.
        "wait_for_subscribers": "true",
        "wait_timeout": 60.0,
    }
    return Node(
        package=PACKAGE,
        executable="thermal_enhance_container",
        exec_name="replay_node",
        namespace=value["namespace"],
        arguments=["--nodes", "replay_node", "--exit-when-finished"],
        ros_arguments=[
            "--log-level",
            value["log_level"],
            *(text for name, rule in rules.items() for text in ("-p", f"{name}:={rule}")),
        ],
        output="screen",
        emulate_tty=True,
        sigterm_timeout="10",
        sigkill_timeout="10",
    )


def end(event: ProcessExited, context: LaunchContext) -> list[Any]:
    """The recording has ended, or could not be played.

    Raises:
        RuntimeError: it could not; the launch's exit status says so too.
    """
    if context.is_shutdown:
        return []
    if event.returncode:
        raise RuntimeError(f"the recording could not be played (status {event.returncode}): see above")
    return [TimerAction(period=LAST_FRAMES_S, actions=[Shutdown(reason="the recording has ended")])]
