"""The street and what moves in it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_enhance.simulation.actors import CAR, PERSON, capsule, ellipse
from thermal_enhance.simulation.world import World, WorldConfig


@pytest.fixture(scope="module")
def world() -> World:
    return World(WorldConfig(people=8, cars=6), seed=3)


def _flat(state):
    return np.concatenate([part.outline.ravel() for actor in state.actors for part in actor.parts])


def test_same_seed_same_world(world):
    other = World(WorldConfig(people=8, cars=6), seed=3)
    for a, b in zip(world.surfaces, other.surfaces):
        assert a.name == b.name
        assert np.array_equal(a.temperature_k, b.temperature_k) and np.array_equal(a.color, b.color)
    assert np.array_equal(_flat(world.at(7.3)), _flat(other.at(7.3)))
    assert not np.array_equal(
        World(seed=4).surfaces[0].temperature_k, World(seed=5).surfaces[0].temperature_k
    )


def test_state_does_not_depend_on_what_was_asked_before(world):
    first = _flat(world.at(2.0))
    for t in (9.0, 0.0, 55.5):
        world.at(t)
    assert np.array_equal(_flat(world.at(2.0)), first)


@settings(max_examples=40, deadline=None)
@given(t=st.floats(0, 600))
def test_actors_move_steadily_and_only_jump_out_of_sight(t):
    world = World.__new__(World)  # paths only: no need to paint the street each time
    world.__dict__.update(_WORLD.__dict__)
    before = {actor.track_id: actor for actor in world.at(t).actors}
    after = {actor.track_id: actor for actor in world.at(t + 0.02).actors}
    assert before.keys() == after.keys()
    for track, actor in before.items():
        moved = after[track]
        assert abs(moved.z - actor.z) < 0.05
        if abs(moved.x - actor.x) > 0.15:
            assert abs(actor.x) > 0.85 * actor.z and abs(moved.x) > 0.85 * moved.z
        assert actor.z > 4.5


_WORLD = World(WorldConfig(people=12, cars=8), seed=1)


def test_actors_come_far_first_and_keep_their_ids(world):
    state = world.at(3.0)
    depths = [actor.z for actor in state.actors]
    assert depths == sorted(depths, reverse=True)
    assert sorted(actor.track_id for actor in state.actors) == list(range(1, 15))
    assert {actor.label for actor in state.actors} == {PERSON, CAR}


def test_temperatures_are_those_of_the_living_and_the_made(world):
    ambient = world.config.ambient_k
    for actor in world.at(1.0).actors:
        temperatures = [part.temperature_k for part in actor.parts if part.temperature_k is not None]
        assert any(part.temperature_k is None for part in actor.parts) == (actor.label == CAR)
        assert any(part.color is None for part in actor.parts)
        if actor.label == PERSON:
            assert 303 <= max(temperatures) <= 309
            assert min(temperatures) > ambient
        else:
            assert min(temperatures) < ambient  # windows mirror the sky
    hottest = max(max(p.temperature_k or 0 for p in a.parts) for a in world.at(1.0).actors if a.label == CAR)
    assert hottest > ambient + 30


def test_people_have_proportions(world):
    for actor in world.at(4.0).actors:
        outline = np.concatenate([part.outline for part in actor.parts])
        width, height = np.ptp(outline, axis=0)
        if actor.label == PERSON:
            assert 1.5 < height < 2.0 and 0.3 < width < 1.3
            assert -0.1 < outline[:, 1].min() < 0.12
        else:
            assert 3.8 < width < 4.8 and 1.2 < height < 1.7


def test_limbs_swing_while_walking_only(world):
    def reach(t):
        return {
            a.track_id: np.ptp(np.concatenate([p.outline for p in a.parts])[:, 0])
            for a in world.at(t).actors
            if a.label == PERSON
        }

    spans = [reach(t) for t in np.linspace(0, 1, 9)]
    change = {track: np.ptp([span[track] for span in spans]) for track in spans[0]}
    assert change[1] < 1e-9  # the first person stands
    assert sum(value > 0.2 for value in change.values()) >= 3


def test_materials_are_independent(world):
    street = next(surface for surface in world.surfaces if surface.name == "street")
    ppm, origin = street.pixels_per_m, street.origin
    row = int((8.87 - origin[2]) * ppm)
    line, beside = street.color[row].astype(int), street.color[row + int(0.6 * ppm)].astype(int)
    assert (line - beside).mean() > 80  # painted line: bright, yet no warmer
    difference = street.temperature_k[row] - street.temperature_k[row + int(0.15 * ppm)]
    assert abs(difference.mean()) < 0.5
    warm = street.temperature_k[: int(6 * ppm), int(18.0 * ppm)]
    cool = street.temperature_k[: int(6 * ppm), int(16.3 * ppm)]
    assert (warm - cool).mean() > 1.5  # pipe under the pavement: warm, yet not to be seen
    pavement = street.color[: int(6 * ppm), int(18.0 * ppm)].astype(float)
    assert abs(pavement.mean() - street.color[: int(6 * ppm), int(16.3 * ppm)].mean()) < 12


def test_heating_is_slow_and_bounded():
    world = World(WorldConfig(people=0, cars=0, heating_k=0.5, heating_period_s=40), seed=0)
    assert world.at(0).heating_k == 0
    assert world.at(10).heating_k == pytest.approx(0.5)
    assert abs(world.at(10.1).heating_k - world.at(10).heating_k) < 0.01


@given(
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    st.floats(0.05, 0.4),
)
def test_capsules_hold_their_ends(start, end, radius):
    outline = capsule(start, end, radius, radius)
    for point in (start, end):
        distance = np.hypot(*(outline - point).T)
        assert distance.min() == pytest.approx(radius, abs=1e-9)
    edges = np.roll(outline, -1, axis=0) - outline
    following = np.roll(edges, -1, axis=0)
    cross = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0]
    assert (cross >= -1e-9).all() or (cross <= 1e-9).all()  # convex


def test_ellipse_has_its_radii():
    assert np.ptp(ellipse((1, 2), 0.5, 0.25), axis=0) == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize(
    "bad", [{"people": 41}, {"cars": -1}, {"sky_k": 300}, {"heating_period_s": 0}, {"camera_height_m": 9}]
)
def test_config_names_the_bad_setting(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        WorldConfig(**bad)
