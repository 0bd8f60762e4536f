"""The search for where thermal lies in RGB, cut into pieces: coarse by FFT, then by voting tiles."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.alignment_config import AlignmentConfig, corner_distance
from thermal_enhance.imaging.alignment_tiles import Found, TileMatcher
from thermal_enhance.imaging.registration import (
    Image,
    Matrix,
    best_shift,
    lit_area,
    orientation_field,
    pixel_matrix,
    resize_to_width,
    shrink_to_width,
    similarity_matrix,
    spectrum,
    unit_matrix,
    warp_to_grid,
)

SEARCH_WIDTH = 80
_SURE = 12.0
"""Evidence at which nothing else needs to be looked at."""
_DISTINCT = 0.04
"""Candidates closer than this, as a share of the width, are one."""
_HOPELESS = 4.5
"""Evidence below which it is not worth going on from a place."""
_RIVAL = 0.8
"""A second candidate with less than this share of the evidence of the first is not pursued."""
_ZOOM_STEP = 0.08
_SIMPLER = {
    "stretch": ("similarity",),
    "affine": ("similarity", "stretch"),
    "homography": ("similarity", "stretch"),
}
"""Simpler models that are tried after each, simplest first."""

_Steps = Generator[None, None, Found]


class AlignmentSearch:
    """Everything that is looked for in one pair.

    Args:
        config: see `AlignmentConfig`.
        thermal: (h, w) float32 in [0, 1].
        luma: (h', w') float32 in [0, 1].
    """

    def __init__(self, config: AlignmentConfig, thermal: Image, luma: Image) -> None:
        self._config = config
        self._thermal = resize_to_width(thermal, SEARCH_WIDTH)
        fine, coarse = shrink_to_width(luma, 4 * SEARCH_WIDTH), shrink_to_width(luma, 2 * SEARCH_WIDTH)
        self._luma, self._lit = coarse, lit_area(coarse)
        self._rough = TileMatcher(thermal, coarse, self._lit, SEARCH_WIDTH, 6, 0.8, config.model)
        self._fine = TileMatcher(thermal, fine, lit_area(fine), 2 * SEARCH_WIDTH, 5, 0.65, config.model)

    def refine(self, start: Matrix) -> Iterator[Found | None]:
        """Start from a matrix that is nearly right; yields None between pieces, at last what was found."""
        found = yield from _finish(self._rough.settle(start, 1.0, 2))
        best = yield from _finish(self._fine.settle(found.matrix, 0.4))
        yield (yield from self._simplest(best))

    def full(self, start: Matrix) -> Iterator[Found | None]:
        """The first guess, then the surroundings, then a wide field of view, until something is sure."""
        best = yield from _finish(self._rough.settle(start, 1.0, 2, _HOPELESS))
        if best.score >= _HOPELESS:
            best = yield from _finish(self._fine.settle(best.matrix, 0.4, 3, _HOPELESS))
        else:
            best = Found(start, 0.0)
        if best.score < _SURE:
            candidates = yield from _candidates(self._coarse(start, self._turns(4.0), self._scales(), 99))
            best = yield from self._best_of(candidates, best)
        if self._config.search_fov > 1.0 and (best.score < self._config.search_full or self._at_limit(best)):
            candidates = yield from _candidates(self._coarse(start, self._turns(5.0), self._zooms(), 6))
            best = yield from self._best_of(candidates, best)
        yield (yield from self._simplest(best))

    def _simplest(self, best: Found) -> _Steps:
        """The simplest explanation that is nearly as good as the best: as it was, moved, stretched, warped.

        Eight free parameters always find a place a little better than the true one: by 5 to 20 % of the
        evidence, at the price of 3 to 7 of 640 pixels at the corners. So the first guess is kept where it
        explains nearly as much (one that is 5 pixels off explains 65 %), then a similarity, then one with a
        scale for each axis, as between two lenses.
        """
        config, guess = self._config, self._config.first_guess()
        if best.score < config.search_from or np.allclose(best.matrix, guess):
            return best
        kept = yield from _finish(self._fine.weigh(guess))
        if kept.score >= config.keep_guess * best.score:
            return Found(guess, best.score)
        aspect = self._thermal.shape[1] / self._thermal.shape[0]
        for model in _SIMPLER.get(config.model, ()):
            start = simplified(best.matrix, guess, aspect, model)
            moved = yield from _finish(self._fine.settle(start, 0.4, 3, model=model))
            if moved.score >= config.keep_simple * best.score and plausible(moved.matrix, config):
                return Found(moved.matrix, best.score)
        return best

    def _at_limit(self, found: Found) -> bool:
        """Has a search that is not sure run into the end of its range of scales?"""
        stretch = zoom_of(found.matrix, self._config.first_guess())
        limit = 1.0 + 0.75 * (self._config.search_scale - 1.0)
        return found.score < _SURE and (stretch.max() > limit or stretch.min() < 1 / limit)

    def _best_of(self, candidates: Sequence[Matrix], best: Found) -> _Steps:
        """Refine all candidates on the rough grid, the two best on the fine one."""
        rough = []
        for candidate in candidates:
            rough.append((yield from _finish(self._rough.match(candidate))))
        rough.sort(key=lambda found: -found.score)
        for found in rough[:2]:
            if found.score < _RIVAL * rough[0].score or best.score >= _SURE:
                break
            settled = yield from _finish(self._rough.settle(found.matrix, 0.6, 2, _HOPELESS))
            fine = yield from _finish(self._fine.settle(settled.matrix, 0.4, 3, _HOPELESS))
            if fine.score > best.score and plausible(fine.matrix, self._config):
                best = fine
        return best

    def _turns(self, step: float) -> NDArray[np.float64]:
        reach = math.radians(self._config.search_rotation_deg)
        return reach * np.linspace(-1, 1, _steps(self._config.search_rotation_deg, step))

    def _scales(self) -> list[tuple[float, float]]:
        reach = math.log(self._config.search_scale)
        return [(scale, scale) for scale in np.exp(np.linspace(-reach, reach, _steps(reach, 0.06)))]

    def _zooms(self) -> list[tuple[float, float]]:
        """Shares of RGB's sides that thermal may cover: both axes, not too different from each other."""
        reach = math.log(self._config.search_fov)
        logs = np.linspace(-reach, 0, math.ceil(reach / _ZOOM_STEP) + 1)
        pairs = [(x, y) for x in logs for y in logs if abs(x - y) < 0.36 and x + y < -0.1]
        return [(math.exp(x), math.exp(y)) for x, y in pairs]

    def _coarse(
        self, start: Matrix, turns: NDArray[np.float64], zooms: Sequence[tuple[float, float]], turned: int
    ) -> Iterator[list[Matrix] | None]:
        """Every zoom, and every turn of the `turned` best, all shifts at once; the few best distinct ones."""
        height, width = self._thermal.shape
        size, source = (width, height), (self._luma.shape[1], self._luma.shape[0])
        base = pixel_matrix(start, size, source)
        field = orientation_field(self._thermal, 1.0)
        mine, energy = spectrum(field), field.energy

        def score(zoom: tuple[float, float], turn: float) -> tuple[float, Matrix]:
            stretch = np.diag([zoom[0], zoom[1], 1.0])
            stretch[:2, 2] = (1 - zoom[0]) * (width - 1) / 2, (1 - zoom[1]) * (height - 1) / 2
            matrix = base @ stretch @ similarity_matrix(size, 1.0, turn, 0.0, 0.0)
            warped, mask = warp_to_grid(self._luma, matrix, size, self._lit)
            theirs = orientation_field(warped, 1.0, mask)
            value, dx, dy = best_shift(mine, energy, theirs, self._config.search_shift)
            return value, matrix @ similarity_matrix(size, 1.0, 0.0, dx, dy)

        found: list[tuple[float, Matrix]] = []
        for zoom in zooms:
            found.append(score(zoom, 0.0))
            yield None
        promising = sorted(range(len(zooms)), key=lambda index: -found[index][0])[:turned]
        for index in promising:
            for turn in turns[np.abs(turns) > 1e-9]:
                found.append(score(zooms[index], float(turn)))
                yield None
        found.sort(key=lambda entry: -entry[0])
        kept: list[Matrix] = []
        for _, matrix in found:
            unit = unit_matrix(matrix, size, source)
            if all(corner_distance(unit, other) > _DISTINCT for other in kept):
                kept.append(unit)
            if len(kept) == self._config.candidates:
                break
        yield kept


def zoom_of(matrix: Matrix, guess: Matrix) -> NDArray[np.float64]:
    """Largest and smallest magnification, in the middle of thermal, of a matrix against the guess."""
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    change = np.linalg.inv(centre) @ np.linalg.inv(guess) @ matrix @ centre
    change = change / change[2, 2]
    derivative = change[:2, :2] - np.outer(change[:2, 2], change[2, :2])
    return np.asarray(np.linalg.svd(derivative, compute_uv=False))


def simplified(matrix: Matrix, guess: Matrix, aspect: float, model: str) -> Matrix:
    """What a simpler model makes of a matrix: the guess moved, turned and scaled as much like it as may be.

    Args:
        matrix: 3x3, thermal to RGB over [0, 1] coordinates.
        guess: the same.
        aspect: width over height of thermal.
        model: "similarity", or "stretch" with a scale for each axis.
    """
    side = np.linspace(-1, 1, 5)
    x, y = (axis.ravel() for axis in np.meshgrid(side, side / aspect))
    centred = np.array([[0.5, 0, 0.5], [0, 0.5 * aspect, 0.5], [0, 0, 1.0]])  # square units, centre at 0
    there = np.linalg.inv(centred) @ np.linalg.inv(guess) @ matrix @ centred @ np.stack([x, y, np.ones(25)])
    there = there[:2] / there[2]
    # Least squares; about the centre, sums of x and of y vanish.
    affine = np.stack([there @ x / (x @ x), there @ y / (y @ y)], axis=1)
    turn, scales = np.linalg.qr(affine)
    turn = turn * np.sign(np.diag(scales))  # a rotation, so that both scales are positive
    sx, sy = np.abs(np.diag(scales))
    if model == "similarity":
        sx = sy = math.sqrt(sx * sy)
    change = np.eye(3)
    change[:2, :2], change[:2, 2] = turn * np.array([sx, sy]), there.mean(axis=1)
    found = guess @ centred @ change @ np.linalg.inv(centred)
    return np.asarray(found / found[2, 2])


def plausible(matrix: Matrix, config: AlignmentConfig) -> bool:
    """Within the search range of the first guess, and nearly free of perspective?"""
    if not np.isfinite(matrix).all() or np.abs(matrix[2, :2]).max() > config.max_perspective:
        return False
    stretch = zoom_of(matrix, config.first_guess())
    # Beyond the searched scale by what a wedge of perspective adds.
    slack = 1.15 * config.search_scale
    return bool(stretch.max() < slack and stretch.min() > 1 / max(slack, 1.15 * config.search_fov))


def _finish(job: Iterator[Found | None]) -> _Steps:
    """Hand on the pauses of a job; return its result."""
    for found in job:
        if found is not None:
            return found
        yield None
    raise RuntimeError("a job ended without a result")


def _candidates(job: Iterator[list[Matrix] | None]) -> Generator[None, None, list[Matrix]]:
    for found in job:
        if found is not None:
            return found
        yield None
    raise RuntimeError("a job ended without a result")


def _steps(reach: float, step: float) -> int:
    return 2 * math.ceil(reach / step) + 1
