"""Online alignment: finds known geometry, refuses what it cannot know, converges without jumps."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.evaluation.bench_alignment import grid_error
from thermal_enhance.imaging.alignment import (
    AlignmentConfig,
    AlignmentEstimator,
    corner_distance,
    pixel_matrix,
    unit_matrix,
)
from thermal_enhance.imaging.alignment_search import AlignmentSearch, simplified
from thermal_enhance.imaging.alignment_tiles import TileMatcher
from thermal_enhance.imaging.registration import (
    inside_mask,
    lit_area,
    orientation_field,
    significance,
    similarity_matrix,
    warp_to_grid,
)

SIZE = (320, 240)


def scene(seed=0):
    """(thermal 160x120, luma 320x240), the luma with edges shared, polarity reversed in places."""
    rng = np.random.default_rng(seed)
    thermal = np.full((240, 320), 0.4, np.float32)
    luma = np.full((240, 320), 0.5, np.float32)
    for _ in range(25):
        x, y = int(rng.integers(0, 300)), int(rng.integers(0, 220))
        w, h = int(rng.integers(8, 70)), int(rng.integers(8, 60))
        cv2.rectangle(thermal, (x, y), (x + w, y + h), float(rng.uniform(0, 1)), -1)
        cv2.rectangle(luma, (x, y), (x + w, y + h), float(rng.uniform(0, 1)), -1)
    luma += rng.normal(0, 0.02, luma.shape).astype(np.float32)
    return cv2.resize(thermal, (160, 120), interpolation=cv2.INTER_AREA), np.clip(luma, 0, 1)


def moved(luma, scale=1.0, angle=0.0, dx=0.0, dy=0.0):
    """The luma as another camera sees it, and the true thermal-to-luma matrix."""
    to_old = similarity_matrix(SIZE, scale, math.radians(angle), dx, dy)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpPerspective(luma, to_old, SIZE, flags=flags, borderMode=cv2.BORDER_CONSTANT)
    return picture, unit_matrix(np.linalg.inv(to_old), SIZE, SIZE)


matrices = st.tuples(
    st.floats(0.7, 1.5), st.floats(-0.4, 0.4), st.floats(-30, 30), st.floats(-30, 30), st.floats(-1e-4, 1e-4)
)


@given(matrices, st.integers(8, 700), st.integers(8, 700))
def test_pixel_and_unit_matrices_are_inverse(parts, width, height):
    matrix = similarity_matrix((width, height), *parts[:4])
    matrix[2, 0] = parts[4]
    unit = unit_matrix(matrix, (width, height), (320, 240))
    assert np.allclose(pixel_matrix(unit, (width, height), (320, 240)) * matrix[2, 2], matrix, atol=1e-6) or (
        np.allclose(
            pixel_matrix(unit, (width, height), (320, 240))
            / pixel_matrix(unit, (width, height), (320, 240))[2, 2],
            matrix / matrix[2, 2],
            atol=1e-6,
        )
    )


def test_identity_maps_pixel_centres_of_both_grids_onto_each_other():
    matrix = pixel_matrix(np.eye(3), (160, 120), (640, 480))
    # Centre of the first thermal pixel is the centre of the 4x4 block it covers.
    assert np.allclose(matrix @ [0, 0, 1], [1.5, 1.5, 1])
    assert np.allclose(matrix @ [159, 119, 1], [637.5, 477.5, 1])


@given(st.floats(-40, 40), st.floats(-40, 40))
@settings(max_examples=25)
def test_inside_mask_is_where_the_source_is(dx, dy):
    matrix = similarity_matrix((64, 48), 1.0, 0.0, dx, dy)
    mask = inside_mask(matrix, (64, 48), (64, 48))
    x = np.arange(64) + dx
    y = np.arange(48) + dy
    eps = 1e-3  # float32 at the very border may fall either way
    sure_in = ((x > -0.5 + eps) & (x < 63.5 - eps))[None, :] & ((y > -0.5 + eps) & (y < 47.5 - eps))[:, None]
    sure_out = ((x < -0.5 - eps) | (x > 63.5 + eps))[None, :] | ((y < -0.5 - eps) | (y > 47.5 + eps))[:, None]
    assert mask[sure_in].all() and not mask[sure_out].any()


def test_orientation_field_ignores_contrast_sign():
    thermal, _ = scene(3)
    mine, theirs = orientation_field(thermal, 1.0), orientation_field(1.0 - thermal, 1.0)
    assert np.allclose(mine.cosine, theirs.cosine, atol=1e-4)
    assert np.allclose(mine.sine, theirs.sine, atol=1e-4)


def test_significance_tells_a_match_from_chance():
    thermal, luma = scene(0)
    _, stranger = scene(77)
    mine = orientation_field(thermal, 1.0)

    def of(picture):
        return significance(mine, orientation_field(cv2.resize(picture, (160, 120)), 1.0))

    assert of(luma) > 8
    assert of(stranger) < 6


@pytest.mark.parametrize(
    ("scale", "angle", "dx", "dy"),
    [(1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 19.0, -14.0), (0.9, 6.0, 10.0, 8.0), (1.12, -7.0, -16.0, 12.0)],
)
def test_one_pair_is_enough_for_a_known_misalignment(scale, angle, dx, dy):
    thermal, luma = scene(2)
    picture, truth = moved(luma, scale, angle, dx, dy)
    alignment = AlignmentEstimator().estimate(thermal, picture)
    assert alignment.trust > 0.9
    # Corners that fell off the RGB picture are extrapolated, by up to a thermal pixel and a half.
    assert corner_distance(alignment.homography, truth) * 160 < 1.5
    assert grid_error(alignment.homography, truth, (160, 120)) < 0.4


def test_another_scene_is_not_trusted():
    thermal, _ = scene(0)
    trusts = []
    for seed in range(52, 59):
        _, stranger = scene(seed)
        alignment = AlignmentEstimator().estimate(thermal, stranger)
        trusts.append(alignment.trust)
        assert alignment.trust > 0 or (alignment.reason == "rgb_structure" and not alignment.accepted)
    # Pictures of nothing but upright rectangles resemble each other more than real scenes do; on those,
    # `thermal-enhance bench alignment` counts one false alarm in fifty or fewer.
    assert sum(trust == 0.0 for trust in trusts) >= 6 and max(trusts) < 0.35


def test_dark_blurred_and_late_rgb_lose_trust_and_say_why():
    thermal, luma = scene(0)
    estimator = AlignmentEstimator()
    good = estimator.assess(thermal, luma, np.eye(3))
    assert good.trust == 1.0
    dark = estimator.assess(thermal, luma * 0.01, np.eye(3))
    assert dark.trust < 0.1 and dark.reason == "rgb_dark"
    blurred = estimator.assess(thermal, cv2.GaussianBlur(luma, (0, 0), 8), np.eye(3))
    assert blurred.trust < 0.1
    late = estimator.assess(thermal, luma, np.eye(3), skew_s=-0.5)
    assert late.trust == 0.0 and late.reason == "rgb_skew"
    slightly = estimator.assess(thermal, luma, np.eye(3), skew_s=0.1)
    assert 0.0 < slightly.trust < good.trust


def test_flat_pictures_give_no_trust_and_no_error():
    flat = np.full((120, 160), 0.5, np.float32)
    estimator = AlignmentEstimator()
    for _ in range(60):
        assert estimator.update(flat, flat).trust == 0.0
    assert np.isfinite(estimator.update(flat, flat).homography).all()
    assert estimator.estimate(flat, flat).trust == 0.0
    assert estimator.follow(flat, flat).trust == 0.0


def test_online_estimate_converges_and_stays():
    thermal, luma = scene(4)
    picture, truth = moved(luma, 0.95, 4.0, 12.0, -9.0)
    estimator = AlignmentEstimator(AlignmentConfig(pieces_per_frame=8))
    first = estimator.update(thermal, picture, 0)
    assert not first.accepted
    for stamp in range(1, 30):
        alignment = estimator.update(thermal, picture, stamp)
    assert alignment.accepted and alignment.trust > 0.9
    assert corner_distance(alignment.homography, truth) * 160 < 1.0
    settled = alignment.homography
    for stamp in range(30, 90):
        alignment = estimator.update(thermal, picture, stamp)
        assert corner_distance(alignment.homography, settled) < 0.01


def test_a_frame_of_another_scene_loses_trust_at_once_but_not_the_lock():
    thermal, luma = scene(4)
    _, stranger = scene(90)
    estimator = AlignmentEstimator(AlignmentConfig(pieces_per_frame=8, lost_after=10))
    for _ in range(30):
        locked = estimator.update(thermal, luma)
    assert locked.accepted
    for _ in range(5):
        odd = estimator.update(thermal, stranger)
        assert odd.accepted and odd.trust < 0.35
        assert corner_distance(odd.homography, locked.homography) < 0.005
    back = estimator.update(thermal, luma)
    assert back.trust > 0.9
    for _ in range(12):
        lost = estimator.update(thermal, np.full_like(luma, 0.5))
    assert not lost.accepted


def test_a_jump_must_be_confirmed():
    thermal, luma = scene(4)
    knocked, truth = moved(luma, 1.0, 0.0, 14.0, 0.0)
    # The orientation search starts from the old place and reaches 14 pixels only by the full job.
    estimator = AlignmentEstimator(AlignmentConfig(pieces_per_frame=8, refine_period=2, lost_after=15))
    for _ in range(30):
        estimator.update(thermal, luma)
    seen = []
    for _ in range(120):
        seen.append(estimator.update(thermal, knocked))
    assert corner_distance(seen[-1].homography, truth) * 160 < 1.0
    assert seen[-1].trust > 0.9


def test_updates_are_deterministic():
    thermal, luma = scene(5)
    picture, _ = moved(luma, 1.05, 2.0, 5.0, 5.0)
    runs = []
    for _ in range(2):
        estimator = AlignmentEstimator(AlignmentConfig(pieces_per_frame=6))
        runs.append([estimator.update(thermal, picture).homography for _ in range(20)])
    assert all(np.array_equal(a, b) for a, b in zip(*runs))


def test_follow_pools_a_clip_and_forgets_at_a_cut():
    thermal, luma = scene(6)
    picture, truth = moved(luma, 1.0, 3.0, 8.0, -6.0)
    estimator = AlignmentEstimator()
    for _ in range(6):
        clip = estimator.follow(thermal, picture)
    assert corner_distance(clip.homography, truth) * 160 < 1.0
    other_thermal, other_luma = scene(60)
    cut = estimator.follow(other_thermal, other_luma)
    alone = AlignmentEstimator().follow(other_thermal, other_luma)
    assert np.array_equal(cut.homography, alone.homography)


def test_field_of_view_ratio_is_the_first_guess():
    config = AlignmentConfig(rgb_fov_deg=(74.0, 59.0), thermal_fov_deg=(50.0, 50.0))
    guess = config.first_guess()
    assert guess[0, 0] == pytest.approx(math.tan(math.radians(25)) / math.tan(math.radians(37)))
    assert guess[1, 1] == pytest.approx(math.tan(math.radians(25)) / math.tan(math.radians(29.5)))
    assert np.allclose(guess @ [0.5, 0.5, 1], [0.5, 0.5, 1])


def test_given_homography_is_the_first_guess():
    numbers = (0.9, 0.0, 0.05, 0.0, 0.8, 0.1, 0.0, 0.0, 1.0)
    config = AlignmentConfig(initial_homography=numbers)
    assert np.array_equal(config.first_guess().ravel(), numbers)
    estimator = AlignmentEstimator(config)
    flat = np.full((60, 80), 0.5, np.float32)
    assert np.array_equal(estimator.update(flat, flat).homography.ravel(), numbers)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"initial_homography": (1.0, 2.0)}, "initial_homography"),
        ({"rgb_fov_deg": (70.0, 60.0)}, "thermal_fov_deg"),
        ({"rgb_fov_deg": (70.0, 0.0), "thermal_fov_deg": (50.0, 40.0)}, "rgb_fov_deg"),
        ({"model": "spline"}, "model"),
        ({"search_scale": 0.5}, "search_scale"),
        ({"search_shift": 0.0}, "search_shift"),
        ({"search_fov": 0.9}, "search_fov"),
        ({"search_from": 9.5, "search_full": 9.0}, "search_from"),
        ({"candidates": 0}, "candidates"),
        ({"pieces_per_frame": 0}, "pieces_per_frame"),
        ({"trust_from": 9.0, "trust_full": 7.0}, "trust_from"),
        ({"skew_full_s": 1.0, "skew_zero_s": 0.5}, "skew_full_s"),
    ],
)
def test_config_names_the_parameter_to_change(wrong, named):
    with pytest.raises(ValueError, match=named):
        AlignmentConfig(**wrong)


def test_warp_to_grid_masks_what_rgb_does_not_see():
    luma = np.ones((48, 64), np.float32)
    matrix = similarity_matrix((64, 48), 1.0, 0.0, 20.0, 0.0)
    warped, mask = warp_to_grid(luma, matrix, (64, 48))
    assert mask[:, :40].all() and not mask[:, 45:].any()
    assert np.allclose(warped, 1.0)


def test_keystone_is_found_on_one_pair():
    thermal, luma = scene(8)
    corners = np.array([[0, 0], [319, 0], [319, 239], [0, 239]], np.float32)
    moved_to = corners + np.array([[14, 8], [-10, 12], [6, -9], [-15, 4]], np.float32)
    to_old = cv2.getPerspectiveTransform(corners, moved_to)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    picture = cv2.warpPerspective(luma, to_old, SIZE, flags=flags)
    truth = unit_matrix(np.linalg.inv(to_old), SIZE, SIZE)
    found = AlignmentEstimator().estimate(thermal, picture)
    assert found.trust == 1.0 and grid_error(found.homography, truth, (160, 120)) < 0.6
    # What refinement may not change it does not: a similarity cannot follow a keystone.
    stiff = AlignmentEstimator(AlignmentConfig(model="similarity")).estimate(thermal, picture)
    assert np.abs(stiff.homography[2, :2]).max() < 1e-9
    assert grid_error(stiff.homography, truth, (160, 120)) > 1.0


@pytest.mark.parametrize(("across", "down"), [(1.62, 1.21), (1.3, 1.5)])
def test_a_much_wider_rgb_view_is_found_without_calibration(across, down):
    thermal, luma = scene(9)
    w, h = round(160 / across / 2) * 2, round(120 / down / 2) * 2
    x, y = (160 - w) // 2, (120 - h) // 2
    truth = np.array([[w / 160, 0, x / 160], [0, h / 120, y / 120], [0, 0, 1.0]])
    part = np.ascontiguousarray(thermal[y : y + h, x : x + w])
    found = AlignmentEstimator().estimate(part, luma)
    assert found.trust > 0.5 and grid_error(found.homography, truth, (w, h)) < 1.0
    narrow = AlignmentEstimator(AlignmentConfig(search_fov=1.0)).estimate(part, luma)
    assert grid_error(narrow.homography, truth, (w, h)) > 3.0 or narrow.trust == 0.0


def test_black_wedges_of_a_warped_rgb_are_not_structure():
    _, luma = scene(3)
    luma = np.clip(luma, 0.05, 1.0).astype(np.float32)
    assert lit_area(luma) is None
    rotated, _ = moved(luma, 1.0, 8.0)
    lit = lit_area(rotated)
    assert lit is not None
    assert not lit[rotated == 0].any() and lit.mean() > 0.75
    # A dark spot inside the picture is a thing, not a border.
    spot = luma.copy()
    spot[100:140, 100:160] = 0.0
    assert lit_area(spot) is None


def test_a_job_runs_in_many_small_pieces():
    thermal, luma = scene(4)
    _, stranger = scene(70)
    for picture in (luma, stranger):
        found = list(AlignmentSearch(AlignmentConfig(), thermal, picture).full(np.eye(3)))
        assert found[-1] is not None and all(piece is None for piece in found[:-1])
        assert len(found) > 20


shifts = st.tuples(
    st.floats(-0.05, 0.05), st.floats(-0.05, 0.05), st.floats(0.95, 1.05), st.floats(-0.05, 0.05)
)


@given(shifts)
@settings(max_examples=12, deadline=None)
def test_tiles_find_a_similarity_within_their_reach(parts):
    thermal, luma = scene(11)
    true = similarity_matrix((1, 1), parts[2], parts[3], parts[0], parts[1])
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    start = centre @ true @ np.linalg.inv(centre)
    matcher = TileMatcher(thermal, luma, None, 80, 6, 0.8, "homography")
    found = [f for f in matcher.settle(start, 1.0) if f is not None][-1]
    assert found.score > 8.0
    assert grid_error(found.matrix, np.eye(3), (160, 120)) < 0.8


@pytest.mark.parametrize("model", ["translation", "similarity", "stretch", "affine"])
def test_tiles_change_only_what_the_model_allows(model):
    thermal, luma = scene(1)
    matcher = TileMatcher(thermal, luma, None, 80, 6, 0.8, model)
    start = np.array([[1.02, 0.01, 0.01], [-0.01, 1.01, -0.02], [0, 0, 1.0]])
    (found,) = [f for f in matcher.match(start) if f is not None]
    # The change as a matrix over grid pixels, where angles are angles.
    change = pixel_matrix(np.linalg.inv(start) @ found.matrix, (80, 60), (80, 60))
    change /= change[2, 2]
    assert np.allclose(change[2], [0, 0, 1], atol=1e-9)
    turn = change[:2, :2]
    if model == "translation":
        assert np.allclose(turn, np.eye(2), atol=1e-9)
    elif model == "similarity":
        assert np.allclose(turn @ turn.T, np.linalg.det(turn) * np.eye(2), atol=1e-9)
        assert not np.allclose(turn, np.eye(2), atol=1e-4)


def test_a_guess_that_explains_nearly_all_is_kept_as_it_is():
    thermal, luma = scene(11)
    guess = np.array([[1, 0, 0.003], [0, 1, -0.003], [0, 0, 1.0]])

    def found(**settings):
        config = AlignmentConfig(initial_homography=tuple(guess.ravel()), **settings)
        return AlignmentEstimator(config).estimate(thermal, luma).homography

    assert np.array_equal(found(), guess)
    assert (
        grid_error(found(keep_guess=2.0), np.eye(3), (160, 120))
        < 0.4
        < grid_error(guess, np.eye(3), (160, 120))
    )


@pytest.mark.parametrize("zoom", [(1.05, 1.05), (1.1, 0.98)])
def test_the_simplest_model_that_explains_a_pair_is_taken(zoom):
    thermal, luma = scene(11)
    move = np.array([[zoom[0], 0, 0.02], [0, zoom[1], -0.03], [0, 0, 1.0]])
    pixels = pixel_matrix(move, (luma.shape[1], luma.shape[0]), (luma.shape[1], luma.shape[0]))
    seen = cv2.warpPerspective(luma, pixels, (luma.shape[1], luma.shape[0]), borderMode=cv2.BORDER_REPLICATE)
    found = AlignmentEstimator().estimate(thermal, seen).homography
    assert np.allclose(found[2], [0, 0, 1], atol=1e-6)  # no perspective was needed
    assert grid_error(found, move, (160, 120)) < 1.0


@given(
    st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    st.floats(0.8, 1.25),
    st.floats(0.8, 1.25),
    st.floats(-0.2, 0.2),
)
def test_a_simplified_matrix_of_its_own_model_is_itself(shift, sx, sy, angle):
    aspect = 4 / 3
    centred = np.array([[0.5, 0, 0.5], [0, 0.5 * aspect, 0.5], [0, 0, 1.0]])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    change = np.eye(3)
    change[:2, :2], change[:2, 2] = turn * np.array([sx, sy]), shift
    guess = np.array([[0.6, 0, 0.2], [0, 0.7, 0.1], [0, 0, 1.0]])
    matrix = guess @ centred @ change @ np.linalg.inv(centred)
    assert np.allclose(simplified(matrix, guess, aspect, "stretch"), matrix, atol=1e-9)
    alike = simplified(matrix, guess, aspect, "similarity")
    assert np.allclose(simplified(alike, guess, aspect, "similarity"), alike, atol=1e-9)
    part = (np.linalg.inv(centred) @ np.linalg.inv(guess) @ alike @ centred)[:2, :2]
    assert np.allclose(part @ part.T, sx * sy * np.eye(2), atol=1e-9)


def test_tiles_refuse_an_unknown_model():
    thermal, luma = scene(1)
    with pytest.raises(ValueError, match="model"):
        TileMatcher(thermal, luma, None, 80, 6, 0.8, "spline")
