"""From the node's parameters to a quality ladder, with a word of why when it is not what was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from thermal_enhance.enhancers.classical import ClassicalConfig
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.enhancers.learned import LearnedConfig
from thermal_enhance.enhancers.registry import MODES, UnavailableModeError, build_ladder, is_learned
from thermal_enhance.enhancers.temporal import TemporalOptions
from thermal_enhance.imaging.alignment import AlignmentConfig
from thermal_enhance.nodes.enhancement_config import EnhancementConfig


@dataclass(frozen=True)
class LadderChoice:
    """Which mode runs.

    Attributes:
        mode: the mode of the ladder's top tier.
        reason: why it is not the one that was asked for; empty when it is.
    """

    mode: str
    reason: str


FieldsOfView = tuple[tuple[float, float], tuple[float, float]]
"""(horizontal, vertical) of the thermal and of the RGB camera, degrees."""


def make_ladder(
    config: EnhancementConfig, fields_of_view: FieldsOfView | None = None
) -> tuple[QualityLadder, LadderChoice]:
    """The ladder for these parameters: an unavailable mode becomes classical, since a robot needs frames.

    Args:
        config: the node's parameters.
        fields_of_view: of both cameras where they are calibrated: a better first guess of the alignment.
    """
    alignment = AlignmentConfig()
    if fields_of_view is not None:
        alignment = AlignmentConfig(thermal_fov_deg=fields_of_view[0], rgb_fov_deg=fields_of_view[1])
    classical = ClassicalConfig(
        alignment=alignment,
        netd=config.netd,
        consistency_k=config.consistency_k,
        sampling=config.sampling,
        quality=config.quality,
        guided=config.use_rgb,
        denoise=config.denoise,
        destripe=config.destripe,
        estimate_noise=config.estimate_noise,
    )
    learned = LearnedConfig(model=config.model, device=config.device, threads=config.model_threads)
    temporal = TemporalOptions(
        look_ahead=config.look_ahead,
        fps_out=config.fps_out,
        motion=config.motion,
        # A pinned tier has nobody below it to make the first frame.
        alone=config.pin_tier,
    )
    choice = LadderChoice(config.mode, "")
    if config.model and config.mode in MODES and not is_learned(config.mode):
        choice = LadderChoice(
            config.mode, f"mode '{config.mode}' has no models: model '{config.model}' is not used"
        )
    try:
        ladder = build_ladder(
            config.mode, classical, ladder_config(config, choice), learned=learned, temporal=temporal
        )
        return ladder, choice
    except UnavailableModeError as error:
        choice = LadderChoice("classical", f"{error}: running classical instead")
        return build_ladder("classical", classical, ladder_config(config, choice)), choice


def ladder_config(config: EnhancementConfig, choice: LadderChoice) -> LadderConfig:
    """Deadlines for these parameters."""
    return LadderConfig(
        deadline_s=config.deadline,
        hang_timeout_s=config.hang_timeout,
        hold_rate=config.hold_rate,
        pin=choice.mode if config.pin_tier else "",
    )
