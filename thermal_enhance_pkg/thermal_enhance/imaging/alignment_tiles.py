"""Tiles that vote: one homography from the correlation of many small windows.

The thermal picture is cut into overlapping tiles. Each is correlated, by FFT, with its neighbourhood in the
warped RGB picture, on orientation features (`registration.orientation_field`) that ignore the sign of the
contrast. One tile alone is ambiguous across modalities, so no tile chooses a place: a homography is judged by
the sum of all tiles' correlations at the places it predicts, and the best is searched for by sampling (the
cross-entropy method, Rubinstein 1999). In units of what the same tiles give at random places, that sum is
also the evidence that there is something to align at all.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.registration import (
    Image,
    Matrix,
    orientation_field,
    pixel_matrix,
    resize_to_width,
    unit_matrix,
    warp_to_grid,
)

_COLUMNS = 8
_POPULATION = 256
_ROUNDS = 8
_ELITE = 24
_SETTLED = 0.35
_FREE = {"translation": 2, "similarity": 4, "stretch": 5, "affine": 6, "homography": 8}
_PRIOR = np.array([np.inf, np.inf, 0.08, 0.08, 0.03, 0.03, 0.04, 0.04])
"""How far a step usually goes: shift, scale, rotation, stretch, shear, keystone; half widths at the side."""
_PRIOR_WEIGHT = 0.6
"""Standard deviations of evidence that a step of `_PRIOR` must bring, times two."""

Spectra = list[NDArray[np.complexfloating]]


@dataclass(frozen=True)
class Found:
    """A matrix and the evidence for it.

    Attributes:
        matrix: 3x3, thermal to RGB over [0, 1] coordinates.
        score: standard deviations above what random places give.
        moved: mean distance from the start, grid pixels.
    """

    matrix: Matrix
    score: float
    moved: float = 0.0


class TileMatcher:
    """Matches one thermal picture with one RGB picture from a given start.

    Args:
        thermal: (h, w) float32 in [0, 1].
        luma: (h', w') float32 in [0, 1]; any size.
        lit: (h', w') float32, 1 where luma shows something (`registration.lit_area`); None for everywhere.
        width: of the grid the tiles are cut from, pixels.
        reach: largest displacement of a tile, grid pixels.
        sigma: scale of the derivatives, grid pixels.
        model: what may change: translation, similarity, affine or homography.
    """

    def __init__(
        self, thermal: Image, luma: Image, lit: Image | None, width: int, reach: int, sigma: float, model: str
    ) -> None:
        if model not in _FREE:
            raise ValueError(f"model must be one of {', '.join(_FREE)}, not {model!r}")
        self._thermal = resize_to_width(thermal, width)
        self._luma, self._lit, self._reach, self._sigma = luma, lit, reach, sigma
        self._free = _FREE[model]
        height = self._thermal.shape[0]
        self._size = (width, height)
        self._window = round(width / _COLUMNS)  # half the side of a tile: tiles overlap by half
        rows = max(3, round(_COLUMNS * height / width))
        x = np.floor((np.arange(_COLUMNS) + 0.5) * width / _COLUMNS).astype(int)
        y = np.floor((np.arange(rows) + 0.5) * height / rows).astype(int)
        self._rows = [(np.full(_COLUMNS, row), x) for row in y]
        # A tile covers [c - window, c + window): its centre is half a pixel before c.
        half = width / 2
        self._x = np.tile((x - width / 2) / half, rows)
        self._y = np.repeat((y - height / 2) / half, _COLUMNS)
        # A piece of work is one row of tiles of 50x50 pixels, or a few of smaller ones.
        self._rows_at_once = max(1, round((50 / (2 * (self._window + reach))) ** 2))
        self._halving = _halving(2 * reach + 1)
        self._spectra: list[Spectra] | None = None

    def settle(
        self, start: Matrix, spread: float, tries: int = 3, least: float = 0.0, model: str = ""
    ) -> Iterator[Found | None]:
        """`match` again from where the last one ended, until it stays there, or scores less than `least`.

        Tiles are cut from RGB as warped by the start: the further off that was, the worse they fit.
        """
        best: Found | None = None
        for _ in range(tries):
            for found in self.match(start, spread, model):
                if found is None:
                    yield None
                    continue
                start, spread = found.matrix, 0.6 * spread
                if best is None or found.score > best.score:
                    best = found
            if found is None or found.moved < _SETTLED or found.score < least:
                break
        yield best

    def match(self, start: Matrix, spread: float = 1.0, model: str = "") -> Iterator[Found | None]:
        """Look for the best matrix near `start`.

        Args:
            start: 3x3 thermal to RGB over [0, 1] coordinates.
            spread: how far to look, 1 for the error of a coarse search.
            model: what may change this time; empty for what the matcher was made for.

        Yields:
            None between pieces of work (each 0.5 to 3 ms), at last what was found.
        """
        votes = yield from self._tally(start)
        search = self._search(votes, spread, _FREE[model] if model else self._free)
        found = next(search)
        while found is None:
            yield None
            found = next(search)
        score, step = found
        source = (self._luma.shape[1], self._luma.shape[0])
        moved = pixel_matrix(start, self._size, source) @ _step_matrix(step, self._size)
        u, v = self._displacement(step[None])
        distance = float(np.hypot(u, v).mean())
        yield Found(unit_matrix(moved, self._size, source), score, distance)

    def weigh(self, place: Matrix) -> Iterator[Found | None]:
        """The evidence for one matrix as it is: `match` without looking around."""
        votes = yield from self._tally(place)
        yield Found(place, float(self._votes_for(votes, np.zeros((1, 8)))[0]))

    def _tally(self, start: Matrix) -> Generator[None, None, NDArray[np.float32]]:
        """(tiles, 4 reach + 1, 4 reach + 1): every tile's votes, in units of what chance gives."""
        if self._spectra is None:
            fields = self._fields(self._thermal, None)
            yield None
            taper = np.hanning(2 * self._window + 2)[1:-1].astype(np.float32)
            spectra = []
            for index, row in enumerate(self._rows):
                spectra.append([self._template(field, row, np.outer(taper, taper)) for field in fields])
                if index % self._rows_at_once == 0:
                    yield None
            self._spectra = spectra
        margin = self._window + self._reach
        pixels = pixel_matrix(start, self._size, (self._luma.shape[1], self._luma.shape[0]))
        corner = np.array([[1, 0, -margin], [0, 1, -margin], [0, 0, 1.0]])
        outer = (self._size[0] + 2 * margin, self._size[1] + 2 * margin)
        warped, mask = warp_to_grid(self._luma, pixels @ corner, outer, self._lit)
        yield None
        fields = self._fields(warped, mask)
        yield None
        surfaces = []
        for index, row in enumerate(self._rows):
            surfaces.append(self._surfaces(fields, row, self._spectra[index]))
            if index % self._rows_at_once == 0:
                yield None
        votes = np.concatenate(surfaces)
        flat = votes.reshape(len(votes), -1)
        votes -= flat.mean(axis=1)[:, None, None]
        votes /= np.sqrt((flat.std(axis=1) ** 2).sum()) + 1e-9
        return votes

    def _fields(self, image: Image, mask: Image | None) -> list[NDArray[np.complex64]]:
        """The double-angle orientation field and its square, which tells directions apart more sharply."""
        field = orientation_field(image, self._sigma, mask, 4.0 + self._size[0] / 40)
        double = (field.cosine + 1j * field.sine).astype(np.complex64)
        return [double, double * double / (np.abs(double) + np.float32(1e-6))]

    def _template(
        self, field: NDArray[np.complex64], row: tuple[NDArray, NDArray], taper: Image
    ) -> NDArray[np.complexfloating]:
        window, reach = self._window, self._reach
        offsets = np.arange(2 * window)
        padded = np.pad(field, window)
        tiles = padded[
            row[0][:, None, None] + offsets[None, :, None], row[1][:, None, None] + offsets[None, None, :]
        ]
        side = 2 * (window + reach)
        # Zeros all around keep the circular correlation from wrapping within the reach.
        frame = np.zeros((len(tiles), side, side), np.complex64)
        frame[:, reach:-reach, reach:-reach] = tiles * taper
        return np.asarray(np.conj(np.fft.fft2(frame)))

    def _surfaces(
        self, fields: list[NDArray[np.complex64]], row: tuple[NDArray, NDArray], spectra: Spectra
    ) -> NDArray[np.float32]:
        """(tiles, 4 reach + 1, 4 reach + 1): agreement if thermal pixel x lies at RGB pixel x + d / 2."""
        offsets = np.arange(2 * (self._window + self._reach))
        rows, columns = (
            row[0][:, None, None] + offsets[None, :, None],
            row[1][:, None, None] + offsets[None, None, :],
        )
        product = sum(
            spectrum * np.fft.fft2(field[rows, columns]) for spectrum, field in zip(spectra, fields)
        )
        surface = np.fft.ifft2(product).real
        shifts = np.arange(-self._reach, self._reach + 1)
        coarse = surface[:, shifts[:, None], shifts[None, :]]
        return np.asarray(self._halving @ coarse @ self._halving.T, np.float32)

    def _search(
        self, votes: NDArray[np.float32], spread: float, free: int
    ) -> Iterator[tuple[float, NDArray[np.float64]] | None]:
        rng = np.random.default_rng(0)
        width = spread * np.array([0.05, 0.05, 0.04, 0.04, 0.03, 0.03, 0.04, 0.04])
        width[free:] = 0.0
        centre = np.zeros(8)
        best: tuple[float, NDArray[np.float64]] = (-np.inf, centre)
        for index in range(_ROUNDS):
            tries = centre + rng.standard_normal((_POPULATION, 8)) * width
            tries[0] = centre
            merit = self._votes_for(votes, tries) - self._cost(tries)
            order = np.argsort(-merit)[:_ELITE]
            if merit[order[0]] > best[0]:
                best = (float(merit[order[0]]), tries[order[0]])
            centre, width = tries[order].mean(axis=0), 1.1 * tries[order].std(axis=0)
            if index % 2:
                yield None
        merit = self._votes_for(votes, centre[None]) - self._cost(centre[None])
        # The middle of the best is as good as the best of them and less at the mercy of the samples.
        step = centre if merit[0] > best[0] - 0.05 else best[1]
        yield float(self._votes_for(votes, step[None])[0]), step

    @staticmethod
    def _cost(steps: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(0.5 * _PRIOR_WEIGHT * ((steps / _PRIOR) ** 2).sum(axis=1))

    def _votes_for(self, votes: NDArray[np.float32], steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over the tiles of their votes at the displacements of (n, 8) `steps`; (n,)."""
        # In half pixels, see `_halving`.
        reach, side = 2 * self._reach, 4 * self._reach + 1
        u, v = self._displacement(steps)
        u, v = 2 * u + reach, 2 * v + reach
        within = (u >= 0) & (v >= 0) & (u <= side - 1) & (v <= side - 1)
        u, v = np.clip(u, 0, side - 1.001), np.clip(v, 0, side - 1.001)
        left, top = u.astype(np.int32), v.astype(np.int32)
        u, v = u - left, v - top
        flat = votes.reshape(-1)
        at = np.arange(len(votes), dtype=np.int32)[None] * (side * side) + top * side + left
        value = (flat[at] * (1 - u) + flat[at + 1] * u) * (1 - v)
        value += (flat[at + side] * (1 - u) + flat[at + side + 1] * u) * v
        return np.asarray((value * within).sum(axis=1))

    def _displacement(self, steps: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(n, tiles) each: how far (n, 8) `steps` move the centres of the tiles, grid pixels."""
        x, y, half = self._x[None], self._y[None], self._size[0] / 2
        tx, ty, scale, turn, stretch, shear, gx, gy = (steps[:, k, None] for k in range(8))
        w = 1.0 - gx * x - gy * y
        u = ((1 + scale + stretch) * x + (shear - turn) * y + tx) / w - x
        v = ((shear + turn) * x + (1 + scale - stretch) * y + ty) / w - y
        return u * half, v * half


def _halving(side: int) -> NDArray[np.float32]:
    """(2 side - 1, side) matrix that adds a sample between every two, by cubic convolution.

    Between samples, linear interpolation would lie below every peak, so that staying put would always win.
    """
    matrix = np.zeros((2 * side - 1, side), np.float32)
    matrix[::2] = np.eye(side)
    middle = np.arange(side - 1)
    for offset, weight in ((-1, -0.0625), (0, 0.5625), (1, 0.5625), (2, -0.0625)):
        np.add.at(matrix, (2 * middle + 1, np.clip(middle + offset, 0, side - 1)), weight)
    return matrix


def _step_matrix(step: NDArray[np.float64], size: tuple[int, int]) -> Matrix:
    """3x3 over grid pixels of one step: shift, scale, turn, stretch, shear, keystone about the centre."""
    half = size[0] / 2
    to_unit = np.array(
        [[1 / half, 0, -(size[0] - 1) / size[0]], [0, 1 / half, -(size[1] - 1) / size[0]], [0, 0, 1.0]]
    )
    tx, ty, scale, turn, stretch, shear, gx, gy = step
    move = np.array(
        [[1 + scale + stretch, shear - turn, tx], [shear + turn, 1 + scale - stretch, ty], [-gx, -gy, 1.0]]
    )
    return np.asarray(np.linalg.inv(to_unit) @ move @ to_unit)
