"""Modes by name: what is there is built, what is not says so."""

import numpy as np
import pytest

from thermal_enhance.enhancers.base import EnhanceRequest
from thermal_enhance.enhancers.classical import ClassicalConfig
from thermal_enhance.enhancers.ladder import LadderConfig
from thermal_enhance.enhancers.registry import (
    MODES,
    UnavailableModeError,
    available_modes,
    build_ladder,
    build_tiers,
    default_scale,
)
from thermal_enhance.imaging.frames import ThermalFrame


@pytest.mark.parametrize("mode", available_modes())
def test_every_available_mode_builds_a_ladder_that_runs(mode):
    ladder = build_ladder(mode, ClassicalConfig(guided=False), LadderConfig(deadline_s=None))
    frame = ladder(EnhanceRequest(ThermalFrame(np.zeros((12, 16), np.uint8)), scale=2))
    assert frame.tier == mode and frame.tier_reason == ""
    assert frame.thermal.size == (32, 24)
    ladder.close()


@pytest.mark.parametrize("mode", sorted(set(MODES) - set(available_modes())))
def test_a_known_mode_that_is_not_here_says_so(mode):
    with pytest.raises(UnavailableModeError) as caught:
        build_tiers(mode)
    assert caught.value.known
    assert str(caught.value) == (
        f"mode {mode!r} is not available in this version: available: {', '.join(available_modes())}"
    )


def test_an_unknown_mode_is_told_apart():
    with pytest.raises(UnavailableModeError, match="'magic' is unknown: available: classical") as caught:
        build_ladder("magic")
    assert not caught.value.known
    with pytest.raises(UnavailableModeError):
        default_scale("magic")


def test_default_scales_are_the_contract():
    assert [default_scale(m) for m in ("classical", "cross_modal", "temporal", "restore")] == [8, 8, 4, 1]
