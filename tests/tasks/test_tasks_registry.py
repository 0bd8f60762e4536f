"""The task registry and the tasks we ship."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from thermal_enhance.tasks.registry import Task, TaskFileError, TaskRegistry, UnknownTask

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "tasks.yaml"


def write(folder: Path, text: str) -> Path:
    path = folder / "tasks.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_tasks() -> None:
    registry = TaskRegistry.from_yaml(SHIPPED)
    assert registry.names == ("enhancement", "detection", "segmentation", "small_target")
    for task in registry:
        assert task.description.endswith(".")
        assert not task.has_prompt and task.prompt_file is None and task.hash == ""


def test_unknown_task_lists_the_known_ones() -> None:
    registry = TaskRegistry([Task("detection"), Task("small_target")])
    assert registry.get("detection").name == "detection" and "detection" in registry and len(registry) == 2
    with pytest.raises(UnknownTask) as caught:
        registry.get("tracking")
    assert str(caught.value) == "unknown task 'tracking'; known: detection, small_target"


def test_prompt_file_is_found_beside_the_yaml_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "a.safetensors").write_bytes(b"prompt")
    path = write(tmp_path, "tasks:\n  a: {prompt: prompts/a.safetensors}\n  b:\n")
    registry = TaskRegistry.from_yaml(path)
    assert registry.get("a").hash == hashlib.sha256(b"prompt").hexdigest()[:16]
    assert registry.get("a").prompt_file == tmp_path / "prompts" / "a.safetensors"
    assert registry.get("b") == Task("b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "needs a mapping `tasks:`"),
        ("tasks: []", "needs a mapping `tasks:`"),
        ("tasks: {a: [", "not YAML"),
        ("tasks: {Detect: {}}", "ROS name token"),
        ("tasks: {3d: {}}", "ROS name token"),
        ("tasks: {a__b: {}}", "ROS name token"),
        ("tasks: {7: {}}", "ROS name token"),
        ("tasks: {a: text}", "tasks.a must be a mapping"),
        ("tasks: {a: {descripton: x}}", "unknown setting descripton"),
        ("tasks: {a: {description: 3}}", "tasks.a.description must be a text"),
        ("tasks: {a: {prompt: gone.safetensors}}", "tasks.a.prompt: cannot read"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_entry(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(TaskFileError) as caught:
        TaskRegistry.from_yaml(path)
    assert says in str(caught.value) and str(path) in str(caught.value)


def test_missing_file_and_doubled_task(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TaskRegistry.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match="twice"):
        TaskRegistry([Task("a"), Task("a")])


@pytest.mark.parametrize("name", ["", "A", "a-b", "a/b", "_a", "a_", "a b", "é", "a\n"])
def test_names_are_ros_name_tokens(name: str) -> None:
    with pytest.raises(ValueError, match="ROS name token"):
        Task(name)
