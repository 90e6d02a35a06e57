"""Valid and invalid values of options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slide_deploy.cli.options import chosen_precision, parse_size, parse_target_options
from slide_deploy.errors import UnknownName, UsageError

RunCli = Callable[..., Any]


@pytest.mark.parametrize(
    ("name", "half", "meant"),
    [
        (None, False, "float32"),
        ("fp32", False, "float32"),
        ("FP32", False, "float32"),
        ("float16", False, "float16"),
        ("fp16", False, "float16"),
        ("half", False, "float16"),
        (None, True, "float16"),
        ("fp16", True, "float16"),
    ],
)
def test_precision_by_any_of_its_names(name: str | None, half: bool, meant: str) -> None:
    assert chosen_precision(name, half=half) == meant


def test_a_mistyped_precision_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName) as refused:
        chosen_precision("flaot16", half=False)
    assert refused.value.hint == "did you mean 'float16'?"


def test_half_contradicts_another_precision() -> None:
    with pytest.raises(UsageError, match="--half and --precision fp32 contradict each other"):
        chosen_precision("fp32", half=True)


@given(height=st.integers(1, 10**8), width=st.integers(1, 10**8), sign=st.sampled_from("xX"))
def test_any_size_is_read(height: int, width: int, sign: str) -> None:
    assert parse_size(f"{height}{sign}{width}") == (height, width)
    assert parse_size(str(height)) == (height, height)


@pytest.mark.parametrize("text", ["", "x", "0", "224x", "1x2x3", "-4", "2.5", "٣", "big"])
def test_what_is_no_size_is_answered_with_the_form(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_size(text)
    assert refused.value.message == (
        f"--image-size expects N or HxW, such as 224 or 224x320; got {text!r}."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rknn", "use onnx, which that tool reads (--for rknn writes what rknn-toolkit2 takes)"),
        ("TensorRT", "use onnx, which that tool reads (trtexec reads it on the device)"),
        ("ncnn", "use torchscript, which that tool reads (pnnx converts it)"),
    ],
)
def test_a_tool_is_answered_with_the_target_that_it_takes(
    run_cli: RunCli, in_tmp: Path, name: str, hint: str
) -> None:
    result = run_cli("export", "m.pth", "-t", name)
    result.refused(2, f"'{name.lower()}' is not a target of slide-deploy", hint)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["exprt"], "no such command 'exprt'"),
        (["export", "m.pth"], "neither --target nor --for is given"),
        (["export", "m.pth", "-t", "onnx", "--bach", "2"], "--batch"),
        (["export", "m.pth", "-t", "onnx", "--batch", "x"], "invalid value for '--batch'"),
        (["verify", "a.onnx", "--against"], "--against"),
        (["inspect", "m.pth", "--weights", "best"], "'ema', 'model'"),
        (["export", "m.pth", "-t", "onnx", "-q", "-v"], "--quiet and --verbose contradict"),
        (["export", "m.pth", "-t", "onnx", "--soc", "SM8650"], "it is an option of qnn"),
        (["export", "m.pth", "-t", "qnn", "--soc", "SM1"], "Hexagon's SoC 'SM1' is unknown"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_reads_like_any_other_error(
    run_cli: RunCli, in_tmp: Path, arguments: list[str], message: str
) -> None:
    result = run_cli(*arguments)
    result.refused(2, message)
    assert len(result.lines) == 2


def test_an_option_of_a_target_is_given_once() -> None:
    assert parse_target_options(["a=1"], soc="SM8650", device=None) == {"a": "1", "soc": "SM8650"}
    with pytest.raises(UsageError, match="--soc and --option soc= are the same option"):
        parse_target_options(["soc=SM8750"], soc="SM8650")


def test_no_command_shows_the_help_and_exits_2(run_cli: RunCli) -> None:
    result = run_cli()
    assert (result.code, result.err) == (2, "")
    assert "Commands" in result.out
