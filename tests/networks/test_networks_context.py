"""The context that follows tags: nearest sets, few reads, slow changes."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from thermal_enhance.networks.diffusion.context import (
    FixedContext,
    TagConfig,
    TagContext,
    TaggerContext,
    TagTable,
    canonical,
    load_tagger,
    tag_prompt,
    write_tag_table,
)

SETS = [(), ("car",), ("person",), ("car", "person"), ("car", "night", "road")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "tags.safetensors"
    write_tag_table(file, {tags: np.full((2, 3), index) for index, tags in enumerate(SETS)})
    return file


@pytest.fixture
def table(path: Path) -> TagTable:
    return TagTable(path)


def shown(embedding: np.ndarray) -> tuple[str, ...]:
    assert embedding.shape == (2, 3) and embedding.dtype == np.float32
    return SETS[int(embedding[0, 0])]


def test_tags_are_a_set() -> None:
    assert canonical([" Car", "person", "car", "", "traffic  light"]) == ("car", "person", "traffic light")
    assert tag_prompt(["road", "Car"]) == "remove degradation, car, road"
    assert tag_prompt([]) == "remove degradation"


def test_fixed_never_changes() -> None:
    context = FixedContext(np.ones((2, 3)))
    assert context(0.0) is context(9.0, ["car"])
    with pytest.raises(ValueError, match="must be \\(length, width\\)"):
        FixedContext(np.ones(3))


def test_table_gives_the_largest_known_part(table: TagTable) -> None:
    assert shown(table(["person", "CAR"])) == ("car", "person")
    assert shown(table(["car", "dog"])) == ("car",)
    assert shown(table(["road", "car", "night", "dog"])) == ("car", "night", "road")
    assert shown(table(["dog"])) == ()


def test_table_reads_each_set_once_and_lets_the_oldest_go(path: Path) -> None:
    table = TagTable(path, capacity=2)
    for tags in (["car"], ["person"], ["car", "dog"], ["person"]):
        table(tags)
    assert table.reads == 2
    table(["car"])  # used last, so that the next one drives out `person`
    table([])
    table(["car"])
    assert table.reads == 3
    table(["person"])
    assert table.reads == 4


def test_table_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.safetensors: not a table of tag embeddings"):
        TagTable(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="embedding of the empty set"):
        write_tag_table(tmp_path / "t.safetensors", {("car",): np.ones((2, 3))})
    with pytest.raises(ValueError, match="must not contain a comma"):
        write_tag_table(tmp_path / "t.safetensors", {(): np.ones((2, 3)), ("a,b",): np.ones((2, 3))})
    with pytest.raises(ValueError, match="leave must be at least 1"):
        TagConfig(leave=0)


def test_tags_must_last_before_they_count(table: TagTable) -> None:
    context = TagContext(table, TagConfig(interval=0.0, enter=3, leave=2))
    looks = [["car"], [], ["car"], ["car"], ["car"], [], ["car"], [], []]
    assert [shown(context(0.1 * i, tags)) for i, tags in enumerate(looks)] == [
        (), (), (), (), ("car",), ("car",), ("car",), ("car",), (),
    ]  # fmt: skip


def test_frames_without_a_look_are_no_absence(table: TagTable) -> None:
    context = TagContext(table, TagConfig(interval=0.0, enter=1, leave=1))
    context(0.0, ["car"])
    assert shown(context(0.1)) == ("car",)
    assert shown(context(0.2, [])) == ()


def test_changes_no_more_than_once_a_second(table: TagTable) -> None:
    context = TagContext(table, TagConfig(interval=1.0, enter=1, leave=1))
    frames = 90  # 3 s at 30 frames a second, another tag at every frame
    seen = [shown(context(i / 30, ["car" if i % 2 else "person"])) for i in range(frames)]
    assert sum(a != b for a, b in itertools.pairwise(seen)) <= 3
    assert shown(context(100.0, ["car"])) == ("car",)
    assert shown(context(0.0, ["person"])) == ("person",)  # the clock was set back


def test_the_first_tags_keep_their_place(table: TagTable) -> None:
    context = TagContext(table, TagConfig(interval=0.0, enter=1, leave=1, limit=1))
    context(0.0, ["person"])
    assert shown(context(1.0, ["car", "person"])) == ("person",)
    assert shown(context(2.0, ["car"])) == ("car",)


def test_many_passing_tags_leave_nothing_behind(table: TagTable) -> None:
    context = TagContext(table)
    for index in range(1000):
        context(float(index), [f"tag {index}"])
    assert len(context._streaks) <= 2


def test_tagger_looks_no_more_than_once_a_second(table: TagTable) -> None:
    calls = []

    def tagger(rgb: np.ndarray) -> list[str]:
        calls.append(rgb.shape)
        return ["car"]

    context = TaggerContext(tagger, TagContext(table, TagConfig(interval=1.0, enter=1, leave=1)))
    rgb = np.zeros((4, 6, 3), np.uint8)
    seen = [shown(context(i / 10, rgb=rgb)) for i in range(25)]
    assert len(calls) == 3 and set(seen) == {("car",)}
    assert shown(context(9.0)) == ("car",)  # no picture, no look


def test_tagger_by_name() -> None:
    assert load_tagger("builtins:sorted") is sorted
    for name in ("nowhere:f", "builtins", "builtins:nothing", "builtins:__doc__"):
        with pytest.raises(ValueError, match="tagger"):
            load_tagger(name)
