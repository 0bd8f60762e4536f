"""The simulated world: a street with people and cars, its state a pure function of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.simulation.actors import (
    CAR,
    PERSON,
    Actor,
    CarLook,
    PersonLook,
    car_parts,
    person_parts,
)
from thermal_enhance.simulation.textures import Surface, fractal_noise, street_surfaces

_SKIN = ((236, 196, 170), (214, 168, 138), (166, 118, 88), (112, 78, 58))
_HAIR = ((40, 30, 24), (88, 60, 36), (150, 120, 70), (120, 118, 116))
_TOPS = (
    (172, 40, 44),
    (36, 62, 120),
    (226, 222, 212),
    (52, 104, 72),
    (44, 44, 50),
    (214, 168, 52),
    (110, 76, 132),
)
_TROUSERS = ((42, 52, 78), (36, 36, 40), (122, 106, 84), (84, 88, 92))
_PAINTS = ((170, 32, 36), (44, 78, 132), (214, 214, 210), (58, 62, 66), (196, 152, 44))
_LANES = (9.8, 12.0)


@dataclass(frozen=True)
class WorldConfig:
    """What is in the street.

    Attributes:
        people: number of people, 0..40; the first stands, every third of the others comes and goes along
            the line of sight, the rest walk across.
        cars: number of cars, 0..8; the last of two or more is parked.
        ambient_k: air temperature, kelvin.
        sky_k: apparent temperature of the clear sky overhead, kelvin.
        heating_k: amplitude of the slow warming and cooling of everything that does not move, kelvin.
        heating_period_s: period of that, seconds.
        texture_k: fine temperature texture on people and cars, kelvin.
        camera_height_m: height of the rig above the ground, metres.
    """

    people: int = 6
    cars: int = 3
    ambient_k: float = 286.0
    sky_k: float = 252.0
    heating_k: float = 0.4
    heating_period_s: float = 90.0
    texture_k: float = 0.3
    camera_height_m: float = 1.6

    def __post_init__(self) -> None:
        if not 0 <= self.people <= 40:
            raise ValueError(f"world.people must be within 0..40, not {self.people}")
        if not 0 <= self.cars <= 8:
            raise ValueError(f"world.cars must be within 0..8, not {self.cars}")
        if not 200 <= self.sky_k <= self.ambient_k <= 330:
            raise ValueError(
                f"world.sky_k and world.ambient_k must be in kelvin with 200 <= sky <= ambient <= 330, "
                f"not {self.sky_k} and {self.ambient_k}"
            )
        if not self.heating_period_s > 0:
            raise ValueError(f"world.heating_period_s must be greater than 0, not {self.heating_period_s}")
        if not 0.5 <= self.camera_height_m <= 4:
            raise ValueError(f"world.camera_height_m must be within 0.5..4 m, not {self.camera_height_m}")


@dataclass(frozen=True)
class WorldState:
    """The world at one moment.

    Attributes:
        t_s: the moment, seconds.
        actors: people and cars, far first.
        heating_k: what everything that does not move is warmer than at t = 0, kelvin.
    """

    t_s: float
    actors: tuple[Actor, ...]
    heating_k: float


@dataclass(frozen=True)
class _Person:
    look: PersonLook
    kind: str  # "stand", "across" or "along"
    x: float
    z: float
    speed: float
    phase: float


@dataclass(frozen=True)
class _Car:
    look: CarLook
    parked: bool
    x: float
    z: float
    speed: float


class World:
    """A street, its fixed surfaces and what moves in it.

    Args:
        config: what is in it.
        seed: the same seed gives the same street, the same people and the same paths.

    Attributes:
        surfaces: fixed surfaces, far first.
        ground_y: height of the ground in world coordinates (y down), metres.
        cloth_k: (256, 256) float32 fine texture that actors carry, kelvin; 2 m x 2 m, repeated by mirroring.
        cloth_light: (256, 256) uint8 the same for light, independent of it; 128 is neutral.
    """

    def __init__(self, config: WorldConfig | None = None, seed: int = 0) -> None:
        self.config = config or WorldConfig()
        self.seed = seed
        self.ground_y = self.config.camera_height_m
        street_rng, people_rng, car_rng, cloth_rng = (
            np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)
        )
        self.surfaces: list[Surface] = street_surfaces(
            street_rng, self.config.ambient_k, self.config.sky_k, self.ground_y
        )
        size = (256, 256)
        self.cloth_k: NDArray[np.float32] = self.config.texture_k * fractal_noise(cloth_rng, size, 24.0)
        light = 128 + 5.0 * fractal_noise(cloth_rng, size, 14.0)
        self.cloth_light: NDArray[np.uint8] = np.clip(light, 0, 255).astype(np.uint8)
        self._last: WorldState | None = None
        self._people = [_draw_person(people_rng, n) for n in range(self.config.people)]
        self._cars = [
            _draw_car(car_rng, n, self.config.cars, self.config.ambient_k) for n in range(self.config.cars)
        ]

    def at(self, t_s: float) -> WorldState:
        """The world at a moment; the same for the same moment, whatever was asked before."""
        # Both cameras mostly ask for the same moments.
        last = self._last
        if last is not None and last.t_s == t_s:
            return last
        actors = [_place_person(person, n + 1, t_s) for n, person in enumerate(self._people)]
        first_car = len(self._people) + 1
        actors += [_place_car(car, first_car + n, t_s) for n, car in enumerate(self._cars)]
        actors.sort(key=lambda actor: (-actor.z, actor.track_id))
        heating = self.config.heating_k * math.sin(2 * math.pi * t_s / self.config.heating_period_s)
        state = WorldState(t_s, tuple(actors), heating)
        self._last = state
        return state


def _draw_person(rng: np.random.Generator, n: int) -> _Person:
    look = PersonLook(
        height_m=float(rng.uniform(1.58, 1.88)),
        skin_k=float(rng.uniform(305.5, 308.0)),
        clothing_k=float(rng.uniform(297.5, 300.5)),
        skin=_SKIN[rng.integers(len(_SKIN))],
        hair=_HAIR[rng.integers(len(_HAIR))],
        top=_TOPS[(n * 3 + int(rng.integers(2))) % len(_TOPS)],
        trousers=_TROUSERS[rng.integers(len(_TROUSERS))],
        bag=bool(rng.random() < 0.4),
    )
    kind = "stand" if n == 0 else ("along" if n % 3 == 0 else "across")
    direction = 1 if rng.random() < 0.5 else -1
    near = n % 2 == 1
    z = float(rng.uniform(5.0, 7.8) if near else rng.uniform(13.6, 14.9))
    if kind == "stand":
        return _Person(look, kind, -1.1, 6.4, 0.0, float(rng.uniform(0, 6)))
    if kind == "along":
        x = float(rng.uniform(-2.4, 2.4))
        return _Person(look, kind, x, z, float(rng.uniform(0.8, 1.2)), float(rng.uniform(0, 6)))
    x = float(rng.uniform(-0.8, 0.8)) * (z * 0.55)
    return _Person(look, kind, x, z, direction * float(rng.uniform(0.9, 1.6)), float(rng.uniform(0, 6)))


def _draw_car(rng: np.random.Generator, n: int, cars: int, ambient: float) -> _Car:
    parked = cars >= 2 and n == cars - 1
    look = CarLook(
        length_m=float(rng.uniform(4.0, 4.6)),
        body=_PAINTS[(n * 2 + int(rng.integers(2))) % len(_PAINTS)],
        body_k=ambient + float(rng.uniform(-1.5, 1.5)) + (-1.0 if parked else 1.0),
        engine_k=ambient + (3.0 if parked else float(rng.uniform(14, 20))),
        tyre_k=ambient + (0.5 if parked else float(rng.uniform(9, 13))),
        brake_k=ambient + (1.0 if parked else float(rng.uniform(18, 28))),
        exhaust_k=ambient + (1.5 if parked else float(rng.uniform(40, 60))),
    )
    lane = n % 2
    # Cars of one lane share its speed, so that they never drive through one another.
    speed = 4.2 if lane == 0 else -5.0
    if parked:
        return _Car(look, True, 3.4 + 0.3 * float(rng.uniform(-1, 1)), 12.9, 0.0)
    return _Car(look, False, -3.0 + 8.0 * (n // 2) + 9.0 * lane, _LANES[lane], speed)


def _place_person(person: _Person, track_id: int, t_s: float) -> Actor:
    x, z, facing, stride, travelled = person.x, person.z, 0, 1.0, abs(person.speed) * t_s
    if person.kind == "across":
        x = _wrap(person.x + person.speed * t_s, 0.9 * person.z + 2.0)
        facing = 1 if person.speed > 0 else -1
    elif person.kind == "along":
        near, far = (4.9, 8.2) if person.z < 10 else (13.4, 15.4)
        z = near + _triangle(person.z - near + person.speed * t_s, far - near)
    else:
        stride = 0.0
        x = person.x + 0.02 * math.sin(0.9 * t_s + person.phase)
    phase = person.phase + 2 * math.pi * travelled / (0.82 * person.look.height_m)
    parts = person_parts(person.look, phase, stride, facing)
    return Actor(track_id, PERSON, x, z, parts, shadow=(0.34, 0.20))


def _place_car(car: _Car, track_id: int, t_s: float) -> Actor:
    reach = 16.0
    x = car.x if car.parked else _wrap(car.x + car.speed * t_s, reach)
    roll = 0.0 if car.parked else abs(car.speed) * t_s / 0.33
    parts = car_parts(car.look, roll, 1 if car.speed >= 0 else -1)
    return Actor(track_id, CAR, x, car.z, parts, shadow=(car.look.length_m * 0.5, 0.7))


def _wrap(x: float, reach: float) -> float:
    """Fold x into [-reach, reach), so that what leaves on one side comes back on the other."""
    return (x + reach) % (2 * reach) - reach


def _triangle(distance: float, span: float) -> float:
    """Back and forth over [0, span]."""
    folded = distance % (2 * span)
    return folded if folded <= span else 2 * span - folded
