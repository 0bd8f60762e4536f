"""Enhancement modes by name, and the ladder for each."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from thermal_enhance.enhancers.base import Enhancer
from thermal_enhance.enhancers.classical import ClassicalConfig, ClassicalEnhancer
from thermal_enhance.enhancers.cross_modal import CrossModalEnhancer, CrossModalEnhancerConfig
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.enhancers.learned import LearnedConfig, ModelUnavailableError
from thermal_enhance.enhancers.observation import ObservationConfig
from thermal_enhance.enhancers.passthrough import PassthroughEnhancer
from thermal_enhance.enhancers.temporal import TemporalEnhancer, TemporalEnhancerConfig, TemporalOptions
from thermal_enhance.runtime.store import ModelStore

MODES = MappingProxyType(
    {
        "passthrough": 1,
        "classical": 8,
        "cross_modal": 8,
        "temporal": 4,
        "restore": 1,
        "restore+cross_modal": 8,
        "restore+temporal": 4,
    }
)
"""Every mode there is, with its scale by default."""

_LEARNED = ("cross_modal", "temporal")
"""Modes that run a model, in this version."""
_PLAIN = ("classical", "passthrough")
"""Modes that need no model."""


class UnavailableModeError(ValueError):
    """The mode is unknown, or cannot run here.

    Attributes:
        mode: its name.
        known: is there such a mode at all?
        reason: why it cannot run here: no model, no runtime; empty where no version can tell.
    """

    def __init__(self, mode: str, reason: str = "") -> None:
        self.mode = mode
        self.known = mode in MODES
        self.reason = reason
        available = ", ".join(name for name in available_modes() if name != mode)
        if reason:
            what = f"cannot run here: {reason}"
        else:
            what = "is not available in this version" if self.known else "is unknown"
        super().__init__(f"mode {mode!r} {what}; available: {available}")


def available_modes(store: ModelStore | None = None) -> tuple[str, ...]:
    """Modes that `build_ladder` can build here, best known first.

    Args:
        store: where models are; None for the default folders.
    """
    learned = [mode for mode in _LEARNED if not _missing(mode, store)]
    return (*_PLAIN, *learned)


def is_learned(mode: str) -> bool:
    """Does the mode run a model, in this version?"""
    return mode in _LEARNED


def default_scale(mode: str) -> int:
    """Output size over input size when nothing else is asked for.

    Raises:
        UnavailableModeError: the mode is unknown.
    """
    if mode not in MODES:
        raise UnavailableModeError(mode)
    return MODES[mode]


def build_tiers(
    mode: str,
    classical: ClassicalConfig | None = None,
    learned: LearnedConfig | None = None,
    store: ModelStore | None = None,
    temporal: TemporalOptions | None = None,
) -> list[Enhancer]:
    """The mode's own tiers, best first, without the floor. Nothing is loaded yet.

    Args:
        mode: one of `available_modes()`.
        classical: parameters of the classical tier; a learned tier takes what it shares with it.
        learned: which model, on what.
        store: where models are; None for the default folders.
        temporal: what else a temporal tier is told.

    Raises:
        UnavailableModeError: the mode is unknown, not in this version, or lacks its model.
    """
    classical, learned = classical or ClassicalConfig(), learned or LearnedConfig()
    if mode == "passthrough":
        return [PassthroughEnhancer()]
    if mode == "classical":
        return [ClassicalEnhancer(classical)]
    if mode not in _LEARNED:
        raise UnavailableModeError(mode)
    try:
        best = _learned_tier(mode, classical, learned, store, temporal)
        # No frame waits for an RGB frame that only a tier below would look at.
        return [best, ClassicalEnhancer(dataclasses.replace(classical, guided=best.uses_rgb))]
    except ModelUnavailableError as error:
        raise UnavailableModeError(mode, str(error)) from error


def cross_modal_config(shared: ObservationConfig, learned: LearnedConfig) -> CrossModalEnhancerConfig:
    """Parameters of the cross-modal tier beside a classical one, but for `min_trust`, which is its own."""
    values = _values_of((shared, ObservationConfig), (learned, LearnedConfig))
    del values["min_trust"]
    return CrossModalEnhancerConfig(**values)


def temporal_config(
    shared: ObservationConfig, learned: LearnedConfig, options: TemporalOptions
) -> TemporalEnhancerConfig:
    """Parameters of the temporal tier beside a classical one."""
    return TemporalEnhancerConfig(
        **_values_of((shared, ObservationConfig), (learned, LearnedConfig), (options, TemporalOptions))
    )


def build_ladder(
    mode: str,
    classical: ClassicalConfig | None = None,
    ladder: LadderConfig | None = None,
    clock: Callable[[], float] = time.monotonic,
    *,
    learned: LearnedConfig | None = None,
    store: ModelStore | None = None,
    temporal: TemporalOptions | None = None,
) -> QualityLadder:
    """The ladder of one mode, ready to run; models join it when they are loaded.

    Args:
        mode: one of `available_modes()`.
        classical: parameters of the classical tier.
        ladder: deadlines and backing off.
        clock: monotonic seconds.
        learned: which model, on what.
        store: where models are; None for the default folders.
        temporal: what else a temporal tier is told.

    Raises:
        UnavailableModeError: the mode is unknown, not in this version, or lacks its model; a node may fall
            back to classical.
    """
    return QualityLadder(build_tiers(mode, classical, learned, store, temporal), ladder, clock)


def _learned_tier(
    mode: str,
    classical: ClassicalConfig,
    learned: LearnedConfig,
    store: ModelStore | None,
    temporal: TemporalOptions | None = None,
) -> Enhancer:
    if mode == "temporal":
        return TemporalEnhancer(temporal_config(classical, learned, temporal or TemporalOptions()), store)
    return CrossModalEnhancer(cross_modal_config(classical, learned), store)


def _missing(mode: str, store: ModelStore | None) -> str:
    """Why a learned mode cannot run here; empty when it can."""
    try:
        _learned_tier(mode, ClassicalConfig(), LearnedConfig(), store)
    except ModelUnavailableError as error:
        return str(error)
    return ""


def _values_of(*sources: tuple[object, type]) -> dict[str, Any]:
    """Fields that each source has of a dataclass it is a kind of."""
    return {
        field.name: getattr(source, field.name)
        for source, kind in sources
        for field in dataclasses.fields(kind)
    }
