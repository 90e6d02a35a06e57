"""Exit codes and texts of errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy import errors
from slide_deploy.errors import MissingLibrary, SlideDeployError, UnknownName

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "SlideDeployError"]
ROWS = dict(re.findall(r"(\w+) +exit (\d)", errors.__doc__ or ""))


def test_the_docstring_draws_every_error() -> None:
    assert ROWS.keys() == {kind.__name__ for kind in CLASSES}


@pytest.mark.parametrize("kind", CLASSES)
def test_exit_codes_are_as_drawn(kind: type[SlideDeployError]) -> None:
    assert kind.exit_code == int(ROWS[kind.__name__])


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_is_one_of_ours(kind: type[Exception]) -> None:
    assert issubclass(kind, SlideDeployError)


def test_the_text_holds_the_way_out() -> None:
    assert str(SlideDeployError("broken", "mend it")) == "broken (mend it)"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert UnknownName("target", "ONNXX", ["onnx", "coreml"]).hint == "did you mean 'onnx'?"
    listed = UnknownName("target", "iOS12", ["ios", "onnx"], ["coreml", "onnx"])
    assert listed.hint == "did you mean 'ios'? known: coreml, onnx"


def test_a_name_near_to_none_is_answered_with_all() -> None:
    assert UnknownName("target", "zzz", ["onnx", "coreml"]).hint == "known: coreml, onnx"


@given(name=st.text(max_size=20), known=st.lists(st.text(max_size=5), max_size=4))
def test_any_name_is_answered(name: str, known: list[str]) -> None:
    assert UnknownName("target", name, known).hint


def test_a_missing_library_comes_with_the_command() -> None:
    error = MissingLibrary("export to ONNX", ["onnx", "onnxscript"], "onnx")
    assert "onnx, onnxscript" in error.message
    assert error.hint == "pip install 'slide-deploy[onnx]'"


def test_the_extras_that_errors_name_exist() -> None:
    import tomllib

    from slide_deploy import registry

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for target in registry.target_names():
        assert registry.exporter(target).extra in extras
        assert registry.runtime(target).extra in extras
