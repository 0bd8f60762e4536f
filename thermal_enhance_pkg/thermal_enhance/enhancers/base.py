"""What every enhancer takes and gives: one request in, one enhanced frame out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from thermal_enhance.imaging.frames import ColorFrame, ThermalFrame


@dataclass(frozen=True)
class EnhanceRequest:
    """One thermal frame to enhance, with whatever may help.

    Attributes:
        thermal: the input; its units and dtype are those of the output too.
        color: the RGB frame paired with it, or None.
        scale: output size over input size (1, 2, 4 or 8).
        pair_skew_s: RGB stamp minus thermal stamp, seconds; NaN without RGB.
        task: name of the active task; empty for none.
        prompt: 512 float32 numbers of the task's prompt, or None for identity.
        prompt_hash: first 16 hex digits of the prompt's sha256; empty for none.
        value_range: (low, high) of the stream's tone curve in `thermal.units`, so that all frames of a
            stream are normalised alike; None to derive it from the frame itself.
        period_s: time between two frames of the stream, seconds; NaN where unknown or of no matter (offline).
        shutter_closed: the camera shows its shutter, or a frozen picture (FFC), not the scene.
    """

    thermal: ThermalFrame
    color: ColorFrame | None = None
    scale: int = 1
    pair_skew_s: float = float("nan")
    task: str = ""
    prompt: object | None = None
    prompt_hash: str = ""
    value_range: tuple[float, float] | None = None
    period_s: float = float("nan")
    shutter_closed: bool = False


@dataclass(frozen=True)
class EnhancedFrame:
    """The result.

    Attributes:
        thermal: (H * scale, W * scale) frame; dtype, units, stamp and frame_id are those of `observed`.
        tier: name of the enhancer that made it.
        tier_reason: why a lower tier than asked for made it; empty at full tier.
        rgb_trust: how far RGB can be trusted as a guide, 0 to 1; NaN without RGB.
        rgb_used: whether RGB had a part in the picture.
        degradation: estimated degradation of the input, 0 to 1; NaN where not estimated.
        consistency_residual: max |area_down(output) - input|, in units.
        stage_ms: time by stage, milliseconds, in order of execution.
        extra: frames between the one before and this one (interpolated), oldest first; they have no input.
        repaired: number of non-finite input pixels that were filled from their neighbours.
        observed: the input that this is the picture of, where it is not the one asked for: a tier that looks
            ahead gives an earlier one. None where it is.
        source_stamps_ns: stamps of all inputs that had a part in it, oldest first; empty where that is
            `observed` alone.
    """

    thermal: ThermalFrame
    tier: str
    tier_reason: str = ""
    rgb_trust: float = float("nan")
    rgb_used: bool = False
    degradation: float = float("nan")
    consistency_residual: float = 0.0
    stage_ms: dict[str, float] = field(default_factory=dict)
    extra: tuple[ThermalFrame, ...] = ()
    repaired: int = 0
    observed: ThermalFrame | None = None
    source_stamps_ns: tuple[int, ...] = ()


class FrameDeclined(Exception):  # noqa: N818  (no error: the tier is well, and the frame is another tier's)
    """A tier leaves this frame to the next one, and would gladly have the one after it.

    Attributes:
        reason: why, in a word ("warming_up").
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@runtime_checkable
class Enhancer(Protocol):
    """One tier. Called from one thread at a time; keeps per-stream state until `reset`."""

    name: str
    """Tier name as published in FrameInfo."""
    needs_rgb: bool
    """True if a missing RGB frame makes this tier step down rather than go on alone."""
    uses_rgb: bool
    """False if an RGB frame would be ignored: the node then neither waits for one nor decodes it."""

    def __call__(self, request: EnhanceRequest) -> EnhancedFrame:
        """Enhance one frame; raise on anything that should step down to the next tier.

        Raises:
            FrameDeclined: the frame is not for this tier, which is no failure.
        """

    def reset(self, reason: str) -> None:
        """Forget the past of the stream (gap, clock jump, shutter, new size)."""

    def close(self) -> None:
        """Free what the tier holds; it is not called again afterwards."""


@runtime_checkable
class LoadingEnhancer(Enhancer, Protocol):
    """A tier that must load something, a model most likely, before it can make frames of a new kind."""

    @property
    def description(self) -> str:
        """Which model runs, on what; empty before anything is loaded. From any thread."""

    def refuses(self, request: EnhanceRequest) -> str:
        """Why such frames are not for this tier, whatever is loaded; empty when they are.

        Cheap, and from any thread.
        """

    def is_loaded(self, request: EnhanceRequest) -> bool:
        """Can it make such a frame without loading anything first? Cheap, and from any thread."""

    def load(self, request: EnhanceRequest) -> None:
        """Load what such frames need, on the tier's own thread; calling the tier does so too.

        Raises:
            Exception: it cannot be loaded; the tier is of no use then.
        """
