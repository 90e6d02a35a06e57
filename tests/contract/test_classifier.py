"""Artifacts that give probabilities: the contract of every target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import slide_deploy
from slide_deploy import Model, Options, Verdict, coreml, registry
from slide_deploy.artifacts.manifest import find_manifest
from slide_deploy.errors import UsageError
from slide_deploy.packaging.classifier import Conclusion
from slide_deploy.pipeline.reference import reference_of
from slide_deploy.verification.runner import read_artifact, run_expected
from tests.tiny import TINY

TARGETS = registry.float_targets()
LABELS = tuple(f"class {number}" for number in range(TINY.num_classes))


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory, make_model, training_config) -> Model:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    torch.save({"model": make_model().state_dict(), "config": training_config(TINY)}, path)
    return replace(slide_deploy.load(path), labels=LABELS)


@pytest.fixture(scope="module")
def model(scores: Model) -> Model:
    return slide_deploy.with_classifier(scores)


@pytest.fixture(scope="module")
def certain(scores: Model) -> Model:
    """Its scores are so far apart that most probabilities are 0 or 1 in float32."""
    module = type(scores.module)(scores.config).eval().requires_grad_(False)
    module.load_state_dict(scores.module.state_dict())
    module.head.weight *= 12
    module.head.bias *= 12
    return slide_deploy.with_classifier(replace(scores, module=module))


@pytest.mark.parametrize("target", TARGETS)
def test_probabilities_come_out_and_are_recorded(scores, tmp_path, target):
    model = slide_deploy.with_classifier(scores, keep_logits=True)
    (check,) = slide_deploy.export_and_verify(model, target, tmp_path, seed=1).checks
    assert check.verdict is Verdict.PASS, check.problems
    (recorded,) = slide_deploy.verify_golden(tmp_path).checks
    assert recorded.verdict is Verdict.PASS, recorded.problems
    artifact = tmp_path / check.path
    image = np.random.default_rng(0).standard_normal((1, 3, *TINY.image_size)).astype(np.float32)
    made = slide_deploy.run_artifact(artifact, {"one": {"image": image}})
    assert [spec.name for spec in made.output_specs] == ["probabilities", "logits"]
    logits = made.outputs["one"]["logits"].astype(np.float64)
    exponentials = np.exp(logits)
    assert made.outputs["one"]["probabilities"] == pytest.approx(
        exponentials / exponentials.sum(), rel=1e-5
    )
    assert json.loads(made.metadata["labels"]) == list(LABELS)
    (record,) = find_manifest(tmp_path).artifacts
    assert record.conclusion is Conclusion.BOTH


@pytest.mark.parametrize("second", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_ran_on_expectations_has_logarithms_as_these_have(model, tmp_path, second):
    artifact = tmp_path / slide_deploy.export(model, "onnx", tmp_path).artifacts[0].path
    expected = reference_of(model, lambda _: None).expect(Options().dynamic_axes, "float32")
    outputs = run_expected("onnx", artifact, expected, second=second).outputs
    assert expected
    for own in expected:
        for name, logarithms in own.references.items():
            np.testing.assert_allclose(outputs[own.probe][name], logarithms, rtol=1e-3, atol=1e-3)


def write_broken(sound: Path, broken: Path, ending) -> Path:
    """The ONNX classifier with other operators in place of its softmax: `ending` gives them for the
    names of the scores and of the probabilities, and their constants."""
    proto = onnx.load(sound)
    (number,) = (n for n, op in enumerate(proto.graph.node) if "probabilities" in op.output)
    softmax = proto.graph.node[number]
    nodes, constants = ending(softmax.input[0], softmax.output[0])
    assert softmax.op_type == "Softmax"
    del proto.graph.node[number]
    proto.graph.node.extend(onnx.helper.make_node(*own) for own in nodes)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in constants.items()
    )
    onnx.save(proto, broken)
    return broken


def before(kind: str, constant):
    """An operator before the softmax."""
    return lambda scores, made: (
        [(kind, [scores, "constant"], ["changed"]), ("Softmax", ["changed"], [made])],
        {"constant": constant},
    )


def after(kind: str, *constant):
    """An operator after the softmax."""
    names = ["constant"] * len(constant)
    return lambda scores, made: (
        [("Softmax", [scores], ["p"]), (kind, ["p", *names], [made])],
        dict(zip(names, constant, strict=True)),
    )


BREAKS = {
    "the bias of one class": before("Add", [[0, 1e-4, 0]]),
    "the scores scaled": before("Mul", 1.0001),
    "two classes swapped": after("MatMul", [[0, 1, 0], [1, 0, 0], [0, 0, 1]]),
    "softmax twice": after("Softmax"),
    "probabilities scaled": after("Mul", 0.9999),
    "no softmax": lambda scores, made: ([("Identity", [scores], [made])], {}),
    "sigmoid": lambda scores, made: ([("Sigmoid", [scores], [made])], {}),
}


@pytest.mark.parametrize("kind", [pytest.param("certain", marks=pytest.mark.slow), "model"])
def test_a_wrong_classifier_is_noticed(request, tmp_path, kind):
    """Of the certain model, plain differences of probabilities would show little of the first."""
    model = request.getfixturevalue(kind)
    slide_deploy.export(model, "onnx", tmp_path)
    (tmp_path / "manifest.json").unlink()
    sound = tmp_path / f"{model.name}.onnx"
    broken = [write_broken(sound, tmp_path / f"{name}.onnx", BREAKS[name]) for name in BREAKS]
    checks = slide_deploy.verify([sound, *broken], model).checks
    assert [check.verdict for check in checks] == [Verdict.PASS, *[Verdict.FAIL] * len(BREAKS)]
    for check in checks[1:]:
        assert "output probabilities" in check.problems[0]  # it ran, and its numbers are wrong


@pytest.mark.slow
def test_float16_keeps_small_probabilities(certain, tmp_path):
    options = Options(precision="float16")
    (check,) = slide_deploy.export_and_verify(certain, "coreml", tmp_path, options).checks
    assert check.problems == ()
    image = np.full((1, 3, *TINY.image_size), 2.0, np.float32)
    made = slide_deploy.run_artifact(tmp_path / check.path, {"one": {"image": image}})
    assert 0 < made.outputs["one"]["probabilities"].min() < 1e-5


def test_a_package_records_the_blocks_of_its_operations(model, tmp_path):
    slide_deploy.export(model, "coreml", tmp_path)
    [found] = coreml.residency(tmp_path / f"{model.name}.mlpackage").functions
    blocks = {own.block for own in found.blocks}
    assert set(model.block_names(model.module)) <= blocks


@pytest.mark.parametrize("target", [pytest.param("onnx", marks=pytest.mark.slow), "coreml"])
def test_permuted_labels_are_noticed(model, tmp_path, target):
    """The manifest is that of the permuted export, and agrees with the file."""
    permuted = replace(model, labels=(LABELS[1], LABELS[0], *LABELS[2:]))
    slide_deploy.export(permuted, target, tmp_path)
    (check,) = slide_deploy.verify(tmp_path, model).checks
    assert check.verdict is Verdict.FAIL
    assert check.problems == ("class 0 is named 'class 1', not 'class 0'; so are 1 more",)


def test_an_artifact_that_gives_scores_is_no_classifier(scores, model, tmp_path):
    slide_deploy.export(scores, "onnx", tmp_path)
    (tmp_path / "manifest.json").unlink()
    (check,) = slide_deploy.verify(tmp_path / f"{model.name}.onnx", model).checks
    assert check.verdict is Verdict.FAIL
    assert "outputs are logits, not probabilities" in check.problems[0]
    assert "--classifier" in check.problems[0]


def test_classes_of_one_name_are_refused_by_core_ml_alone(model, tmp_path):
    alike = replace(model, labels=("crane", "crane", *LABELS[2:]))
    with pytest.raises(UsageError, match="classes 0 and 1 are both named 'crane'"):
        slide_deploy.export(alike, "coreml", tmp_path)
    slide_deploy.export(alike, "onnx", tmp_path)


def test_without_labels_classes_have_numbers(scores):
    own = slide_deploy.with_classifier(replace(scores, labels=None))
    assert own.labels == ("0", "1", "2")


def test_features_are_no_classes(make_model, tiny_file):
    features = slide_deploy.load(tiny_file(), features=True)
    with pytest.raises(UsageError, match="no output with one score for each class"):
        slide_deploy.with_classifier(features)


def test_a_package_whose_classes_are_not_those_of_its_metadata(model, tmp_path):
    """As a tool would leave it that changes the program and not the description."""
    from coremltools.proto import Model_pb2

    slide_deploy.export(model, "coreml", tmp_path)
    package = tmp_path / f"{model.name}.mlpackage"
    (file,) = package.rglob("*.mlmodel")
    spec = Model_pb2.Model.FromString(file.read_bytes())
    (function,) = spec.mlProgram.functions.values()
    classify = function.block_specializations[function.opset].operations[-1]
    (argument,) = classify.inputs["classes"].arguments
    names = argument.value.immediateValue.list.values
    first, second = names[0].SerializeToString(), names[1].SerializeToString()
    names[0].ParseFromString(second)
    names[1].ParseFromString(first)
    file.write_bytes(spec.SerializeToString())
    (check,) = slide_deploy.verify(package, model).checks
    assert check.verdict is Verdict.FAIL
    text = " ".join(check.problems)
    assert "the labels in its metadata are not the classes of its program" in text
    assert "class 0 is named 'class 1'" in text
    spec.description.predictedFeatureName = "logits"
    file.write_bytes(spec.SerializeToString())
    with pytest.raises(slide_deploy.errors.ArtifactError, match="not those of one classifier"):
        read_artifact("coreml", package, {})
