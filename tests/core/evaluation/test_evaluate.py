"""Accuracies of a classifier whose answers are known, through its own runtime."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import numpy as np
import onnx
import platformdirs
import pytest
from onnx import helper

import slide_deploy
from slide_deploy.errors import CheckpointError, UsageError
from slide_deploy.evaluation import ranking
from slide_deploy.types import TensorSpec

CLASSES = 6


def classifier(path: Path, batch: int | str = 1) -> Path:
    """Its scores are the means of the six rows of the image."""
    shape = [batch, 1, CLASSES, 4]
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["scores"], keepdims=0),
    ]
    axes = helper.make_tensor("axes", onnx.TensorProto.INT64, [2], [1, 3])
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, [batch, CLASSES])],
        [axes],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path
    )
    return path


@pytest.fixture
def data(tmp_path: Path) -> slide_deploy.Dataset:
    """70 images: the best class is the label, but for the last seven, of class 0, where it is 3."""
    images = np.random.default_rng(0).uniform(0, 0.1, (70, 1, CLASSES, 4)).astype(np.float32)
    labels = np.arange(70) % CLASSES
    images[np.arange(70), 0, labels] += 1
    labels[-7:] = 0
    images[-7:] = 0
    images[-7:, 0, 3], images[-7:, 0, 0] = 2, 1
    np.savez(tmp_path / "rows.npz", images=images, labels=labels)
    return slide_deploy.read_dataset(tmp_path / "rows.npz", TensorSpec("image", (1, 1, CLASSES, 4)))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_: str(place))
    return place


@pytest.mark.parametrize("batch", [1, 4, "batch"])
def test_accuracy_confusions_and_latency(
    data: slide_deploy.Dataset, tmp_path: Path, batch: int | str
) -> None:
    found = slide_deploy.evaluate(classifier(tmp_path / "rows.onnx", batch), data)
    (own,) = found.artifacts
    assert (found.images, found.data, found.problems) == (70, "rows.npz", ())
    assert (own.top1, own.top5) == (90.0, 100.0)
    assert [(c.label, c.answer, c.count) for c in own.confusions] == [("0", "3", 7)]
    assert own.batch == (batch if batch == 4 else 1)
    assert own.latency_ms > 0
    assert own.agreement is None


def test_an_artifact_with_probabilities_and_scores(
    data: slide_deploy.Dataset, tmp_path: Path
) -> None:
    path = classifier(tmp_path / "rows.onnx")
    proto = onnx.load(path)
    made = helper.make_tensor_value_info("probabilities", onnx.TensorProto.FLOAT, [1, CLASSES])
    proto.graph.node.append(helper.make_node("Softmax", ["scores"], ["probabilities"]))
    proto.graph.output.insert(0, made)
    onnx.helper.set_model_props(proto, {"conclusion": '"probabilities and scores"'})
    onnx.save(proto, path)
    (own,) = slide_deploy.evaluate(path, data).artifacts
    assert (own.top1, own.top5) == (90.0, 100.0)


def test_what_was_classified_before_is_not_run_again(
    data: slide_deploy.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = classifier(tmp_path / "rows.onnx")
    first = slide_deploy.evaluate(artifact, data).artifacts[0]
    read = Mock(wraps=ranking.read_artifact)
    monkeypatch.setattr(ranking, "read_artifact", read)
    again = slide_deploy.evaluate(artifact, data).artifacts[0]
    assert read.call_count == 0
    assert (again.top1, again.confusions) == (first.top1, first.confusions)


def test_a_damaged_cache_is_ignored(
    data: slide_deploy.Dataset, tmp_path: Path, cache: Path
) -> None:
    artifact = classifier(tmp_path / "rows.onnx")
    slide_deploy.evaluate(artifact, data)
    for path in cache.rglob("*.npy"):
        path.write_bytes(b"no array")
    assert slide_deploy.evaluate(artifact, data).artifacts[0].top1 == 90.0


def test_limits_name_the_artifact(data: slide_deploy.Dataset, tmp_path: Path) -> None:
    artifact = classifier(tmp_path / "rows.onnx")
    found = slide_deploy.evaluate(artifact, data, min_top1=90.0)
    assert found.problems == ()
    found = slide_deploy.evaluate(artifact, data, min_top1=90.1)
    assert found.problems == ("rows.onnx: top-1 90.00 %, less than 90.1 %",)


def test_what_is_no_classifier_is_refused(data: slide_deploy.Dataset, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.onnx does not exist"):
        slide_deploy.evaluate(tmp_path / "absent.onnx", data)
    proto = onnx.load(classifier(tmp_path / "rows.onnx"))
    proto.graph.output.append(
        helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 1, CLASSES, 4])
    )
    onnx.save(proto, tmp_path / "two.onnx")
    with pytest.raises(UsageError, match="has 1 inputs and 2 outputs"):
        slide_deploy.evaluate(tmp_path / "two.onnx", data)
