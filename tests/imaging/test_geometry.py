import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.imaging.geometry import CameraModel, Roi

scales = st.floats(0.25, 8)
D5 = (-0.3, 0.1, 0.001, -0.002, 0.01)


@st.composite
def models(draw, distorted=True):
    width, height = draw(st.integers(80, 640)), draw(st.integers(60, 480))
    fx, fy = draw(st.floats(50, 900)), draw(st.floats(50, 900))
    cx, cy = draw(st.floats(0, width)), draw(st.floats(0, height))
    d = D5 if distorted and draw(st.booleans()) else ()
    tx, ty = draw(st.floats(-50, 50)), draw(st.floats(-50, 50))
    p = ((fx * 0.9, 0, cx + 1, tx), (0, fy * 0.9, cy - 1, ty), (0, 0, 1, 0))
    return CameraModel(width, height, ((fx, 0, cx), (0, fy, cy), (0, 0, 1)), d, p=p, frame_id="cam")


points = st.lists(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2), st.floats(2, 30)), min_size=1, max_size=8
).map(np.array)


def centred(pixels, sx, sy):
    """Where pixels move when the picture is resized: METHODS.md 4.3."""
    return (pixels + 0.5) * (sx, sy) - 0.5


@settings(deadline=None)
@given(model=models(), xyz=points, sx=scales, sy=scales, rectified=st.booleans())
def test_projection_scales_about_the_pixel_centre(model, xyz, sx, sy, rectified):
    before, after = model.project(xyz, rectified), model.scaled_xy(sx, sy).project(xyz, rectified)
    np.testing.assert_allclose(after, centred(before, sx, sy), rtol=1e-9, atol=1e-6)


@settings(deadline=None)
@given(model=models(), a=scales, b=scales)
def test_scaling_composes(model, a, b):
    twice, once = model.scaled(a).scaled(b), model.scaled(a * b)
    np.testing.assert_allclose(twice.k, once.k, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(twice.p, once.p, rtol=1e-9, atol=1e-9)
    assert twice.d == once.d == model.d and twice.r == model.r and twice.frame_id == "cam"


@settings(deadline=None)
@given(model=models(), s=scales)
def test_scaling_back_is_identity(model, s):
    back = model.scaled(s).scaled(1 / s)
    np.testing.assert_allclose(back.k, model.k, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(back.p, model.p, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(model=models(), s=st.sampled_from([1, 2, 4, 8]), roi=st.tuples(*[st.integers(0, 20)] * 4))
def test_whole_factors_scale_sizes_and_roi_exactly(model, s, roi):
    model = dataclasses.replace(model, roi=Roi(*roi, True), binning_x=2, binning_y=1)
    scaled = model.scaled(s)
    assert (scaled.width, scaled.height) == (s * model.width, s * model.height)
    assert scaled.roi == Roi(*(s * side for side in roi), True)
    assert (scaled.binning_x, scaled.binning_y) == (2, 1)
    back = scaled.scaled(1 / s)
    assert (back.width, back.height, back.roi) == (model.width, model.height, model.roi)


def test_formula_of_the_scaled_matrices():
    model = CameraModel(
        160, 120, (150, 0, 79.5, 0, 152, 59.5, 0, 0, 1), p=(150, 0, 79.5, -15, 0, 152, 59.5, 3, 0, 0, 1, 0)
    )
    scaled = model.scaled(4)
    assert (scaled.width, scaled.height) == (640, 480)
    assert scaled.k == (600, 0, 319.5, 0, 608, 239.5, 0, 0, 1)
    assert scaled.p == (600, 0, 319.5, -60, 0, 608, 239.5, 12, 0, 0, 1, 0)


@settings(deadline=None)
@given(
    model=models(),
    x=st.integers(0, 30),
    y=st.integers(0, 30),
    s=st.sampled_from([2, 4, 8]),
    xyz=points,
)
def test_crop_and_scale_commute(model, x, y, s, xyz):
    first = model.cropped(x, y, 40, 20).scaled(s)
    second = model.scaled(s).cropped(s * x, s * y, s * 40, s * 20)
    assert (first.width, first.height) == (second.width, second.height) == (s * 40, s * 20)
    np.testing.assert_allclose(first.k, second.k, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(first.p, second.p, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        model.cropped(x, y, 40, 20).project(xyz), model.project(xyz) - (x, y), atol=1e-6
    )


@settings(deadline=None)
@given(
    model=models(), bx=st.integers(1, 4), by=st.integers(1, 4), s=st.sampled_from([1, 2, 4, 8]), xyz=points
)
def test_binning_and_roi_keep_their_meaning_when_scaled(model, bx, by, s, xyz):
    """The sent picture is the ROI over the binning; resizing it resizes its own model."""
    binned = dataclasses.replace(model, binning_x=bx, binning_y=by, roi=Roi(4, 8, 8 * bx, 6 * by))
    assert binned.image_size == (8, 6)
    assert binned.scaled(s).image_size == (8 * s, 6 * s)
    sent = binned.delivered()
    expected = (model.project(xyz) - (4, 8) + 0.5) / (bx, by) - 0.5
    np.testing.assert_allclose(sent.project(xyz), expected, atol=1e-6)
    direct, after = sent.scaled(s), binned.scaled(s).delivered()
    np.testing.assert_allclose(after.k, direct.k, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(after.p, direct.p, rtol=1e-9, atol=1e-9)
    assert dataclasses.replace(after, k=direct.k, p=direct.p) == direct


def test_cropping_starts_from_the_sent_picture():
    model = dataclasses.replace(
        CameraModel.pinhole(640, 480, 60), binning_x=2, binning_y=2, roi=Roi(100, 80, 200, 160)
    )
    crop = model.cropped(10, 20, 90, 60)
    assert (crop.width, crop.height, crop.binning_x, crop.roi) == (90, 60, 0, Roi())
    xyz = [(0.1, 0.2, 1.0)]
    np.testing.assert_allclose(crop.project(xyz), model.delivered().project(xyz) - (10, 20))
    with pytest.raises(ValueError, match="crop"):
        model.cropped(10, 20, 91, 60)


def test_uncalibrated_stays_zero():
    model = CameraModel(160, 120)
    assert not model.calibrated and np.isnan(model.hfov_deg)
    for other in (model.scaled(4), model.cropped(10, 10, 20, 20), model.delivered()):
        assert other.k == (0,) * 9 and other.p == (0,) * 12
    with pytest.raises(ValueError, match="calibrated"):
        model.project([(0, 0, 1)])
    nearly = CameraModel(160, 120, (0, 0, 0, 0, 0, 0, 0, 0, 1))
    assert nearly.scaled(4).k == nearly.k


@settings(deadline=None)
@given(
    width=st.integers(2, 2000),
    height=st.integers(2, 2000),
    hfov=st.floats(1, 170),
    s=st.sampled_from([2, 4, 8]),
)
def test_pinhole(width, height, hfov, s):
    model = CameraModel.pinhole(width, height, hfov, "t")
    assert model.hfov_deg == pytest.approx(hfov)
    edge = np.tan(np.radians(hfov) / 2)
    np.testing.assert_allclose(
        model.project([(-edge, 0, 1), (edge, 0, 1), (0, 0, 5)]),
        [(-0.5, (height - 1) / 2), (width - 0.5, (height - 1) / 2), ((width - 1) / 2, (height - 1) / 2)],
        atol=1e-6,
    )
    np.testing.assert_allclose(
        model.scaled(s).k, CameraModel.pinhole(width * s, height * s, hfov).k, rtol=1e-12
    )


def test_points_behind_the_camera_have_no_pixel():
    pixels = CameraModel.pinhole(160, 120, 57).project([(0, 0, -1), (1, 1, 0), (0, 0, 1)])
    assert np.isnan(pixels[:2]).all() and np.isfinite(pixels[2]).all()


@pytest.mark.parametrize(
    ("name", "d"),
    [
        ("plumb_bob", D5),
        ("rational_polynomial", (0.1, -0.05, 0.001, 0.0, 0.01, 0.2, 0.0, 0.0)),
        ("equidistant", (0.01, -0.02, 0.003, 0.0)),
        ("equidistant", (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_distortion_models(name, d):
    model = dataclasses.replace(CameraModel.pinhole(640, 512, 60), distortion_model=name, d=d)
    xyz = np.array([(0.3, -0.2, 1.5), (0, 0, 2)])
    x, y = xyz[0, :2] / xyz[0, 2]
    r2 = x * x + y * y
    if name == "equidistant":
        theta = np.arctan(np.sqrt(r2))
        radial = theta * (1 + sum(k * theta ** (2 * i + 2) for i, k in enumerate(d))) / np.sqrt(r2)
        expected = np.array([x, y]) * radial
    else:
        k1, k2, p1, p2, k3, *rest = d
        k4, k5, k6 = rest or (0, 0, 0)
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        expected = np.array(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ]
        )
    fx, cx, cy = model.k[0], model.k[2], model.k[5]
    np.testing.assert_allclose(model.project(xyz), [expected * fx + (cx, cy), (cx, cy)], rtol=1e-9)


def test_unknown_distortion_is_named():
    model = dataclasses.replace(CameraModel.pinhole(64, 48, 60), distortion_model="mystery", d=(1.0,))
    with pytest.raises(ValueError, match="mystery"):
        model.project([(0, 0, 1)])


@settings(deadline=None)
@given(model=models())
def test_dict_round_trip(model):
    written = model.to_dict("lepton")
    assert written["camera_name"] == "lepton" and written["camera_matrix"]["rows"] == 3
    assert written["projection_matrix"]["cols"] == 4
    assert CameraModel.from_dict(written, frame_id="cam") == model


def test_dict_defaults():
    written = CameraModel.pinhole(160, 120, 57).to_dict()
    for key in ("rectification_matrix", "projection_matrix", "distortion_model", "distortion_coefficients"):
        del written[key]
    model = CameraModel.from_dict(written)
    assert model.p == CameraModel.pinhole(160, 120, 57).p and model.r == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert model.d == () and model.distortion_model == "plumb_bob"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_width", 0),
        ("image_width", "160"),
        ("image_height", None),
        ("image_height", True),
        ("camera_matrix", None),
        ("camera_matrix", {"rows": 3, "cols": 3, "data": [1, 2, 3]}),
        ("camera_matrix", {"rows": 3, "cols": 3, "data": ["a"] * 9}),
        ("camera_matrix", {"rows": 3, "cols": 3, "data": [float("nan")] * 9}),
        ("camera_matrix", {"rows": 3, "cols": 3}),
        ("camera_matrix", {"rows": 9, "cols": None, "data": [1.0] * 9}),
        ("camera_matrix", [1] * 9),
        ("projection_matrix", {"rows": 3, "cols": 3, "data": [1.0] * 9}),
        ("distortion_coefficients", {"rows": 1, "cols": 5, "data": [0.0] * 4}),
        ("distortion_model", 5),
    ],
)
def test_bad_calibration_names_file_and_key(key, value):
    data = {**CameraModel.pinhole(160, 120, 57).to_dict(), key: value}
    with pytest.raises(ValueError, match=rf"lepton\.yaml: {key}"):
        CameraModel.from_dict(data, "lepton.yaml")


def test_a_file_that_is_no_mapping():
    for data in (None, [], "text"):
        with pytest.raises(ValueError, match=r"lepton\.yaml"):
            CameraModel.from_dict(data, "lepton.yaml")


@pytest.mark.parametrize(
    "fields",
    [
        {"k": (1, 2)},
        {"p": (1,) * 11},
        {"d": ("x",)},
        {"width": -1},
        {"binning_x": -1},
        {"roi": (0, 0, -1, 0, False)},
    ],
)
def test_fields_are_checked(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        CameraModel(**{"width": 4, "height": 4, **fields})


def test_bad_arguments():
    model = CameraModel.pinhole(160, 120, 57)
    for s in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale"):
            model.scaled(s)
    for crop in ((-1, 0, 4, 4), (0, 0, 161, 4), (150, 0, 11, 4), (0, 0, 0, 4), (0, 118, 4, 3)):
        with pytest.raises(ValueError, match="crop"):
            model.cropped(*crop)
    for size in ((0, 4, 50), (4, 4, 0), (4, 4, 180)):
        with pytest.raises(ValueError, match=r"width|hfov_deg"):
            CameraModel.pinhole(*size)
    with pytest.raises(ValueError, match="width"):
        CameraModel(0, 0).resized(4, 4)


def test_resized_follows_the_real_ratio():
    model = CameraModel.pinhole(161, 121, 57)
    resized = model.resized(80, 60)
    assert (resized.width, resized.height) == (80, 60)
    assert resized.k[0] == pytest.approx(model.k[0] * 80 / 161)
    assert resized.k[2] == pytest.approx(39.5) and resized.k[5] == pytest.approx(29.5)


def test_models_compare_and_hash():
    assert CameraModel.pinhole(160, 120, 57) == CameraModel.pinhole(160, 120, 57)
    assert len({CameraModel.pinhole(160, 120, 57), CameraModel.pinhole(160, 120, 57).scaled(1)}) == 1
