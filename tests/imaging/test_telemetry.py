import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from thermal_enhance.imaging.frames import FfcState
from thermal_enhance.imaging.telemetry import (
    LeptonTelemetry,
    encode_lepton,
    lepton_ffc_state,
    parse_lepton,
    split_telemetry,
)

word = st.integers(0, 0xFFFF)
long = st.integers(0, 0xFFFFFFFF)
times = st.tuples(long, long).map(sorted)
LEPTON2, LEPTON3 = (80, 3), (160, 2)


@st.composite
def telemetries(draw):
    ffc_time, now = draw(times)
    tlinear = draw(st.none() | st.booleans())
    return LeptonTelemetry(
        revision=draw(word),
        time_counter_ms=now,
        ffc_desired=draw(st.booleans()),
        ffc_state=draw(st.sampled_from(FfcState)),
        agc_enabled=draw(st.booleans()),
        shutter_lockout=draw(st.booleans()),
        overtemp_imminent=draw(st.booleans()),
        serial=tuple(draw(st.lists(word, min_size=8, max_size=8))),
        software_revision=tuple(draw(st.lists(word, min_size=4, max_size=4))),
        frame_counter=draw(long),
        frame_mean=draw(word),
        fpa_counts=draw(word),
        fpa_centikelvin=draw(st.integers(22315, 39315)),
        housing_counts=draw(word),
        housing_centikelvin=draw(word),
        ffc_fpa_centikelvin=draw(word),
        ffc_time_ms=ffc_time,
        ffc_housing_centikelvin=draw(word),
        tlinear=tlinear,
        tlinear_resolution_k=None if tlinear is None else draw(st.sampled_from([0.1, 0.01])),
    )


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(7000, 9000, (height, width), np.uint16)


@settings(deadline=None)
@given(telemetry=telemetries(), shape=st.sampled_from([LEPTON2, LEPTON3]))
def test_round_trip(telemetry, shape):
    assume(telemetry.tlinear is not None)
    width, rows = shape
    written = encode_lepton(telemetry, width, rows)
    assert written.shape == (rows, width) and written.dtype == np.uint16
    assert parse_lepton(written) == telemetry


@settings(deadline=None)
@given(telemetry=telemetries())
def test_row_a_alone(telemetry):
    got = parse_lepton(encode_lepton(telemetry, 80, 1))
    assert got is not None and got.tlinear is None
    assert (got.status_bits, got.frame_counter) == (telemetry.status_bits, telemetry.frame_counter)
    assert lepton_ffc_state(encode_lepton(telemetry, 80, 1)) is telemetry.ffc_state


def test_layout_of_the_datasheet():
    rows = encode_lepton(
        LeptonTelemetry(
            time_counter_ms=0x00012345,
            ffc_desired=True,
            ffc_state=FfcState.IN_PROGRESS,
            overtemp_imminent=True,
            frame_counter=0x000A0009,
            fpa_centikelvin=30115,
            housing_centikelvin=29915,
            ffc_time_ms=0x00010002,
            tlinear=True,
            tlinear_resolution_k=0.01,
        ),
        160,
    )
    words = rows.ravel()
    # 32-bit values are sent least significant word first.
    assert (words[1], words[2]) == (0x2345, 0x0001)
    assert (words[3], words[4]) == (1 << 3 | 2 << 4, 1 << (20 - 16))
    assert (words[20], words[21]) == (9, 10)
    assert (words[24], words[26]) == (30115, 29915)
    assert (words[30], words[31]) == (2, 1)
    # Row C is the second row's first half on a Lepton 3.
    assert (rows[1, 48], rows[1, 49]) == (1, 1)


@pytest.mark.parametrize("state", FfcState)
def test_ffc_states(state):
    assert lepton_ffc_state(encode_lepton(LeptonTelemetry(ffc_state=state), 160)) is state


@settings(deadline=None)
@given(seed=st.integers(0, 999), low=st.integers(33, 40000), shape=st.sampled_from([LEPTON2, LEPTON3]))
def test_pictures_are_not_taken_for_telemetry(seed, low, shape):
    width, rows = shape
    pixels = np.random.default_rng(seed).integers(low, low + 2000, (rows, width), np.uint16)
    assert parse_lepton(pixels) is None
    assert parse_lepton(np.full((rows, width), low, np.uint16)) is None


def test_what_is_no_telemetry():
    good = encode_lepton(LeptonTelemetry(), 160)
    assert parse_lepton(good) is not None
    assert parse_lepton(None) is None and lepton_ffc_state(None) is None
    assert parse_lepton(np.zeros((2, 160), np.uint16)) is None
    assert parse_lepton(good.astype(np.float32)) is None
    assert parse_lepton(good[:, :70]) is None and parse_lepton(good[0]) is None
    future_ffc = good.copy()
    future_ffc[0, 31] = 5
    assert parse_lepton(future_ffc) is None


@settings(deadline=None)
@given(
    rows=st.integers(0, 3),
    height=st.integers(4, 9),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    position=st.sampled_from(["footer", "header", "auto"]),
)
def test_split_keeps_every_row_once(rows, height, dtype, position):
    data = np.arange(height * 5).reshape(height, 5).astype(dtype)
    image, telemetry = split_telemetry(data, rows, position)
    assert image.shape == (height - rows, 5) and np.shares_memory(image, data)
    if rows == 0:
        assert telemetry is None
    else:
        parts = [telemetry, image] if position == "header" else [image, telemetry]
        np.testing.assert_array_equal(np.vstack(parts), data)


@pytest.mark.parametrize("shape", [LEPTON2, LEPTON3])
def test_auto_finds_header_and_footer(shape):
    width, rows = shape
    pixels, telemetry = picture(60, width), encode_lepton(LeptonTelemetry(frame_counter=7), width, rows)
    for parts in ([pixels, telemetry], [telemetry, pixels]):
        image, found = split_telemetry(np.vstack(parts), rows, "auto")
        np.testing.assert_array_equal(image, pixels)
        assert parse_lepton(found).frame_counter == 7
    image, _ = split_telemetry(np.vstack([pixels, pixels[:rows]]), rows, "auto")
    np.testing.assert_array_equal(image, pixels)
    both = np.vstack([encode_lepton(LeptonTelemetry(), width, rows), pixels, telemetry])
    assert parse_lepton(split_telemetry(both, rows, "auto")[1]).frame_counter == 7


def test_split_names_what_is_wrong():
    data = picture(4, 80)
    with pytest.raises(ValueError, match="position"):
        split_telemetry(data, 1, "left")
    for rows in (-1, 4, 9):
        with pytest.raises(ValueError, match="rows"):
            split_telemetry(data, rows)
    for width, rows in ((100, 2), (0, 2), (80, 0)):
        with pytest.raises(ValueError, match="width"):
            encode_lepton(LeptonTelemetry(), width, rows)


@pytest.mark.parametrize(
    "fields",
    [
        {"frame_counter": 1 << 32},
        {"fpa_centikelvin": 1 << 16},
        {"revision": -1},
        {"serial": (1, 2)},
        {"software_revision": (0, 0, 0, 1 << 16)},
        {"tlinear": True},
        {"tlinear": True, "tlinear_resolution_k": 0.5},
    ],
)
def test_telemetry_must_fit_its_words(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        LeptonTelemetry(**fields)
