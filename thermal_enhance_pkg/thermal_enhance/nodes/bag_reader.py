"""Reads rosbag2 recordings (MCAP or sqlite3) without ROS: rosbags does it, messages stay serialized."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rosbags.interfaces import Qos, QosDurability, QosReliability
from rosbags.rosbag2 import Reader

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
STRING = "std_msgs/msg/String"

STORAGE_SUFFIXES = (".mcap", ".db3")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


class BagError(RuntimeError):
    """A recording that cannot be read or written; the message names the file and what to do."""


@dataclass(frozen=True)
class BagTopic:
    """One topic of a recording.

    Attributes:
        msgtype: "package/msg/Name".
        count: messages recorded.
        reliable: did its publisher offer reliability? None where the recording does not say.
        latched: was it delivered to late joiners (transient local)?
    """

    msgtype: str
    count: int
    reliable: bool | None = None
    latched: bool = False


class BagMessage(NamedTuple):
    """One recorded message."""

    timestamp_ns: int
    topic: str
    msgtype: str
    data: bytes


class BagReader:
    """A rosbag2 recording: a bag folder, or one .mcap or .db3 file.

    A file inside a bag folder is read through the folder's metadata.yaml where that names only this file,
    since QoS, units and compression are written there. Each thread reads through files of its own, so that
    one may look while another plays. A context manager; `close` gives the files back.

    Args:
        path: bag folder or storage file.

    Attributes:
        path: as given.
        topics: {name: BagTopic}.
        start_ns: time of the first message (0 in an empty recording).
        end_ns: time of the last message.
        message_count: number of messages.
        custom_data: what the writer noted about the recording as a whole ({name: text}).

    Raises:
        BagError: missing, damaged or of a kind rosbags cannot read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._target = storage_path(self.path)
        self._readers: dict[int, Any] = {}
        reader = self._reader()
        self.topics = _topics(reader)
        self.message_count = int(reader.message_count)
        self.start_ns = int(reader.start_time) if self.message_count else 0
        self.end_ns = int(reader.end_time) - 1 if self.message_count else 0
        self.custom_data = _custom_data(reader)

    def __enter__(self) -> BagReader:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; nobody may be reading."""
        for reader in self._readers.values():
            with contextlib.suppress(Exception):
                reader.close()
        self._readers = {}

    @property
    def duration_ns(self) -> int:
        """Time from the first to the last message."""
        return self.end_ns - self.start_ns

    def messages(
        self, topics: Sequence[str] | None = None, start_ns: int | None = None, stop_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """The messages in order of time, serialized as they were recorded.

        Args:
            topics: only these topics; all by default.
            start_ns: only messages at or after this time.
            stop_ns: only messages before this time.

        Raises:
            BagError: the recording is damaged from here on.
        """
        reader = self._reader()
        chosen = [c for c in reader.connections if topics is None or c.topic in topics]
        if not chosen:  # rosbags takes an empty choice for all topics
            return
        # rosbags 0.10 loses an MCAP chunk that ends exactly at `start`: ask for more, and look again below.
        early = None if start_ns is None else start_ns - 1
        messages = reader.messages(connections=chosen, start=early, stop=stop_ns)
        while True:
            try:
                connection, timestamp_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:
                raise _damaged(self.path, error) from error
            if start_ns is not None and timestamp_ns < start_ns:
                continue
            if data[:4] == _ZSTD_MAGIC:
                raise BagError(
                    f"{self.path}: its messages are compressed one by one, which only metadata.yaml "
                    "tells: open the bag folder, or run `ros2 bag reindex` on it"
                )
            yield BagMessage(timestamp_ns, connection.topic, connection.msgtype, bytes(data))

    def first_message(self, topic: str) -> BagMessage | None:
        """The first message of `topic`; None where there is none."""
        return next(self.messages([topic]), None)

    def _reader(self) -> Any:
        """The rosbags reader of this thread: sqlite and file positions are not shared between threads."""
        thread = threading.get_ident()
        if thread not in self._readers:
            try:
                reader = Reader(self._target)
                reader.open()
            except Exception as error:
                raise _damaged(self.path, error) from error
            self._readers[thread] = reader
        return self._readers[thread]


def _damaged(path: Path, error: Exception) -> BagError:
    reason = " ".join(str(error).split()) or type(error).__name__  # YAML errors come in many lines
    return BagError(
        f"{path}: cannot be read as a rosbag2 recording ({reason}). If the recording was cut off, "
        f"`ros2 bag reindex {path if path.is_dir() else path.parent}` or `mcap recover` may mend it."
    )


def _names_only(folder: Path, file: Path) -> bool:
    """Does the folder's metadata list `file` and nothing else?"""
    try:
        text = (folder / "metadata.yaml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    storages = {p.name for p in folder.iterdir() if p.name in text and _is_storage(p)}
    return storages == {file.name}


def _is_storage(path: Path) -> bool:
    return any(path.name.endswith(s) or path.name.endswith(f"{s}.zstd") for s in STORAGE_SUFFIXES)


def storage_path(path: Path) -> Path:
    """What rosbags has to open for a bag folder or a storage file.

    Raises:
        BagError: there is nothing to open.
    """
    if not path.exists():
        raise BagError(f"{path}: no such bag. Give a rosbag2 folder, or an .mcap or .db3 file.")
    if path.is_dir():
        if (path / "metadata.yaml").exists():
            return path
        files = sorted(p for p in path.iterdir() if _is_storage(p))
        if len(files) == 1 and files[0].suffix in STORAGE_SUFFIXES:
            return _standalone(files[0])
        found = f"{len(files)} storage files" if files else "no .mcap or .db3 file"
        raise BagError(
            f"{path}: no metadata.yaml and {found} in it, so it is no complete rosbag2 folder: "
            f"run `ros2 bag reindex {path}`" + (" or give one of the files" if files else "")
        )
    if not _is_storage(path):
        raise BagError(
            f"{path}: not a rosbag2 recording (.mcap, .db3 or a folder with metadata.yaml). "
            "Convert a ROS 1 .bag with `rosbags-convert`; play pictures with --data."
        )
    if _names_only(path.parent, path):
        return path.parent
    if path.suffix not in STORAGE_SUFFIXES:
        raise BagError(
            f"{path}: a compressed storage file is read through its bag folder: give {path.parent}"
        )
    return _standalone(path)


def _standalone(file: Path) -> Path:
    # rosbags 0.11 reads storage files alone; 0.10 (the newest for Python 3.10) only folders.
    if hasattr(Reader, "STORAGE_PLUGINS") and file.suffix in Reader.STORAGE_PLUGINS:
        return file
    raise BagError(
        f"{file}: this rosbags release reads a recording only through its metadata.yaml: run "
        f"`ros2 bag reindex {file.parent}`, or use Python 3.11 or later with rosbags 0.11"
    )


def _topics(reader: Any) -> dict[str, BagTopic]:
    topics: dict[str, BagTopic] = {}
    for connection in reader.connections:
        offered: Sequence[Qos] = connection.ext.offered_qos_profiles
        reliable = all(q.reliability == QosReliability.RELIABLE for q in offered) if offered else None
        latched = any(q.durability == QosDurability.TRANSIENT_LOCAL for q in offered)
        known = topics.get(connection.topic)
        if known is not None and known.msgtype != connection.msgtype:
            continue  # one name, two types: ROS itself cannot play both
        count = int(connection.msgcount or 0)
        if known is not None:
            count += known.count
            reliable = known.reliable if reliable is None else reliable and known.reliable is not False
            latched = latched or known.latched
        topics[connection.topic] = BagTopic(connection.msgtype, count, reliable, latched)
    return dict(sorted(topics.items()))


def _custom_data(reader: Any) -> dict[str, str]:
    if hasattr(reader, "custom_data"):  # rosbags 0.10
        return dict(reader.custom_data or {})
    return dict(getattr(reader.storage.metadata, "custom", None) or {})
