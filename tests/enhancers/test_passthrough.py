"""The floor: bit-identical, whatever comes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thermal_enhance.enhancers.base import Enhancer, EnhanceRequest
from thermal_enhance.enhancers.passthrough import PassthroughEnhancer
from thermal_enhance.imaging.frames import ThermalFrame, Units

frames = st.sampled_from([np.uint8, np.uint16, np.float32]).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12))
)


@given(frames)
def test_scale_one_returns_the_very_array(data):
    frame = ThermalFrame(data, Units.KELVIN, 7, "cam")
    result = PassthroughEnhancer()(EnhanceRequest(frame))
    assert result.thermal is frame
    assert result.tier == "passthrough" and result.consistency_residual == 0.0


@given(frames, st.integers(2, 8))
def test_larger_scales_replicate_bit_for_bit(data, scale):
    result = PassthroughEnhancer()(EnhanceRequest(ThermalFrame(data, stamp_ns=3, frame_id="f"), scale=scale))
    made = result.thermal.data
    assert made.dtype == data.dtype and made.shape == (data.shape[0] * scale, data.shape[1] * scale)
    for dy in (0, scale - 1):
        for dx in (0, scale - 1):
            assert made[dy::scale, dx::scale].tobytes() == np.ascontiguousarray(data).tobytes()
    assert (result.thermal.stamp_ns, result.thermal.frame_id) == (3, "f")


def test_nan_everywhere_is_still_a_frame():
    data = np.full((3, 4), np.nan, np.float32)
    result = PassthroughEnhancer()(EnhanceRequest(ThermalFrame(data), scale=2))
    assert np.isnan(result.thermal.data).all()


def test_it_is_an_enhancer_without_rgb():
    tier = PassthroughEnhancer()
    assert isinstance(tier, Enhancer)
    assert not tier.needs_rgb and not tier.uses_rgb
    tier.reset("gap")
    tier.close()


@pytest.mark.parametrize("scale", [0, -1])
def test_a_senseless_scale_still_gives_the_frame(scale):
    frame = ThermalFrame(np.zeros((2, 2), np.uint8))
    assert PassthroughEnhancer()(EnhanceRequest(frame, scale=scale)).thermal is frame
