"""People and cars: articulated outlines in metres, with temperatures and colours of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Pair = tuple[float, float]
Rgb = tuple[int, int, int]

PERSON, CAR = "person", "car"
LABELS = ("background", PERSON, CAR)
"""Names of the values of a truth mask, in order."""


@dataclass(frozen=True)
class Part:
    """One convex piece of an actor.

    Attributes:
        outline: (N, 2) metres in the actor's plane, x right, y up from the ground.
        temperature_k: its temperature; None if it is seen by the colour camera only.
        color: its RGB; None if it is seen by the thermal camera only.
    """

    outline: Points
    temperature_k: float | None
    color: Rgb | None


@dataclass(frozen=True)
class Actor:
    """A person or car at one moment: parts in an upright plane facing along z.

    Attributes:
        track_id: 1..255, stays with the actor.
        label: "person" or "car".
        x: world x of the plane's origin, metres.
        z: world z of the plane, metres.
        parts: painted in order.
        shadow: (half width, half depth) of its contact shadow on the ground, metres (RGB only).
    """

    track_id: int
    label: str
    x: float
    z: float
    parts: tuple[Part, ...]
    shadow: Pair


_HALF_TURN = np.linspace(math.pi / 2, 3 * math.pi / 2, 9)
_BACK = np.stack([np.cos(_HALF_TURN), np.sin(_HALF_TURN)], axis=1)
_TURN = np.arange(20) * (math.pi / 10)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], axis=1)


def capsule(start: Pair, end: Pair, radius: float, end_radius: float) -> Points:
    """Convex outline (18, 2) of a limb that tapers from `radius` at start to `end_radius` at end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    length = math.hypot(dx, dy)
    c, s = (dx / length, dy / length) if length else (1.0, 0.0)
    back = _BACK @ np.array([[c, s], [-s, c]])
    outline = np.empty((2 * len(back), 2))
    outline[: len(back)] = radius * back + start
    outline[len(back) :] = end - end_radius * back
    return outline


def ellipse(center: Pair, rx: float, ry: float) -> Points:
    """Outline (20, 2) of an ellipse."""
    return _CIRCLE * (rx, ry) + center


@dataclass(frozen=True)
class PersonLook:
    """What stays the same about a person.

    Attributes:
        height_m: standing height, metres.
        skin_k: face temperature, kelvin (303..309).
        clothing_k: warmest clothing, kelvin (296..301).
        skin: RGB of skin.
        hair: RGB of hair.
        top: RGB of the jacket.
        trousers: RGB of the trousers.
        bag: carries a bag: cool in thermal, coloured in RGB.
    """

    height_m: float
    skin_k: float
    clothing_k: float
    skin: Rgb
    hair: Rgb
    top: Rgb
    trousers: Rgb
    bag: bool


def person_parts(look: PersonLook, phase: float, stride: float, facing: int) -> tuple[Part, ...]:
    """Outline of a person.

    Args:
        look: the person.
        phase: phase of the gait, radians; a full step pair is 2 pi.
        stride: swing of the legs, 0 (standing) to 1 (walking).
        facing: -1 walks left, 1 walks right (seen from the side), 0 seen from the front.
    """
    h = look.height_m
    side = facing != 0
    swing = 0.42 * stride if side else 0.07 * stride
    bob = 0.012 * h * stride * abs(math.cos(phase))
    hip = (0.0, 0.50 * h + bob)
    shoulder = (0.02 * h * facing, 0.81 * h + bob)
    leg = 0.25 * h
    cloth, skin = look.clothing_k, look.skin_k
    shoe_color, dark_top = (38, 34, 32), _shade(look.top, 0.72)
    parts: list[Part] = []

    def limb(a: Pair, b: Pair, radii: Pair, t: float, c: Rgb) -> None:
        parts.append(Part(capsule(a, b, radii[0] * h, radii[1] * h), t, c))

    def leg_parts(sign: int, color: Rgb) -> None:
        angle = swing * math.sin(phase) * sign * (facing or 1)
        lift = max(0.0, math.cos(phase) * sign) * stride
        root = (hip[0] + (0.0 if side else 0.052 * h * sign), hip[1])
        knee = (root[0] + leg * math.sin(angle), root[1] - leg * math.cos(angle))
        # The swinging leg bends backwards at the knee; seen from the front it only gets shorter.
        shin = angle - 0.75 * lift * (facing if side else 0)
        drop = 0.23 * h * (1.0 if side else 1.0 - 0.22 * lift)
        ankle = (knee[0] + drop * math.sin(shin), knee[1] - drop * math.cos(shin))
        toe = (ankle[0] + (0.075 * h * facing if side else 0.02 * h * sign), ankle[1] - 0.012 * h)
        limb(root, knee, (0.058, 0.042), cloth - 0.9, color)
        limb(knee, ankle, (0.041, 0.028), cloth - 2.0, color)
        limb(ankle, toe, (0.024, 0.018), cloth - 5.0, shoe_color)

    def arm_parts(sign: int, color: Rgb) -> None:
        angle = -0.9 * swing * math.sin(phase) * sign * (facing or 1) + (0.0 if side else 0.16 * sign)
        root = (shoulder[0] + (0.0 if side else 0.105 * h * sign), shoulder[1] - 0.012 * h)
        elbow = (root[0] + 0.17 * h * math.sin(angle), root[1] - 0.17 * h * math.cos(angle))
        bend = angle + 0.35 * facing * (0.4 + 0.6 * stride)
        wrist = (elbow[0] + 0.14 * h * math.sin(bend), elbow[1] - 0.14 * h * math.cos(bend))
        hand = (wrist[0] + 0.03 * h * math.sin(bend), wrist[1] - 0.03 * h * math.cos(bend))
        limb(root, elbow, (0.036, 0.030), cloth - 0.5, color)
        limb(elbow, wrist, (0.029, 0.023), cloth - 0.9, color)
        limb(wrist, hand, (0.021, 0.019), skin - 3.5, look.skin)

    dark_trousers = _shade(look.trousers, 0.7)
    arm_parts(-1, dark_top)
    leg_parts(-1, dark_trousers)
    leg_parts(1, look.trousers)
    if side:
        limb(
            (hip[0], hip[1] + 0.01 * h), (shoulder[0], 0.765 * h + bob), (0.072, 0.080), cloth - 0.4, look.top
        )
    else:
        torso = [(-0.10, 0.47), (0.10, 0.47), (0.108, 0.60), (0.128, 0.79), (0.115, 0.815), (0.06, 0.842)]
        torso += [(-0.06, 0.842), (-0.115, 0.815), (-0.128, 0.79), (-0.108, 0.60)]
        parts.append(Part(np.array(torso) * h + (0, bob), cloth - 0.4, look.top))
    # Chest and belly are a little warmer than the rim of the jacket; the colour camera sees no such edge.
    parts.append(Part(ellipse((shoulder[0] / 2, 0.69 * h + bob), 0.052 * h, 0.10 * h), cloth + 0.5, None))
    if look.bag:
        back = (-0.105 * h * facing if side else 0.0, 0.70 * h + bob)
        if side:
            parts.append(Part(ellipse(back, 0.062 * h, 0.105 * h), cloth - 6.0, (150, 48, 40)))
        else:
            strap = capsule((0.085 * h, 0.80 * h + bob), (-0.09 * h, 0.55 * h + bob), 0.013 * h, 0.013 * h)
            parts.append(Part(strap, cloth - 2.5, (150, 48, 40)))
    arm_parts(1, look.top)
    head = (shoulder[0] + 0.018 * h * facing, 0.925 * h + bob)
    limb((shoulder[0], 0.84 * h + bob), head, (0.033, 0.033), skin - 0.5, look.skin)
    parts.append(Part(ellipse(head, 0.052 * h, 0.068 * h), skin, look.skin))
    crown = ellipse((head[0] - 0.014 * h * facing, head[1] + 0.030 * h), 0.052 * h, 0.045 * h)
    parts.append(Part(crown, skin - 6.5, look.hair))
    if side:
        parts.append(
            Part(ellipse((head[0] + 0.036 * h * facing, head[1]), 0.016 * h, 0.02 * h), skin + 0.8, None)
        )
    else:
        parts.append(Part(ellipse((head[0], head[1] - 0.012 * h), 0.028 * h, 0.026 * h), skin + 0.8, None))
    return tuple(parts)


@dataclass(frozen=True)
class CarLook:
    """What stays the same about a car.

    Attributes:
        length_m: bumper to bumper, metres.
        body: RGB of the paint.
        body_k: temperature of the paint away from the engine, kelvin.
        engine_k: temperature of the bonnet, kelvin.
        tyre_k: temperature of the tyres, kelvin.
        brake_k: temperature of hubs and brakes, kelvin.
        exhaust_k: temperature of the tail pipe, kelvin.
    """

    length_m: float
    body: Rgb
    body_k: float
    engine_k: float
    tyre_k: float
    brake_k: float
    exhaust_k: float


def car_parts(look: CarLook, roll_rad: float, facing: int) -> tuple[Part, ...]:
    """Side view of a car.

    Args:
        look: the car.
        roll_rad: how far the wheels have turned, radians.
        facing: -1 heads left, 1 heads right.
    """
    s = look.length_m / 4.4

    def shape(points: list[Pair], t: float | None, c: Rgb | None) -> Part:
        return Part(np.array(points, float) * (s * facing, s), t, c)

    body_dark, glass = _shade(look.body, 0.62), (46, 58, 70)
    window_k = look.body_k - 7.0
    parts = [
        shape([(-2.12, 0.30), (2.10, 0.30), (2.18, 0.52), (-2.18, 0.52)], look.body_k + 2.0, body_dark),
        shape(
            [
                (-2.2, 0.45),
                (2.2, 0.45),
                (2.19, 0.66),
                (1.98, 0.83),
                (0.95, 0.97),
                (-1.55, 0.97),
                (-2.16, 0.9),
            ],
            look.body_k,
            look.body,
        ),
        shape([(-1.75, 0.94), (1.02, 0.94), (0.38, 1.42), (-1.22, 1.42)], look.body_k - 1.2, look.body),
        shape([(-1.50, 0.97), (-0.42, 0.97), (-0.42, 1.35), (-1.14, 1.35)], window_k, glass),
        shape([(-0.34, 0.97), (0.82, 0.97), (0.32, 1.35), (-0.34, 1.35)], window_k + 0.8, glass),
        # Heat of the engine: a patch that the paint does not show.
        shape([(1.02, 0.50), (2.16, 0.50), (2.12, 0.70), (1.92, 0.82), (1.02, 0.93)], look.engine_k, None),
        shape([(1.2, 0.62), (1.95, 0.62), (1.85, 0.80), (1.2, 0.88)], look.engine_k + 4.0, None),
        # Lines of doors and lamps: edges that the thermal camera does not see.
        shape([(-0.40, 0.40), (-0.37, 0.40), (-0.37, 0.96), (-0.40, 0.96)], None, body_dark),
        shape([(0.86, 0.40), (0.89, 0.40), (0.89, 0.94), (0.86, 0.94)], None, body_dark),
        shape([(-2.17, 0.66), (-1.98, 0.66), (-1.98, 0.80), (-2.17, 0.80)], None, (150, 22, 22)),
        shape([(1.98, 0.62), (2.18, 0.58), (2.17, 0.70), (1.98, 0.76)], None, (244, 238, 205)),
        shape([(-2.24, 0.28), (-2.02, 0.28), (-2.02, 0.36), (-2.24, 0.36)], look.exhaust_k, (70, 70, 72)),
    ]
    for hub in (-1.35, 1.35):
        center = (hub * s * facing, 0.33 * s)
        arch = (center[0], 0.37 * s)
        parts.append(Part(ellipse(arch, 0.37 * s, 0.37 * s), look.body_k - 2.0, (18, 18, 20)))
        parts.append(Part(ellipse(center, 0.33 * s, 0.33 * s), look.tyre_k, (30, 30, 32)))
        parts.append(Part(ellipse(center, 0.20 * s, 0.20 * s), look.brake_k, (150, 152, 156)))
        for spoke in range(3):
            angle = -roll_rad * facing + spoke * math.pi / 3
            reach = 0.18 * s
            a = (center[0] - reach * math.cos(angle), center[1] - reach * math.sin(angle))
            b = (center[0] + reach * math.cos(angle), center[1] + reach * math.sin(angle))
            parts.append(Part(capsule(a, b, 0.02 * s, 0.02 * s), None, (84, 86, 90)))
    return tuple(parts)


def _shade(color: Rgb, factor: float) -> Rgb:
    return (int(color[0] * factor), int(color[1] * factor), int(color[2] * factor))
