from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from thermal_enhance.imaging.raw import CompressedImage, RawImage
from thermal_enhance.nodes import cdr
from thermal_enhance.nodes.bags import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    STRING,
    BagError,
    BagReader,
    BagWriter,
    find_camera_topics,
    open_bag,
    write_bag,
)
from thermal_enhance.nodes.recordings import is_bag, open_recording

START = 1_700_000_000_000_000_000
STANDALONE = hasattr(Reader, "STORAGE_PLUGINS") and ".mcap" in Reader.STORAGE_PLUGINS


def image(stamp_ns: int = START, encoding: str = "mono16") -> bytes:
    return cdr.serialize_image(RawImage(stamp_ns, "cam", 1, 2, encoding, False, 4, b"\1\0\2\0"))


def compressed(form: str) -> bytes:
    return cdr.serialize_compressed_image(CompressedImage(START, "cam", form, b"x"))


def make_bag(path: Path, **options: object) -> list[tuple[str, int, bytes]]:
    messages = [("/thermal/image_raw", START + i * 10**8, image(START + i * 10**8)) for i in range(5)]
    messages.insert(2, ("/thermal/units", START + 15 * 10**7, cdr.serialize_string("kelvin")))
    write_bag(path, {"/thermal/image_raw": IMAGE, "/thermal/units": STRING}, messages, **options)
    return messages


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("compress", [False, True])
def test_round_trip(tmp_path: Path, storage: str, compress: bool) -> None:
    messages = make_bag(
        tmp_path / "bag", storage=storage, compress=compress, custom_data={"thermal_units": "kelvin"}
    )
    with open_bag(tmp_path / "bag") as bag:
        assert [(m.topic, m.timestamp_ns, m.data) for m in bag.messages()] == messages
        assert {name: (t.msgtype, t.count) for name, t in bag.topics.items()} == {
            "/thermal/image_raw": (IMAGE, 5),
            "/thermal/units": (STRING, 1),
        }
        assert all(t.reliable for t in bag.topics.values())
        assert (bag.start_ns, bag.end_ns, bag.duration_ns, bag.message_count) == (
            START,
            START + 4 * 10**8,
            4 * 10**8,
            6,
        )
        assert bag.custom_data == {"thermal_units": "kelvin"}
        part = bag.messages(["/thermal/image_raw"], START + 10**8, START + 3 * 10**8)
        assert [m.timestamp_ns - START for m in part] == [10**8, 2 * 10**8]
        assert list(bag.messages(["/nothing"])) == []
        first = bag.first_message("/thermal/units")
        assert first is not None and cdr.parse_string(first.data) == "kelvin"
        assert bag.first_message("/nothing") is None
    # The folder appears whole, with nothing left beside it.
    assert [p.name for p in tmp_path.iterdir()] == ["bag"]


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_parts_begin_and_end_exactly(tmp_path: Path, storage: str) -> None:
    # Messages so large that MCAP gives each a chunk of its own.
    big = cdr.serialize_string("x" * 2**20)
    write_bag(tmp_path / "bag", {"/s": STRING}, [("/s", START + i, big) for i in range(4)], storage=storage)
    bag = BagReader(tmp_path / "bag")
    for start in range(5):
        for stop in range(start, 5):
            part = [m.timestamp_ns - START for m in bag.messages(None, START + start, START + stop)]
            assert part == list(range(start, min(stop, 4)))
    assert [m.timestamp_ns - START for m in bag.messages(None, bag.start_ns, bag.end_ns + 1)] == [0, 1, 2, 3]


def test_qos_is_kept(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", IMAGE, reliable=False)
        writer.add_topic("/b", STRING, latched=True)
        writer.write("/b", START, cdr.serialize_string("x"))
    topics = BagReader(tmp_path / "bag").topics
    assert (topics["/a"].reliable, topics["/a"].latched, topics["/a"].count) == (False, False, 0)
    assert (topics["/b"].reliable, topics["/b"].latched, topics["/b"].count) == (True, True, 1)


def test_types_and_hashes_are_those_of_ros(tmp_path: Path) -> None:
    make_bag(tmp_path / "bag")
    store = get_typestore(Stores.ROS2_JAZZY)
    with Reader(tmp_path / "bag") as reader:
        found = {c.msgtype: (c.digest, c.msgdef.data) for c in reader.connections}
    assert found[IMAGE][0] == store.hash_rihs01(IMAGE)
    assert "uint8[] data" in found[IMAGE][1]


@pytest.mark.skipif(not STANDALONE, reason="rosbags before 0.11 reads no storage files alone")
@pytest.mark.parametrize("storage, suffix", [("mcap", ".mcap"), ("sqlite3", ".db3")])
def test_one_file_without_metadata(tmp_path: Path, storage: str, suffix: str) -> None:
    messages = make_bag(tmp_path / "bag", storage=storage)
    lone = tmp_path / f"lone{suffix}"
    shutil.copy(tmp_path / "bag" / f"bag{suffix}", lone)
    assert [(m.topic, m.timestamp_ns, m.data) for m in BagReader(lone).messages()] == messages
    # A folder that lost its metadata but has one file is as good.
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert BagReader(tmp_path / "bag").message_count == 6


@pytest.mark.parametrize("storage, suffix", [("mcap", ".mcap"), ("sqlite3", ".db3")])
def test_a_file_in_its_bag_knows_what_the_folder_knows(tmp_path: Path, storage: str, suffix: str) -> None:
    make_bag(tmp_path / "bag", storage=storage, custom_data={"thermal_units": "counts"})
    bag = BagReader(tmp_path / "bag" / f"bag{suffix}")
    assert bag.custom_data == {"thermal_units": "counts"}
    assert bag.topics["/thermal/image_raw"].reliable


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_compressed_recordings(tmp_path: Path, mode: CompressionMode) -> None:
    store = get_typestore(Stores.ROS2_JAZZY)
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/i", IMAGE, typestore=store)
        writer.write(connection, START, image())
    with BagReader(tmp_path / "bag") as bag:
        assert [m.data for m in bag.messages()] == [image()]
        assert [m.data for m in bag.messages()] == [image()]
    file = next(p for p in (tmp_path / "bag").iterdir() if p.name != "metadata.yaml")
    assert [m.data for m in BagReader(file).messages()] == [image()]
    (tmp_path / "bag" / "metadata.yaml").unlink()
    with pytest.raises(BagError, match=r"reindex|bag folder"):
        list(BagReader(file).messages())


def test_missing_and_damaged_recordings_are_named(tmp_path: Path) -> None:
    with pytest.raises(BagError, match=r"nope: no such bag"):
        BagReader(tmp_path / "nope")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match=r"empty: no metadata.yaml and no .mcap"):
        BagReader(tmp_path / "empty")
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(BagError, match="rosbags-convert"):
        BagReader(tmp_path / "old.bag")
    for text in ("{", "rosbag2_bagfile_information:\n", "a: b\n", ""):
        broken = tmp_path / "broken"
        broken.mkdir(exist_ok=True)
        (broken / "metadata.yaml").write_text(text)
        with pytest.raises(BagError, match=r"broken: cannot be read .*reindex"):
            BagReader(broken)


@pytest.mark.parametrize("storage, suffix", [("mcap", ".mcap"), ("sqlite3", ".db3")])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_cut_off_recordings_end_in_a_bag_error(
    tmp_path: Path, storage: str, suffix: str, share: float
) -> None:
    make_bag(tmp_path / "bag", storage=storage)
    file = tmp_path / "bag" / f"bag{suffix}"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BagError, match="cannot be read"):
        list(BagReader(tmp_path / "bag").messages())


def test_garbage_inside_ends_in_a_bag_error_or_in_messages(tmp_path: Path) -> None:
    make_bag(tmp_path / "bag", compress=True)
    file = tmp_path / "bag" / "bag.mcap"
    content = bytearray(file.read_bytes())
    failures = 0
    for at in range(8, len(content) - 8, 97):
        damaged = bytearray(content)
        damaged[at : at + 4] = b"\xff\xff\xff\x7f"
        file.write_bytes(damaged)
        try:
            list(BagReader(tmp_path / "bag").messages())
        except BagError:
            failures += 1
    assert failures > 3


def test_writer_leaves_other_things_alone(tmp_path: Path) -> None:
    make_bag(tmp_path / "bag")
    with pytest.raises(BagError, match="--force"):
        BagWriter(tmp_path / "bag")
    with pytest.raises(BagError, match=r"leave the \.mcap off"):
        BagWriter(tmp_path / "x.mcap")
    with pytest.raises(BagError, match="storage"):
        BagWriter(tmp_path / "x", storage="rosbag")
    make_bag(tmp_path / "bag", force=True, storage="sqlite3")
    assert (tmp_path / "bag" / "bag.db3").exists() and not (tmp_path / "bag" / "bag.mcap").exists()
    (tmp_path / "bag" / "thesis.txt").write_text("do not lose me")
    with pytest.raises(BagError, match="left alone"):
        BagWriter(tmp_path / "bag", force=True)
    with pytest.raises(BagError, match="definition"), BagWriter(tmp_path / "new") as writer:
        writer.add_topic("/x", "my_msgs/msg/Unknown")
    with pytest.raises(BagError, match="not announced"), BagWriter(tmp_path / "new") as writer:
        writer.write("/x", 0, b"")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bag"]


def test_own_types_come_with_their_definition(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/x", "my_msgs/msg/Unknown", definition="int32 a\n", type_hash="RIHS01_" + "0" * 64)
        writer.write("/x", START, b"\0\1\0\0\1\0\0\0")
    assert BagReader(tmp_path / "bag").topics["/x"].msgtype == "my_msgs/msg/Unknown"


def camera_bag(path: Path, topics: dict[str, bytes | None]) -> BagReader:
    """A bag with one message a topic; the type follows from the name and the content."""
    with BagWriter(path, force=True) as writer:
        for name, data in topics.items():
            kind = COMPRESSED_IMAGE if name.endswith("compressed") else IMAGE
            writer.add_topic(name, CAMERA_INFO if data is None else kind)
            writer.write(name, START, data or cdr.serialize_camera_info(cdr.CameraInfoData()))
    return BagReader(path)


MONO16, RGB8, MONO8 = image(), image(encoding="rgb8"), image(encoding="mono8")


@pytest.mark.parametrize(
    "topics, thermal, rgb",
    [
        ({"/thermal/image_raw": MONO16, "/rgb/image_raw": RGB8}, "/thermal/image_raw", "/rgb/image_raw"),
        (
            {"/flir_boson/image_raw": MONO16, "/camera/image_raw": RGB8},
            "/flir_boson/image_raw",
            "/camera/image_raw",
        ),
        ({"/cam0/image_raw": MONO16, "/cam1/image_raw": RGB8}, "/cam0/image_raw", "/cam1/image_raw"),
        ({"/thermal/image_raw": MONO8}, "/thermal/image_raw", ""),
        # Depth is 16 bit too; a colour-mapped view is no thermal camera; raw goes before compressed.
        (
            {
                "/depth/image": MONO16,
                "/ir/image_raw": MONO16,
                "/thermal/view": RGB8,
                "/color/image_raw": RGB8,
            },
            "/ir/image_raw",
            "/color/image_raw",
        ),
        (
            {
                "/thermal/image_raw": MONO16,
                "/thermal/image_raw/compressed": compressed("mono16; png compressed "),
            },
            "/thermal/image_raw",
            "",
        ),
        (
            {
                "/lepton/image/compressed": compressed("jpeg"),
                "/rgb/image/compressed": compressed("rgb8; jpeg ..."),
            },
            "/lepton/image/compressed",
            "/rgb/image/compressed",
        ),
        (
            {
                "/thermal/image_raw": MONO16,
                "/thermal/image_rect": MONO16,
                "/thermal/enhanced/image_raw": MONO16,
            },
            "/thermal/image_raw",
            "",
        ),
        ({"/thermal/image_raw": b"\0\1\0\0 not an image"}, "/thermal/image_raw", ""),
    ],
)
def test_cameras_are_found(tmp_path: Path, topics: dict[str, bytes | None], thermal: str, rgb: str) -> None:
    found = find_camera_topics(camera_bag(tmp_path / "bag", topics))
    assert (found.thermal, found.rgb) == (thermal, rgb)


def test_camera_info_beside_the_image(tmp_path: Path) -> None:
    bag = camera_bag(
        tmp_path / "bag",
        {
            "/thermal/image_raw": MONO16,
            "/thermal/camera_info": None,
            "/rgb/image/compressed": compressed("rgb8; jpeg compressed bgr8"),
            "/rgb/camera_info": None,
        },
    )
    found = find_camera_topics(bag)
    assert (found.thermal_info, found.rgb_info) == ("/thermal/camera_info", "/rgb/camera_info")
    assert find_camera_topics(bag, rgb="none").rgb == ""


def test_doubt_is_an_error_that_lists_the_topics(tmp_path: Path) -> None:
    bag = camera_bag(
        tmp_path / "bag", {"/ir_left/image_raw": MONO16, "/ir_right/image_raw": MONO16, "/x": RGB8}
    )
    with pytest.raises(
        BagError, match=r"/ir_left/image_raw, /ir_right/image_raw.*thermal_topic.*/x \(rgb8\)"
    ):
        find_camera_topics(bag)
    assert find_camera_topics(bag, thermal="ir_right/image_raw").thermal == "/ir_right/image_raw"
    with pytest.raises(BagError, match="not an image topic"):
        find_camera_topics(bag, thermal="/nope")
    with pytest.raises(BagError, match=r"rgb_topic.*not an image topic"):
        find_camera_topics(bag, thermal="/ir_left/image_raw", rgb="/nope")
    bag = camera_bag(tmp_path / "bag2", {"/rgb/image_raw": RGB8})
    with pytest.raises(BagError, match="no thermal camera"):
        find_camera_topics(bag)


def test_bags_are_told_from_frames(tmp_path: Path) -> None:
    make_bag(tmp_path / "bag")
    (tmp_path / "frames").mkdir()
    assert is_bag(tmp_path / "bag") and is_bag(tmp_path / "bag" / "bag.mcap")
    assert not is_bag(tmp_path / "frames")
    with pytest.raises(BagError, match="neither a bag nor frames"):
        open_recording(tmp_path / "frames")
    with pytest.raises(BagError, match="no such bag"):
        open_recording(tmp_path / "nope")
