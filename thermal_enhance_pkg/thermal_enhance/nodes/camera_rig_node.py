"""The simulated rig as a pair of cameras."""

from __future__ import annotations

import dataclasses
import heapq
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from thermal_enhance.imaging.geometry import CameraModel
from thermal_enhance.imaging.raw import RawImage
from thermal_enhance.nodes.bus import LocalBus
from thermal_enhance.nodes.parameters import parameter
from thermal_enhance.nodes.process import run_node
from thermal_enhance.nodes.source import ScheduledFrame, SourceNode
from thermal_enhance.simulation.presets import PRESETS, rig_preset
from thermal_enhance.simulation.rig import CameraRig
from thermal_enhance.simulation.schedule import Arrival

CHUNK_S = 1.0
"""The schedule is made a second at a time, so that a rig that runs for days needs no more memory."""


@dataclass(frozen=True)
class CameraRigConfig:
    """Parameters of the rig; every field is a ROS parameter of the same name."""

    preset: str = parameter("default", "Which cameras to imitate.", choices=PRESETS, read_only=True)
    seed: int = parameter(0, "Seed of the world and of the noise.", low=0, read_only=True)
    duration: float = parameter(0.0, "Stop after this many seconds; 0 never.", low=0.0, read_only=True)
    thermal_rate: float = parameter(
        0.0, "Thermal frames a second; 0 for the preset's.", low=0.0, high=240.0, read_only=True
    )
    rgb_rate: float = parameter(
        0.0, "RGB frames a second; 0 for the preset's.", low=0.0, high=240.0, read_only=True
    )
    rgb: bool = parameter(True, "Is there an RGB camera?", read_only=True)
    thermal_offset: float = parameter(
        0.0, "Error of the thermal stamps, seconds.", low=-5.0, high=5.0, read_only=True
    )
    rgb_offset: float = parameter(
        0.0, "Error of the RGB stamps, seconds.", low=-5.0, high=5.0, read_only=True
    )
    rgb_dropout: float = parameter(0.0, "Share of RGB frames lost.", low=0.0, high=1.0, read_only=True)
    ffc_period: float = parameter(
        -1.0, "Seconds between shutter events; 0 none, negative for the preset's.", read_only=True
    )
    night: float = parameter(
        -1.0, "0 day to 1 night, when the RGB camera sees next to nothing; negative for the preset's.",
        high=1.0, read_only=True,
    )  # fmt: skip
    publish_ffc: bool = parameter(
        False, "Publish the shutter's state on thermal/ffc_state, as some drivers do.", read_only=True
    )


class CameraRigNode(SourceNode):
    """Lifecycle node `camera_rig_node`: the simulated rig on thermal/image_raw and rgb/image_raw."""

    config_type = CameraRigConfig

    def __init__(self, bus: LocalBus | None = None, name: str = "camera_rig_node", **kwargs: Any) -> None:
        self._rig: CameraRig | None = None
        super().__init__(name, bus, **kwargs)

    def open_source(self) -> None:
        """Build the world; textures are rendered here, not while frames are due."""
        config: CameraRigConfig = self.config
        self._rig = CameraRig(
            rig_preset(
                config.preset,
                thermal_rate=config.thermal_rate or None,
                rgb_rate=config.rgb_rate or None,
                thermal_offset=config.thermal_offset or None,
                rgb_offset=config.rgb_offset or None,
                rgb_dropout=config.rgb_dropout or None,
                ffc_period=config.ffc_period if config.ffc_period >= 0 else None,
                night=config.night if config.night >= 0 else None,
                seed=config.seed,
                epoch_ns=0,
            )
        )
        self._rig.thermal_frame(0)
        if config.rgb:
            self._rig.color_frame(0)

    def camera(self, stream: str, width: int, height: int) -> CameraModel:
        """The rig's true intrinsics; a driver counts its telemetry rows as picture."""
        assert self._rig is not None
        if stream == "rgb":
            return self._rig.color_camera
        return dataclasses.replace(self._rig.thermal_camera, width=width, height=height)

    def schedule(self) -> Iterator[ScheduledFrame]:
        """Deliveries of both cameras in the order in which they arrive."""
        assert self._rig is not None
        config: CameraRigConfig = self.config
        start_s = 0.0
        held: list[tuple[float, int, str, Arrival]] = []
        count = 0
        while not config.duration or start_s < config.duration:
            span = min(CHUNK_S, config.duration - start_s) if config.duration else CHUNK_S
            streams = [("thermal", self._rig.thermal_times(span, start_s))]
            if config.rgb:
                streams.append(("rgb", self._rig.color_times(span, start_s)))
            for stream, arrivals in streams:
                for arrival in arrivals:
                    count += 1
                    heapq.heappush(held, (arrival.arrival_s, count, stream, arrival))
            start_s += span
            # What is exposed in the next second arrives after its start; what is due before that is final.
            while held and held[0][0] < start_s:
                yield self._frame(*heapq.heappop(held)[2:])
        while held:
            yield self._frame(*heapq.heappop(held)[2:])

    def cleanup(self) -> None:
        """Free the world."""
        super().cleanup()
        self._rig = None

    def _frame(self, stream: str, arrival: Arrival) -> ScheduledFrame:
        assert self._rig is not None
        rig = self._rig
        make: Callable[[int], RawImage] = rig.thermal_raw if stream == "thermal" else rig.color_raw

        def stamped(base_ns: int) -> RawImage:
            raw = make(arrival.index)
            return dataclasses.replace(raw, stamp_ns=base_ns + arrival.stamp_ns)

        ffc = (
            int(rig.ffc_state(arrival.exposure_s))
            if self.config.publish_ffc and stream == "thermal"
            else None
        )
        return ScheduledFrame(stream, arrival.arrival_s, stamped, ffc)


def main(args: list[str] | None = None) -> int:
    """Run the node in a process of its own."""
    return run_node(CameraRigNode, args)


if __name__ == "__main__":
    sys.exit(main())
