"""Options are checked against the targets before any work begins."""

from __future__ import annotations

from dataclasses import replace

import pytest

import slide_deploy
from slide_deploy import registry
from slide_deploy.artifacts.options import option_notes, options_by_target
from slide_deploy.errors import UnknownName, UsageError
from slide_deploy.types import Options, Precision


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        ("coreml", Options(opset=20), ["Core ML", "--opset", "onnx"]),
        ("onnx", Options(deployment_target="iOS17"), ["ONNX", "--deployment-target", "coreml"]),
        ("torchscript", Options(target_options={"zap": "1"}), ["TorchScript", "--option zap"]),
        ("onnx", Options(opset=16), ["16", "17 to 23"]),
        ("onnx", Options(opset=24), ["24", "17 to 23"]),
        ("coreml", Options(deployment_target="iOS12"), ["iOS12", "before iOS15", "iOS18"]),
        ("coreml", Options(deployment_target="macOS10_15"), ["before macOS12"]),
        ("coreml", Options(deployment_target="iOS99"), ["unknown", "iOS99", "iOS18"]),
    ],
    ids=str,
)
def test_what_a_target_does_not_offer_is_refused(
    target: str, options: Options, words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        options_by_target((target,), options)
    assert all(word in str(refused.value) for word in words), str(refused.value)


@pytest.mark.parametrize(
    ("target", "precision", "words"),
    [
        (
            "coreml",
            "w8",
            ["Core ML cannot keep parts", "omit --min-snr, or use onnx or openvino"],
        ),
        ("onnx", "float16", ["precision float16 keeps every part in float", "omit --min-snr"]),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(
    target: str, precision: str, words: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        options_by_target((target,), Options(precision=precision, min_snr=30.0))
    assert all(word in str(refused.value) for word in words), str(refused.value)


@pytest.mark.parametrize("decibels", [0.0, -3.0, 121.0, float("nan"), float("inf")])
def test_a_ratio_that_no_artifact_has_is_refused(decibels: float) -> None:
    with pytest.raises(UsageError, match="cannot be searched for"):
        Options(precision="w8a8", min_snr=decibels)


def test_each_target_gets_its_own_options_alone() -> None:
    asked = Options(opset=18, deployment_target="ios17", batch=2)
    found = options_by_target(("onnx", "coreml", "openvino"), asked)
    assert found == {
        "onnx": Options(opset=18, batch=2),
        "coreml": Options(deployment_target="iOS17", batch=2),
        "openvino": Options(batch=2),
    }


def test_checking_twice_changes_nothing() -> None:
    asked = Options(opset=18)
    (once,) = options_by_target(("onnx",), asked).values()
    assert options_by_target(("onnx",), once)["onnx"] == once


def test_what_applies_to_some_targets_is_noted() -> None:
    asked = Options(opset=18)
    assert option_notes(("onnx", "coreml"), asked) == ("--opset 18 applies to onnx only",)
    assert option_notes(("onnx",), asked) == ()


def test_a_precision_that_a_target_lacks_is_refused_with_its_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = replace(
        registry.exporter("onnx"),
        precisions=(Precision.FLOAT32,),
        lacks={Precision.FLOAT16: "its device computes in float32"},
    )
    monkeypatch.setattr(registry, "exporter", lambda target: whole)
    with pytest.raises(UsageError, match="its device computes in float32") as refused:
        options_by_target(("onnx",), Options(precision=Precision.FLOAT16))
    assert refused.value.hint == "onnx supports float32"


@pytest.mark.parametrize("name", ["fp16", "half", "FLOAT16", "float16"])
def test_a_precision_has_aliases(name: str) -> None:
    assert options_by_target(("onnx",), Options(precision=name))["onnx"].precision == "float16"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UnknownName, match="float8"):
        options_by_target(("onnx",), Options(precision="float8"))


@pytest.mark.parametrize("batch", [0, -1, True, 1.5, "2"])
def test_a_batch_is_a_whole_number_from_1(batch: object) -> None:
    with pytest.raises(UsageError, match="batch"):
        Options(batch=batch)  # type: ignore[arg-type]


def test_a_batch_cannot_be_fixed_and_free() -> None:
    with pytest.raises(UsageError, match="fixed batch of 4"):
        Options(batch=4, dynamic=True)


def test_nothing_is_written_where_an_option_is_refused(lone_module, tmp_path, capsys) -> None:
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    for function in (slide_deploy.export, slide_deploy.export_and_verify):
        with pytest.raises(UsageError, match="opset"):
            function(model, "openvino", tmp_path / "out", Options(opset=20))
    assert not (tmp_path / "out").exists()


def test_names_aliases_and_text_paths_are_taken_and_nothing_is_printed(
    lone_module, tmp_path, capsys
) -> None:
    model = slide_deploy.load(lone_module, image_size=(8, 8))
    slide_deploy.export(model, "jit", str(tmp_path / "out"))
    report = slide_deploy.verify(str(tmp_path / "out"), model)
    again = slide_deploy.verify_golden(str(tmp_path / "out"))
    assert [report.verdict, again.verdict] == ["pass", "pass"]
    (artifact,) = (tmp_path / "out").glob("*.torchscript")
    feeds = {"zeros": {spec.name: spec_zeros(spec) for spec in model.inputs}}
    assert set(slide_deploy.run_artifact(str(artifact), feeds).outputs) == {"zeros"}
    assert capsys.readouterr().out == ""


def spec_zeros(spec):
    import numpy as np

    return np.zeros(spec.shape, spec.dtype)
