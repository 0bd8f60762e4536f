from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from thermal_enhance.runtime import choice
from thermal_enhance.runtime.backend import BackendError


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    fake = SimpleNamespace(__version__="9.9", get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(choice, "import_onnxruntime", lambda: fake)
    return fake


def names(device: str) -> list[str]:
    return [way.name for way in choice.candidates(device)]


def test_auto_prefers_cuda_and_ends_at_the_cpu(library: SimpleNamespace) -> None:
    assert names("auto") == ["onnxruntime on cpu"]
    library.get_available_providers = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert names("auto") == ["onnxruntime on cuda", "onnxruntime on cpu"]
    assert names("cuda:1") == ["onnxruntime on cuda:1"]


def attempt(failing: set[str]) -> Any:
    def run(way: choice.Candidate) -> Any:
        if way.name in failing:
            raise BackendError("no driver")
        return SimpleNamespace(choice_reason="", way=way.name)

    return run


def test_the_reason_tells_what_was_passed_over(library: SimpleNamespace) -> None:
    library.get_available_providers = lambda: ["CUDAExecutionProvider"]
    backend: Any = choice.open_first(choice.candidates("auto"), attempt({"onnxruntime on cuda"}))
    assert backend.way == "onnxruntime on cpu"
    assert backend.choice_reason == "onnxruntime 9.9; not onnxruntime on cuda: no driver"


def test_a_device_that_was_asked_for_is_not_replaced(library: SimpleNamespace) -> None:
    with pytest.raises(BackendError, match="no driver"):
        choice.open_first(choice.candidates("cuda"), attempt({"onnxruntime on cuda", "onnxruntime on cpu"}))


def test_all_failures_are_told(library: SimpleNamespace) -> None:
    library.get_available_providers = lambda: ["CUDAExecutionProvider"]
    with pytest.raises(BackendError, match=r"on cuda: no driver; onnxruntime on cpu: no driver"):
        choice.open_first(choice.candidates("auto"), attempt({"onnxruntime on cuda", "onnxruntime on cpu"}))
