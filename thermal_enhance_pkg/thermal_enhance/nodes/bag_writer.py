"""Writes rosbag2 recordings (MCAP or sqlite3) without ROS: rosbags does it, messages come serialized."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from thermal_enhance.nodes.bag_reader import STORAGE_SUFFIXES, BagError

STORAGES = ("mcap", "sqlite3")

_BAG_SUFFIXES = (*STORAGE_SUFFIXES, ".zstd", ".yaml", ".db3-shm", ".db3-wal")
# Version 8 keeps QoS in the form Humble reads too; later rosbag2 releases read it as well.
_METADATA_VERSION: Any = 8
_FOREVER = QosTime(9223372036, 854775807)


class BagWriter:
    """Writes a rosbag2 folder; a context manager. The folder appears when it is complete, or not at all.

    Args:
        path: the folder to make.
        storage: "mcap" or "sqlite3".
        force: replace an existing recording (only a recording: never a folder with anything else in it).
        custom_data: notes about the recording as a whole ({name: text}).
        compress: compress the chunks (MCAP) or the messages (sqlite3) with zstd.

    Raises:
        BagError: the path is taken or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        storage: str = "mcap",
        force: bool = False,
        custom_data: Mapping[str, str] | None = None,
        compress: bool = False,
    ) -> None:
        self.path = Path(path).absolute()
        if storage not in STORAGES:
            raise BagError(f"storage '{storage}' is not known: use {' or '.join(STORAGES)}")
        if self.path.suffix in STORAGE_SUFFIXES:
            raise BagError(f"{path}: a rosbag2 recording is a folder; leave the {self.path.suffix} off")
        if self.path.exists() or self.path.is_symlink():
            if not force:
                raise BagError(f"{path} exists: choose another name, or replace it with --force")
            if not _is_bag_folder(self.path):
                raise BagError(
                    f"{path} exists and is not a rosbag2 folder, so it is left alone: choose another name"
                )
        self.counts: dict[str, int] = {}
        self._storage = storage
        self._compress = compress
        self._custom_data = dict(custom_data or {})
        self._connections: dict[str, Any] = {}
        self._typestore = get_typestore(Stores.ROS2_JAZZY)
        self._scratch = Path()
        self._writer: Any = None

    def __enter__(self) -> BagWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Beside the target: a rename within one file system is atomic.
            self._scratch = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", dir=self.path.parent))
        except OSError as error:
            raise BagError(f"{self.path}: cannot be written ({error})") from error
        plugin = StoragePlugin.MCAP if self._storage == "mcap" else StoragePlugin.SQLITE3
        self._writer = Writer(
            self._scratch / self.path.name, version=_METADATA_VERSION, storage_plugin=plugin
        )
        for key, value in self._custom_data.items():
            self._writer.set_custom_data(key, value)
        if self._compress:
            mode = CompressionMode.STORAGE if self._storage == "mcap" else CompressionMode.MESSAGE
            self._writer.set_compression(mode, CompressionFormat.ZSTD)
        self._writer.open()
        return self

    def add_topic(
        self,
        name: str,
        msgtype: str,
        *,
        reliable: bool = True,
        latched: bool = False,
        definition: str | None = None,
        type_hash: str | None = None,
    ) -> None:
        """Announce a topic.

        Args:
            name: topic name, from the root ("/thermal/image_raw").
            msgtype: "package/msg/Name".
            reliable: QoS its publisher offers.
            latched: QoS its publisher offers: transient local.
            definition: the message definition, where the type is not one of ROS 2 Jazzy's own.
            type_hash: its RIHS01 hash; needed with `definition`.

        Raises:
            BagError: an unknown type without a definition, or a name announced before.
        """
        if name in self._connections:
            raise BagError(f"topic {name} is in the bag already: topic names must differ")
        if definition is None and msgtype not in self._typestore.fielddefs:
            raise BagError(f"{msgtype} ({name}) is not a common ROS type: its definition and hash are needed")
        self._connections[name] = self._writer.add_connection(
            name,
            msgtype,
            typestore=self._typestore if definition is None else None,
            msgdef=definition,
            rihs01=type_hash,
            offered_qos_profiles=[_qos(reliable, latched)],
        )
        self.counts[name] = 0

    def write(self, name: str, timestamp_ns: int, data: bytes) -> None:
        """Append one serialized message.

        Raises:
            BagError: a topic that was not announced.
        """
        connection = self._connections.get(name)
        if connection is None:
            raise BagError(f"topic {name} was not announced with add_topic")
        self._writer.write(connection, timestamp_ns, data)
        self.counts[name] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # Closed after a failure too: storage files must not stay open while their folder goes.
            with contextlib.nullcontext() if kind is None else contextlib.suppress(Exception):
                self._writer.close()
            if kind is None:
                if self.path.exists():
                    shutil.rmtree(self.path)
                os.replace(self._scratch / self.path.name, self.path)
        except OSError as failure:
            raise BagError(f"{self.path}: cannot be written ({failure})") from failure
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)


def write_bag(
    path: str | Path,
    topics: Mapping[str, str],
    messages: Iterable[tuple[str, int, bytes]],
    **options: Any,
) -> dict[str, int]:
    """Write a whole recording at once.

    Args:
        path: the folder to make.
        topics: {name: "package/msg/Name"}.
        messages: (topic name, time in ns, serialized message), in order of time.
        **options: of `BagWriter`.

    Returns:
        {topic: messages written}.

    Raises:
        BagError: as `BagWriter`.
    """
    with BagWriter(path, **options) as writer:
        for name, msgtype in topics.items():
            writer.add_topic(name, msgtype)
        for name, timestamp_ns, data in messages:
            writer.write(name, timestamp_ns, data)
    return writer.counts


def _is_bag_folder(path: Path) -> bool:
    if path.is_symlink() or not (path / "metadata.yaml").is_file():
        return False
    return all(p.is_file() and p.name.endswith(_BAG_SUFFIXES) for p in path.iterdir())


def _qos(reliable: bool, latched: bool) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        _FOREVER,
        _FOREVER,
        QosLiveliness.AUTOMATIC,
        _FOREVER,
        False,
    )
