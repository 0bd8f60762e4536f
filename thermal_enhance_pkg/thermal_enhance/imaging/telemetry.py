"""Telemetry rows that some thermal cameras append to their pictures, and the FLIR Lepton's in particular.

A Lepton with telemetry on sends rows A, B and C of 80 words each: 80x63 from a Lepton 2, 160x122 (A and B
in the first row) from a Lepton 3 on a PureThermal board. Layout: FLIR Lepton Engineering Datasheet
500-0659-00-09 rev 203, section 3.4, tables 2 (rows) and 3 (status bits).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from thermal_enhance.imaging.frames import FfcState

_ROW_WORDS = 80
# Words of row A.
_REVISION, _TIME, _STATUS, _SERIAL, _SOFTWARE = 0, 1, 3, 5, 13
_FRAME_COUNTER, _FRAME_MEAN, _FPA_COUNTS, _FPA, _HOUSING_COUNTS, _HOUSING = 20, 22, 23, 24, 25, 26
_FFC_FPA, _FFC_TIME, _FFC_HOUSING = 29, 30, 32
# Words of row C, counted from the start of row A.
_TLINEAR, _TLINEAR_RESOLUTION = 2 * _ROW_WORDS + 48, 2 * _ROW_WORDS + 49

_FFC_DESIRED, _FFC_STATE, _AGC, _LOCKOUT, _OVERTEMP = 3, 4, 12, 15, 20
_STATUS_RESERVED = 0xFFE00000
"""Status bits 21 to 31, reserved and zero: they tell telemetry from pixels, which hardly are below 32."""
_PLAUSIBLE_CENTIKELVIN = (20315, 42315)
"""-70 to 150 degrees Celsius: beyond any state in which the sensor still sends."""


@dataclass(frozen=True)
class LeptonTelemetry:
    """What a Lepton says of itself with each frame.

    Attributes:
        revision: telemetry revision; major in the lower byte, minor in the upper, as sent.
        time_counter_ms: time since boot, milliseconds, 32 bits.
        ffc_desired: the camera asks for a flat-field correction.
        ffc_state: shutter state.
        agc_enabled: the pixels are gain-controlled, not radiometric.
        shutter_lockout: too hot or cold for the shutter to move.
        overtemp_imminent: the camera shuts down within 10 s.
        serial: module serial number, 8 words as sent.
        software_revision: 4 words as sent.
        frame_counter: frames since boot, 32 bits. Equal counters are one frame sent again.
        frame_mean: mean of the frame, counts.
        fpa_counts: focal plane array temperature sensor, counts.
        fpa_centikelvin: focal plane array temperature, hundredths of a kelvin.
        housing_counts: housing temperature sensor, counts.
        housing_centikelvin: housing temperature, hundredths of a kelvin.
        ffc_fpa_centikelvin: focal plane array temperature at the last FFC.
        ffc_time_ms: time counter at the last FFC, milliseconds.
        ffc_housing_centikelvin: housing temperature at the last FFC.
        tlinear: pixels are temperatures; None where row C was not sent.
        tlinear_resolution_k: kelvin a count while `tlinear`, 0.1 or 0.01; None where row C was not sent.
    """

    revision: int = 0x000E
    time_counter_ms: int = 0
    ffc_desired: bool = False
    ffc_state: FfcState = FfcState.NEVER
    agc_enabled: bool = False
    shutter_lockout: bool = False
    overtemp_imminent: bool = False
    serial: tuple[int, ...] = (0,) * 8
    software_revision: tuple[int, ...] = (0,) * 4
    frame_counter: int = 0
    frame_mean: int = 0
    fpa_counts: int = 0
    fpa_centikelvin: int = 30315
    housing_counts: int = 0
    housing_centikelvin: int = 30015
    ffc_fpa_centikelvin: int = 0
    ffc_time_ms: int = 0
    ffc_housing_centikelvin: int = 0
    tlinear: bool | None = None
    tlinear_resolution_k: float | None = None

    def __post_init__(self) -> None:
        long = {"time_counter_ms", "frame_counter", "ffc_time_ms"}
        for item in fields(self):
            value = getattr(self, item.name)
            if type(value) is int and not 0 <= value < (1 << (32 if item.name in long else 16)):
                raise ValueError(f"{item.name} must fit {32 if item.name in long else 16} bits, not {value}")
        for name, words in (("serial", 8), ("software_revision", 4)):
            value = getattr(self, name)
            if len(value) != words or not all(0 <= word <= 0xFFFF for word in value):
                raise ValueError(f"{name} must be {words} 16-bit words, not {value}")
        if self.tlinear_resolution_k not in (None, 0.1, 0.01):
            raise ValueError(f"tlinear_resolution_k must be 0.1 or 0.01, not {self.tlinear_resolution_k}")
        if (self.tlinear is None) != (self.tlinear_resolution_k is None):
            raise ValueError("tlinear and tlinear_resolution_k must both be set, or neither")

    @property
    def status_bits(self) -> int:
        """The 32 status bits (datasheet table 3)."""
        return (
            self.ffc_desired << _FFC_DESIRED
            | int(self.ffc_state) << _FFC_STATE
            | self.agc_enabled << _AGC
            | self.shutter_lockout << _LOCKOUT
            | self.overtemp_imminent << _OVERTEMP
        )


def _long(words: NDArray, at: int) -> int:
    # 32-bit values come least significant word first, although the datasheet's words are big-endian.
    return int(words[at]) | int(words[at + 1]) << 16


def parse_lepton(rows: NDArray | None) -> LeptonTelemetry | None:
    """Read a Lepton's telemetry rows.

    Args:
        rows: (n, width) uint16 as split off the image, row A first; width 80, 160 or a multiple of 80.

    Returns:
        The telemetry, or None where the rows cannot be a Lepton's: wrong type or width, status bits that
        are never set, a sensor temperature outside -70 to 150 degrees Celsius, or a last FFC in the future.
    """
    if rows is None or rows.ndim != 2 or rows.dtype != np.uint16:
        return None
    if rows.shape[0] < 1 or rows.shape[1] < _ROW_WORDS or rows.shape[1] % _ROW_WORDS:
        return None
    words = rows.reshape(-1)
    status = _long(words, _STATUS)
    low, high = _PLAUSIBLE_CENTIKELVIN
    if status & _STATUS_RESERVED or not low <= words[_FPA] <= high:
        return None
    if _long(words, _FFC_TIME) > _long(words, _TIME):
        return None
    has_row_c = words.size >= 3 * _ROW_WORDS
    return LeptonTelemetry(
        revision=int(words[_REVISION]),
        time_counter_ms=_long(words, _TIME),
        ffc_desired=bool(status >> _FFC_DESIRED & 1),
        ffc_state=FfcState(status >> _FFC_STATE & 3),
        agc_enabled=bool(status >> _AGC & 1),
        shutter_lockout=bool(status >> _LOCKOUT & 1),
        overtemp_imminent=bool(status >> _OVERTEMP & 1),
        serial=tuple(int(word) for word in words[_SERIAL : _SERIAL + 8]),
        software_revision=tuple(int(word) for word in words[_SOFTWARE : _SOFTWARE + 4]),
        frame_counter=_long(words, _FRAME_COUNTER),
        frame_mean=int(words[_FRAME_MEAN]),
        fpa_counts=int(words[_FPA_COUNTS]),
        fpa_centikelvin=int(words[_FPA]),
        housing_counts=int(words[_HOUSING_COUNTS]),
        housing_centikelvin=int(words[_HOUSING]),
        ffc_fpa_centikelvin=int(words[_FFC_FPA]),
        ffc_time_ms=_long(words, _FFC_TIME),
        ffc_housing_centikelvin=int(words[_FFC_HOUSING]),
        tlinear=bool(words[_TLINEAR]) if has_row_c else None,
        tlinear_resolution_k=(0.01 if words[_TLINEAR_RESOLUTION] else 0.1) if has_row_c else None,
    )


def lepton_ffc_state(rows: NDArray | None) -> FfcState | None:
    """Shutter state told by a Lepton's telemetry rows, or None where they are not a Lepton's."""
    telemetry = parse_lepton(rows)
    return None if telemetry is None else telemetry.ffc_state


def encode_lepton(telemetry: LeptonTelemetry, width: int, rows: int = 2) -> NDArray[np.uint16]:
    """Write telemetry rows as a Lepton does; `parse_lepton` reads them back.

    Args:
        telemetry: what to write. TLinear is written only where row C fits, into 240 words.
        width: image width, a multiple of 80.
        rows: rows to write: 2 for a Lepton 3 (160 wide), 3 for a Lepton 2 (80 wide).

    Returns:
        (rows, width) uint16, row A first; reserved words are zero.

    Raises:
        ValueError: `width` or `rows` is not possible.
    """
    if width < _ROW_WORDS or width % _ROW_WORDS or rows < 1:
        raise ValueError(
            f"width must be a multiple of {_ROW_WORDS} and rows at least 1, not {width} and {rows}"
        )
    words = np.zeros(rows * width, np.uint16)

    def put_long(at: int, value: int) -> None:
        words[at], words[at + 1] = value & 0xFFFF, value >> 16

    words[_REVISION] = telemetry.revision
    put_long(_TIME, telemetry.time_counter_ms)
    put_long(_STATUS, telemetry.status_bits)
    words[_SERIAL : _SERIAL + 8] = telemetry.serial
    words[_SOFTWARE : _SOFTWARE + 4] = telemetry.software_revision
    put_long(_FRAME_COUNTER, telemetry.frame_counter)
    words[_FRAME_MEAN] = telemetry.frame_mean
    words[_FPA_COUNTS], words[_FPA] = telemetry.fpa_counts, telemetry.fpa_centikelvin
    words[_HOUSING_COUNTS], words[_HOUSING] = telemetry.housing_counts, telemetry.housing_centikelvin
    words[_FFC_FPA], words[_FFC_HOUSING] = telemetry.ffc_fpa_centikelvin, telemetry.ffc_housing_centikelvin
    put_long(_FFC_TIME, telemetry.ffc_time_ms)
    if telemetry.tlinear is not None and words.size >= 3 * _ROW_WORDS:
        words[_TLINEAR] = telemetry.tlinear
        words[_TLINEAR_RESOLUTION] = telemetry.tlinear_resolution_k == 0.01
    return words.reshape(rows, width)


def split_telemetry(data: NDArray, rows: int, position: str = "footer") -> tuple[NDArray, NDArray | None]:
    """Split a frame into picture and telemetry rows.

    Whether a frame has telemetry rows at all is for the caller to know, from its height.

    Args:
        data: (H, W) frame of any dtype.
        rows: number of telemetry rows; 0 for none.
        position: "footer", "header", or "auto": wherever rows that read as a Lepton's are, footer if
            neither end has them. Prefer to name it: a frame with damaged telemetry is split right then too.

    Returns:
        (H - rows, W) picture and (rows, W) telemetry, both views of `data`; None for no rows.

    Raises:
        ValueError: `position` is unknown, or `rows` leaves no picture.
    """
    if position not in ("footer", "header", "auto"):
        raise ValueError(f"position must be footer, header or auto, not {position!r}")
    if not 0 <= rows < data.shape[0]:
        raise ValueError(
            f"telemetry rows must be 0 to {data.shape[0] - 1} for {data.shape[0]} rows, not {rows}"
        )
    if rows == 0:
        return data, None
    if position == "auto":
        in_footer = parse_lepton(data[-rows:]) is not None
        position = "header" if not in_footer and parse_lepton(data[:rows]) is not None else "footer"
    if position == "header":
        return data[rows:], data[:rows]
    return data[:-rows], data[-rows:]
