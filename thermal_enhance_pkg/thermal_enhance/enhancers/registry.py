"""Enhancement modes by name, and the ladder for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import MappingProxyType

from thermal_enhance.enhancers.base import Enhancer
from thermal_enhance.enhancers.classical import ClassicalConfig, ClassicalEnhancer
from thermal_enhance.enhancers.ladder import LadderConfig, QualityLadder
from thermal_enhance.enhancers.passthrough import PassthroughEnhancer

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

_BUILDERS: MappingProxyType[str, Callable[[ClassicalConfig], list[Enhancer]]] = MappingProxyType(
    {
        "classical": lambda config: [ClassicalEnhancer(config)],
        "passthrough": lambda _: [PassthroughEnhancer()],
    }
)


class UnavailableModeError(ValueError):
    """The mode is unknown, or known but not in this version; `known` tells which."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.known = mode in MODES
        available = ", ".join(available_modes())
        what = "is not available in this version" if self.known else "is unknown"
        super().__init__(f"mode {mode!r} {what}: available: {available}")


def available_modes() -> tuple[str, ...]:
    """Modes that `build_ladder` can build here, best known first."""
    return tuple(_BUILDERS)


def default_scale(mode: str) -> int:
    """Output size over input size when nothing else is asked for.

    Raises:
        UnavailableModeError: the mode is unknown.
    """
    if mode not in MODES:
        raise UnavailableModeError(mode)
    return MODES[mode]


def build_tiers(mode: str, classical: ClassicalConfig | None = None) -> list[Enhancer]:
    """The mode's own tiers, best first, without the floor.

    Raises:
        UnavailableModeError: the mode is unknown or not in this version.
    """
    if mode not in _BUILDERS:
        raise UnavailableModeError(mode)
    return _BUILDERS[mode](classical or ClassicalConfig())


def build_ladder(
    mode: str,
    classical: ClassicalConfig | None = None,
    ladder: LadderConfig | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> QualityLadder:
    """The ladder of one mode, ready to run.

    Args:
        mode: one of `available_modes()`.
        classical: parameters of the classical tier.
        ladder: deadlines and backing off.
        clock: monotonic seconds.

    Raises:
        UnavailableModeError: the mode is unknown or not in this version; a node may fall back to classical.
    """
    return QualityLadder(build_tiers(mode, classical), ladder, clock)
