"""The street's fixed surfaces: textured planes whose thermal and colour materials are independent.

Some edges are in both pictures (windows, kerbs), some only in colour (road markings, posters, brick joints),
some only in thermal (heat leaks, radiators behind a wall, a heating pipe under the pavement).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Rgb = tuple[int, int, int]
Box = tuple[float, float, float, float]
Rng = np.random.Generator


@dataclass(frozen=True)
class Surface:
    """A textured rectangle in the world.

    Attributes:
        name: for messages and tests.
        origin: (3,) world point of the texture's first corner, metres.
        u_axis: (3,) unit vector along the columns.
        v_axis: (3,) unit vector along the rows.
        pixels_per_m: resolution of the textures.
        temperature_k: (h, w) float32, kelvin.
        color: (h, w, 3) uint8 RGB.
        alpha: (h, w) uint8 coverage; None where the whole rectangle is solid.
        depth_m: painting order, far first.
        backdrop: behind every actor, so that it is painted before the first of them.
        split: texture axis ("u" or "v") that runs into the distance; the surface is cut along it into
            tiles of their own resolution, so that far parts do not alias.
        smooth: fills the picture behind everything else, without sharp detail (the sky).
    """

    name: str
    origin: NDArray[np.float64]
    u_axis: NDArray[np.float64]
    v_axis: NDArray[np.float64]
    pixels_per_m: float
    temperature_k: NDArray[np.float32]
    color: NDArray[np.uint8]
    alpha: NDArray[np.uint8] | None
    depth_m: float
    backdrop: bool
    split: str = ""
    smooth: bool = False

    @property
    def size_m(self) -> tuple[float, float]:
        """Extent along u and v, metres."""
        height, width = self.temperature_k.shape
        return width / self.pixels_per_m, height / self.pixels_per_m


def fractal_noise(rng: Rng, shape: tuple[int, int], cell: float, octaves: int = 4) -> NDArray[np.float32]:
    """Smooth random field of zero mean and unit standard deviation.

    Args:
        rng: source of randomness.
        shape: (H, W).
        cell: size of the coarsest structure, pixels.
        octaves: number of scales, each half the size and 0.6 the amplitude of the one before.
    """
    height, width = shape
    field = np.zeros(shape, np.float32)
    amplitude = 1.0
    for octave in range(octaves):
        step = max(cell / 2**octave, 1.0)
        coarse = rng.standard_normal((int(height / step) + 2, int(width / step) + 2), dtype=np.float32)
        field += amplitude * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        amplitude *= 0.6
    field -= field.mean()
    return field / max(float(field.std()), 1e-6)


class Canvas:
    """Both materials of one surface while it is painted; coordinates in metres from its first corner."""

    def __init__(self, rng: Rng, size_m: tuple[float, float], ppm: float, t: float, color: Rgb) -> None:
        self.ppm = ppm
        self.rng = rng
        self.shape = (round(size_m[1] * ppm), round(size_m[0] * ppm))
        self.thermal = np.full(self.shape, t, np.float32)
        self.color = np.full((*self.shape, 3), color, np.uint8)
        self.alpha: NDArray[np.uint8] | None = None

    def grain(self, kelvin: float, levels: float, cell_m: float) -> None:
        """Add texture of independent patterns to both materials."""
        cell = cell_m * self.ppm
        self.thermal += kelvin * fractal_noise(self.rng, self.shape, cell)
        light = levels * fractal_noise(self.rng, self.shape, cell * 0.6)
        self.color = np.clip(self.color + light[..., None], 0, 255).astype(np.uint8)

    def rect(self, box: Box, t: float | None, color: Rgb | None) -> None:
        """Paint a rectangle (x, y, width, height) into either material (None leaves one as it is)."""
        x, y, w, h = box
        x0, y0 = round(x * self.ppm), round(y * self.ppm)
        x1 = max(round((x + w) * self.ppm), x0 + 1)
        y1 = max(round((y + h) * self.ppm), y0 + 1)
        area = np.s_[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
        if t is not None:
            self.thermal[area] = t
        if color is not None:
            self.color[area] = color

    def warm(self, x: float, y: float, rx: float, ry: float, kelvin: float) -> None:
        """Add a soft warm (or cold) spot that the colour camera cannot see."""
        rows, cols = np.ogrid[: self.shape[0], : self.shape[1]]
        distance = ((cols / self.ppm - x) / rx) ** 2 + ((rows / self.ppm - y) / ry) ** 2
        self.thermal += (kelvin * np.exp(-distance)).astype(np.float32)

    def disc(self, x: float, y: float, r: float, t: float | None, color: Rgb | None) -> None:
        """Paint a disc into either material."""
        rows, cols = np.ogrid[: self.shape[0], : self.shape[1]]
        area = (cols / self.ppm - x) ** 2 + (rows / self.ppm - y) ** 2 <= r * r
        if t is not None:
            self.thermal[area] = t
        if color is not None:
            self.color[area] = color

    def surface(
        self,
        name: str,
        origin: tuple[float, float, float],
        *,
        u_axis: tuple[float, float, float] = (1, 0, 0),
        v_axis: tuple[float, float, float] = (0, 1, 0),
        backdrop: bool = True,
        depth_m: float | None = None,
        split: str = "",
        smooth: bool = False,
    ) -> Surface:
        """The finished surface."""
        return Surface(
            name=name,
            origin=np.array(origin, float),
            u_axis=np.array(u_axis, float),
            v_axis=np.array(v_axis, float),
            pixels_per_m=self.ppm,
            temperature_k=self.thermal,
            color=self.color,
            alpha=self.alpha,
            depth_m=origin[2] if depth_m is None else depth_m,
            backdrop=backdrop,
            split=split,
            smooth=smooth,
        )


def street_surfaces(rng: Rng, ambient_k: float, sky_k: float, ground_y: float) -> list[Surface]:
    """Every fixed surface of the street, far first.

    Args:
        rng: source of randomness; the same state gives the same street.
        ambient_k: air temperature, kelvin.
        sky_k: apparent temperature of the clear sky overhead, kelvin.
        ground_y: height of the ground in world coordinates (y down), metres.
    """
    surfaces = [
        _sky(rng, ambient_k, sky_k),
        _trees(rng, ambient_k, ground_y),
        _meadow(rng, ambient_k, ground_y),
        _brick_house(rng, ambient_k, ground_y),
        _side_wall(rng, ambient_k, ground_y),
        _workshop(rng, ambient_k, ground_y),
        _street(rng, ambient_k, ground_y),
        _tree(rng, ambient_k, ground_y),
        _sign(rng, ambient_k, ground_y),
        *_lamp(rng, ambient_k, ground_y),
    ]
    return sorted(surfaces, key=lambda surface: -surface.depth_m)


def _sky(rng: Rng, ambient: float, sky: float) -> Surface:
    c = Canvas(rng, (900.0, 360.0), 0.4, sky, (120, 160, 215))
    rise = (np.linspace(0, 1, c.shape[0], dtype=np.float32) ** 3)[:, None]
    clouds = np.clip(fractal_noise(rng, c.shape, 52.0, 5) - 0.1, 0, 1.6)
    # Towards the horizon the path through warm air is longer; clouds are nearly as warm as their base.
    c.thermal += 0.8 * (ambient - 6 - sky) * rise + 4.5 * clouds
    haze = (1 - rise) * np.array([118, 160, 216]) + np.zeros((1, 1, 3))
    haze = haze + rise[..., None] * np.array([205, 214, 222])
    white = np.clip(clouds, 0, 1)[..., None]
    c.color = np.clip(haze[:, :1] * (1 - 0.75 * white) + 0.75 * white * 238, 0, 255).astype(np.uint8)
    return c.surface("sky", (-450.0, -340.0, 300.0), smooth=True)


def _trees(rng: Rng, ambient: float, ground: float) -> Surface:
    c = Canvas(rng, (130.0, 7.0), 12.0, ambient - 1.5, (52, 74, 44))
    c.grain(0.8, 14, 2.5)
    top = 12.0 * (2.6 + 0.9 * fractal_noise(rng, (1, c.shape[1]), 45.0, 5))
    rows = np.arange(c.shape[0], dtype=np.float32)[:, None]
    c.alpha = (255 * np.clip(rows - top + 0.5, 0, 1)).astype(np.uint8)
    return c.surface("trees", (-65.0, ground - 6.8, 58.0))


def _meadow(rng: Rng, ambient: float, ground: float) -> Surface:
    c = Canvas(rng, (130.0, 44.0), 10.0, ambient - 1.0, (86, 112, 58))
    c.grain(1.0, 12, 3.0)
    return c.surface("meadow", (-65.0, ground, 15.0), v_axis=(0, 0, 1), depth_m=57.0, split="v")


def _street(rng: Rng, ambient: float, ground: float) -> Surface:
    c = Canvas(rng, (40.0, 15.0), 40.0, ambient + 2.5, (128, 124, 118))
    z = 1.2  # world z of the first row

    def stripe(z0: float, z1: float, t: float | None, color: Rgb | None) -> None:
        c.rect((0, z0 - z, 40, z1 - z0), t, color)

    stripe(8.7, 13.1, ambient + 5.0, (72, 73, 76))
    c.grain(0.55, 7, 1.2)
    for column in np.arange(0, 40, 0.8):
        c.rect((float(column), 0, 0.025, 8.55 - z), None, (104, 100, 95))
        c.rect((float(column), 13.25 - z, 0.025, 3), None, (104, 100, 95))
    for row in np.arange(1.2, 8.5, 0.8):
        stripe(float(row), float(row) + 0.025, None, (104, 100, 95))
    for lane in (9.5, 10.4, 11.6, 12.5):  # tyres warm their tracks, and the paint hides it
        c.thermal[int((lane - 0.16 - z) * 40) : int((lane + 0.16 - z) * 40)] += 1.0
    for kerb in (8.55, 13.1):
        stripe(kerb, kerb + 0.15, ambient + 0.8, (176, 174, 168))
    stripe(8.82, 8.92, None, (226, 226, 220))
    stripe(12.9, 13.0, None, (226, 226, 220))
    for dash in np.arange(0, 40, 3.0):
        c.rect((float(dash), 10.94 - z, 1.6, 0.13), None, (230, 228, 214))
    for bar in range(7):  # pedestrian crossing
        c.rect((23.4 + 0.62 * bar, 9.1 - z, 0.33, 3.6), None, (222, 222, 218))
    c.warm(18.0, 5.4 - z, 0.35, 60.0, 2.6)  # heating pipe under the pavement
    c.disc(21.6, 6.2 - z, 0.36, ambient + 8.5, (70, 66, 62))  # manhole
    c.disc(21.6, 6.2 - z, 0.26, ambient + 7.0, (88, 84, 80))
    return c.surface("street", (-20.0, ground, z), v_axis=(0, 0, 1), depth_m=15.9, split="v")


def _window(c: Canvas, box: Box, t: float, glass: Rgb) -> None:
    x, y, w, h = box
    c.rect((x - 0.09, y - 0.09, w + 0.18, h + 0.18), t + 4.0, (222, 219, 210))
    c.rect((x, y, w, h), t, glass)
    c.rect((x + 0.05, y + 0.05, w * 0.4, h * 0.45), None, (glass[0] + 34, glass[1] + 36, glass[2] + 36))
    c.rect((x + w / 2 - 0.04, y, 0.08, h), t + 3.0, (222, 219, 210))
    c.rect((x - 0.14, y + h + 0.09, w + 0.28, 0.09), t + 5.0, (188, 184, 176))


def _brick_house(rng: Rng, ambient: float, ground: float) -> Surface:
    width, height = 18.0, 7.4
    c = Canvas(rng, (width, height), 48.0, ambient + 1.6, (142, 84, 64))
    c.grain(0.45, 9, 1.5)
    for row in np.arange(0, height, 0.25):
        c.rect((0, float(row), width, 0.03), None, (164, 138, 120))
    for row in range(int(height / 0.25)):
        for column in np.arange(0.3 * (row % 2), width, 0.6):
            c.rect((float(column), row * 0.25, 0.03, 0.25), None, (158, 126, 108))
    for story, y in enumerate((0.9, 4.1)):
        for n in range(6):
            x = 0.9 + 2.95 * n
            leaking = rng.random() < 0.3
            # Glass mirrors the cold sky, unless the window stands open.
            t = ambient + 5.5 if leaking else ambient - 7.0 + float(rng.normal(0, 1.0))
            _window(c, (x, y, 1.3, 1.7), t, (42, 54, 68))
            if rng.random() < 0.6:
                c.warm(x + 0.65, y + 2.25, 0.75, 0.28, 2.6)  # radiator behind the wall
        c.rect((0, 3.35 + 0.01 * story, width, 0.16), ambient + 0.4, (196, 188, 172))
    c.rect((12.6, 4.7, 1.7, 1.5), None, (236, 206, 60))  # poster: paint on paper on wall, no heat of its own
    c.rect((12.75, 4.85, 0.6, 1.2), None, (190, 40, 42))
    c.rect((13.45, 4.95, 0.7, 0.3), None, (30, 70, 150))
    c.rect((13.45, 5.45, 0.7, 0.55), None, (30, 120, 74))
    c.rect((0, height - 0.35, width, 0.35), ambient + 2.4, (112, 108, 104))
    return c.surface("brick_house", (-19.5, ground - height, 22.0))


def _side_wall(rng: Rng, ambient: float, ground: float) -> Surface:
    height = 5.6
    c = Canvas(rng, (6.0, height), 44.0, ambient + 0.2, (146, 142, 134))
    c.grain(0.4, 6, 1.5)
    for n in range(2):
        _window(c, (0.9 + 2.7 * n, 1.0, 1.2, 1.3), ambient - 6.0, (50, 60, 70))
    c.rect((0, 3.3, 6.0, 0.14), ambient + 24.0, (158, 160, 160))
    return c.surface("side_wall", (5.0, ground - height, 16.0), u_axis=(0, 0, 1), depth_m=17.0, split="u")


def _workshop(rng: Rng, ambient: float, ground: float) -> Surface:
    width, height = 16.0, 5.6
    c = Canvas(rng, (width, height), 52.0, ambient + 1.0, (178, 172, 160))
    c.grain(0.4, 6, 1.8)
    for column in np.arange(0, width, 2.0):
        c.rect((float(column), 0, 0.05, height), None, (140, 136, 128))
    c.rect((0, 0, width, 0.3), ambient - 1.2, (92, 94, 98))
    c.rect((1.1, 2.9, 2.3, 2.7), ambient + 2.8, (58, 82, 112))  # gate; its ribs are paint
    for rib in range(8):
        c.rect((1.1, 2.9 + 0.33 * rib, 2.3, 0.05), None, (44, 64, 90))
    _window(c, (4.6, 2.6, 1.6, 1.2), ambient - 5.0, (44, 56, 70))
    _window(c, (7.4, 2.6, 1.6, 1.2), ambient - 5.5, (44, 56, 70))
    for pipe, t in ((0.95, 31.0), (1.3, 18.0)):  # flow and return
        c.rect((0, pipe, width, 0.13), ambient + t, (168, 170, 172))
    c.rect((3.95, 1.0, 0.13, 4.6), ambient + 26.0, (160, 162, 164))
    c.rect((5.1, 4.55, 1.1, 0.8), ambient + 9.0, (206, 206, 200))  # heat pump
    c.disc(5.65, 4.95, 0.29, ambient + 17.0, (96, 98, 100))
    c.warm(2.3, 2.2, 1.0, 0.3, 3.5)  # warm air under the lintel
    return c.surface("workshop", (4.94, ground - height, 16.0))


def _tree(rng: Rng, ambient: float, ground: float) -> Surface:
    c = Canvas(rng, (4.4, 5.2), 44.0, ambient - 0.6, (62, 92, 46))
    c.grain(0.7, 20, 0.5)
    rows, cols = np.ogrid[: c.shape[0], : c.shape[1]]
    radius = np.hypot((cols / 44.0 - 2.2) / 2.0, (rows / 44.0 - 1.8) / 1.7)
    edge = 0.86 + 0.10 * fractal_noise(rng, c.shape, 22.0, 3)
    c.alpha = (255 * np.clip((edge - radius) * 30, 0, 1)).astype(np.uint8)
    c.rect((2.05, 3.1, 0.30, 2.1), ambient + 0.8, (86, 68, 50))
    c.alpha[int(3.0 * 44) :, int(2.05 * 44) : int(2.35 * 44)] = 255
    return c.surface("tree", (-9.2, ground - 5.2, 15.2), backdrop=False)


def _sign(rng: Rng, ambient: float, ground: float) -> Surface:
    c = Canvas(rng, (0.8, 2.9), 70.0, ambient - 1.5, (150, 152, 154))
    c.alpha = np.zeros(c.shape, np.uint8)
    c.alpha[:, int(0.36 * 70) : int(0.44 * 70)] = 255
    rows, cols = np.ogrid[: c.shape[0], : c.shape[1]]
    c.alpha[(cols / 70.0 - 0.4) ** 2 + (rows / 70.0 - 0.4) ** 2 <= 0.37**2] = 255
    # Bare metal mirrors the sky: the whole disc is cold, whatever is printed on it.
    c.disc(0.4, 0.4, 0.38, ambient - 9.0, (196, 30, 34))
    c.disc(0.4, 0.4, 0.28, None, (240, 240, 236))
    c.rect((0.23, 0.27, 0.10, 0.27), None, (24, 24, 26))
    c.rect((0.41, 0.27, 0.16, 0.27), None, (24, 24, 26))
    c.rect((0.46, 0.32, 0.06, 0.17), None, (240, 240, 236))
    return c.surface("sign", (2.9, ground - 2.9, 13.2), backdrop=False)


def _lamp(rng: Rng, ambient: float, ground: float) -> list[Surface]:
    pole = Canvas(rng, (0.12, 4.8), 80.0, ambient - 0.8, (68, 76, 74))
    pole.rect((0.0, 4.4, 0.12, 0.4), ambient + 3.0, (60, 66, 64))
    arm = Canvas(rng, (1.0, 0.24), 80.0, ambient - 0.8, (68, 76, 74))
    arm.alpha = np.zeros(arm.shape, np.uint8)
    arm.alpha[int(0.07 * 80) : int(0.15 * 80)] = 255
    arm.alpha[int(0.03 * 80) : int(0.21 * 80), int(0.5 * 80) :] = 255
    arm.rect((0.5, 0.0, 0.5, 0.24), ambient + 9.0, (228, 226, 210))
    return [
        pole.surface("lamp_pole", (-3.3, ground - 4.8, 8.3), backdrop=False),
        arm.surface("lamp_arm", (-3.3, ground - 4.86, 8.29), backdrop=False),
    ]
