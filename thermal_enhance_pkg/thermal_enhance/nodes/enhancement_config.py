"""Parameters of the enhancement node."""

from __future__ import annotations

from dataclasses import dataclass

from thermal_enhance.nodes.parameters import parameter
from thermal_enhance.nodes.qos import RELIABILITY_CHOICES
from thermal_enhance.nodes.topics import TRANSPORTS

UNITS_CHOICES = ("auto", "counts", "centikelvin", "kelvin", "celsius", "agc8")
COLORMAP_DEFAULT = "inferno"


@dataclass(frozen=True)
class EnhancementConfig:
    """What the enhancement node can be told; every field is a ROS parameter of the same name."""

    # What to do
    mode: str = parameter(
        "classical",
        "Enhancement: passthrough, classical, cross_modal, temporal, restore, restore+cross_modal or "
        "restore+temporal. A mode that is not available falls back to classical and says so.",
        choices=(
            "passthrough",
            "classical",
            "cross_modal",
            "temporal",
            "restore",
            "restore+cross_modal",
            "restore+temporal",
        ),
    )
    model: str = parameter(
        "", "Model of that mode (empty: the mode's default); `thermal-enhance models` lists those there are."
    )
    device: str = parameter("auto", "Where models run: auto, cpu, cuda or cuda:N.")
    model_threads: int = parameter(
        0, "CPU threads of a model; 0 for as many as this process may use.", low=0, high=256
    )
    scale: int = parameter(
        0,
        "Output size over input size: 1, 2, 4 or 8; 0 chooses the largest within max_output_pixels (in mode "
        "temporal, 4 at most). A model makes some of them only; frames of another scale are left to the "
        "classical tier.",
        low=0,
        high=8,
    )
    max_output_pixels: int = parameter(
        1_310_720, "Largest output, in pixels, that scale 0 may choose.", low=1024, high=268_435_456
    )
    quality: str = parameter(
        "fast",
        "Effort of the classical tier: full, or fast (works on at most 640x480 and enlarges from there).",
        choices=("fast", "full"),
    )
    denoise: bool = parameter(True, "Classical tier: smooth noise, within consistency_k times netd.")
    estimate_noise: bool = parameter(
        False,
        "Classical tier: with netd 0, take the noise measured in the stream for it, up to 1 % of its range.",
    )
    destripe: bool = parameter(False, "Classical tier: remove row and column offsets, within the same bound.")
    task: str = parameter("", "Task whose prompt is used until a task router says otherwise; empty for none.")
    pin_tier: bool = parameter(
        False, "Always use the full tier, whatever it takes: no deadlines (evaluation, benchmarks)."
    )
    deadline: float = parameter(
        0.1, "Time a frame may take, seconds; a slower tier steps down that very frame.", low=0.001, high=60.0
    )
    hold_rate: bool = parameter(
        True,
        "Step down from a model that cannot keep up with the camera; false: it works on the newest frame "
        "and the others are dropped.",
    )
    hang_timeout: float = parameter(
        5.0, "A model that has not answered after this many seconds is abandoned.", low=0.1, high=600.0
    )

    # Frames between frames, in mode temporal
    look_ahead: int = parameter(
        0,
        "Mode temporal: 0 publishes the newest frame at once; 1 the frame before it, with the newest to "
        "help: better, and one frame later.",
        low=0,
        high=1,
    )
    fps_out: float = parameter(
        0.0,
        "Mode temporal: 0 for one interpolated frame in the middle between two real ones (twice the rate); "
        "else interpolated frames on a fixed grid of so many a second, at most 8 for one real frame.",
        low=0.0,
        high=240.0,
    )
    newest_first: bool = parameter(
        False,
        "Mode temporal: publish the newest frame first and alone on thermal/enhanced/image_raw, and the "
        "interpolated ones, which are older, on thermal/interpolated/image_raw.",
    )
    motion: str = parameter(
        "dense",
        "Mode temporal: how motion is found: dense (every pixel), global (one homography: steadier "
        "where only the camera moves, no faster) or none.",
        choices=("dense", "global", "none"),
    )

    # The thermal camera
    thermal_units: str = parameter(
        "auto",
        "What a thermal pixel value means; auto: mono8 is agc8, 16-bit is counts, 32FC1 is celsius.",
        choices=UNITS_CHOICES,
        read_only=True,
    )
    telemetry_rows: int = parameter(
        0, "Rows of telemetry to strip from each thermal frame.", low=0, high=64, read_only=True
    )
    telemetry_position: str = parameter(
        "footer", "Where the telemetry rows are.", choices=("footer", "header"), read_only=True
    )
    drop_duplicates: bool = parameter(
        False, "Drop bit-identical repeats of a frame (a 9 Hz Lepton on 27 fps UVC sends each three times)."
    )
    freeze_after: float = parameter(
        0.35,
        "Bit-identical frames for this long, seconds, mean that the shutter is closed (FFC).",
        low=0.05,
        high=10.0,
    )
    netd: float = parameter(
        0.0,
        "Noise-equivalent temperature difference in units of the pixel values; 0 if not known: block "
        "means then follow the input exactly and nothing is denoised, unless estimate_noise is set.",
        low=0.0,
        high=10_000.0,
    )
    consistency_k: float = parameter(
        1.0,
        "Output may differ from the input by this many times netd after averaging down.",
        low=0.0,
        high=100.0,
    )
    sampling: str = parameter(
        "area",
        "How the sensor samples: area holds block means to the input, off leaves them (aliased input).",
        choices=("area", "off"),
    )

    # The RGB camera and the pairing
    use_rgb: bool = parameter(True, "Use the RGB camera as a guide where the mode can.")
    pair_always: bool = parameter(
        False, "Subscribe and pair RGB even in a mode that does not look at it (recording, benchmarks)."
    )
    slop: float = parameter(
        0.04,
        "Largest time between a thermal and an RGB frame of a pair, seconds, inclusive.",
        low=0.0,
        high=5.0,
    )
    max_wait: float = parameter(
        -1.0,
        "Longest time a thermal frame waits for its RGB frame, seconds; negative: no longer than slop.",
        low=-1.0,
        high=5.0,
    )
    rgb_offset: float = parameter(
        0.0,
        "Added to RGB stamps to bring them into the thermal camera's clock, seconds.",
        low=-10.0,
        high=10.0,
    )
    synchronizer: str = parameter(
        "builtin",
        "Pairing: builtin, or approximate_time (message_filters, where installed).",
        choices=("builtin", "approximate_time"),
        read_only=True,
    )
    max_age: float = parameter(
        1.0, "A frame older than this when its turn comes is dropped, seconds; 0 never.", low=0.0, high=3600.0
    )

    # Transport
    thermal_transport: str = parameter(
        "raw", "raw, or compressed to subscribe to <topic>/compressed.", choices=TRANSPORTS, read_only=True
    )
    rgb_transport: str = parameter(
        "raw", "raw, or compressed to subscribe to <topic>/compressed.", choices=TRANSPORTS, read_only=True
    )
    reliability: str = parameter(
        "match",
        "Reliability of the thermal subscription: match follows the camera.",
        choices=RELIABILITY_CHOICES,
        read_only=True,
    )
    rgb_reliability: str = parameter(
        "best_effort",
        "Reliability of the RGB subscription; asking for lost RGB fragments again holds thermal frames up.",
        choices=RELIABILITY_CHOICES,
        read_only=True,
    )

    # Viewing
    colormap: str = parameter(COLORMAP_DEFAULT, "Palette of thermal/enhanced/view.")
    view_mode: str = parameter(
        "linear",
        "Tone curve of the view: linear percentiles, or local contrast.",
        choices=("linear", "local"),
    )
    tone_time_constant: float = parameter(
        2.0, "How slowly the tone curve follows the scene, seconds.", low=0.0, high=600.0
    )
