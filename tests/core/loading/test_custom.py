"""Custom models: factories, strict weights, inputs, outputs, and errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import slide_deploy
from slide_deploy.errors import ArchitectureError, CheckpointError, SlideDeployError, UsageError
from slide_deploy.loading.custom import load_foreign, parse_input, wrap
from slide_deploy.loading.loader import save_fused
from slide_deploy.types import TensorSpec

SOURCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image):
        return self.conv(image)


class Nets:
    small = Net


def broken():
    raise RuntimeError("no such file: weights.bin\\nsecond line")


def odd():
    return "a string"
"""


@pytest.fixture
def own(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder: a package of their own, and weights."""
    monkeypatch.syspath_prepend(str(in_tmp))
    (in_tmp / "theirs.py").write_text(SOURCE)
    monkeypatch.delitem(__import__("sys").modules, "theirs", raising=False)
    torch.save(nn.ModuleDict({"conv": nn.Conv2d(3, 4, 3)}).state_dict(), "w.pth")
    return in_tmp / "w.pth"


@pytest.mark.parametrize("factory", ["theirs:Net", "theirs:Nets.small"])
def test_a_factory_and_weights_make_a_model(own: Path, factory: str) -> None:
    model = load_foreign(own, factory, image_size=(8, 6))
    stored = torch.load(own, weights_only=True)
    assert torch.equal(model.module.state_dict()["conv.weight"], stored["conv.weight"])
    assert model.inputs == (TensorSpec("image", (1, 3, 8, 6)),)
    assert model.outputs == (TensorSpec("output", (1, 4, 6, 4)),)
    assert (model.name, model.family) == ("w", "custom")
    assert model.source.path_name == "w.pth"
    assert model.notes == ("no Slide Attention found: exported unchanged",)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("theirs", "expects package.module:function"),
        ("nowhere:Net", "No module named 'nowhere'"),
        ("theirs:Nothing", "has no attribute 'Nothing'"),
        ("theirs:broken", "RuntimeError: no such file: weights.bin"),
        ("theirs:odd", "returned a str, not an nn.Module"),
    ],
)
def test_a_factory_that_makes_no_model_is_refused(own: Path, factory: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_foreign(own, factory, image_size=(8, 8))
    assert said in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("conv.bias"), "lacks conv.bias"),
        (lambda s: s.update(extra=torch.zeros(1)), "has keys that the model lacks: extra"),
        (lambda s: s.update({"conv.bias": torch.zeros(7)}), "size mismatch for conv.bias"),
    ],
)
def test_weights_are_loaded_strictly(own: Path, change: Any, said: str) -> None:
    state = torch.load(own, weights_only=True)
    change(state)
    torch.save(state, own)
    with pytest.raises(ArchitectureError) as raised:
        load_foreign(own, "theirs:Net", image_size=(8, 8))
    assert said in raised.value.message


@pytest.mark.parametrize("prefix", [None, "net", "net."])
def test_a_prefix_is_found_by_the_names_of_the_module(own: Path, prefix: str | None) -> None:
    state = torch.load(own, weights_only=True)
    prefixed = {f"net.{key}": value for key, value in state.items()}
    torch.save({"state_dict": prefixed | {"loss.weight": torch.ones(1)}}, own)
    model = load_foreign(own, "theirs:Net", image_size=(8, 8), prefix=prefix)
    assert model.notes[0] == "the weights under 'net.' are taken; left out: loss (1 key)"
    assert all(torch.equal(model.module.state_dict()[key], state[key]) for key in state)


def test_several_prefixes_are_not_guessed_between(own: Path) -> None:
    state = torch.load(own, weights_only=True)
    torch.save({f"{net}.{key}": v for net in "ab" for key, v in state.items()}, own)
    with pytest.raises(CheckpointError, match=r"several models: a\., b\."):
        load_foreign(own, "theirs:Net", image_size=(8, 8))


def test_inputs_are_asked_for(own: Path) -> None:
    with pytest.raises(UsageError, match="--image-size HxW for one image, or --input"):
        load_foreign(own, "theirs:Net")
    with pytest.raises(UsageError, match="does not run on image 1x5x8x8 float32"):
        load_foreign(own, "theirs:Net", [parse_input("image:1x5x8x8")])


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("image:1x3x8x6", TensorSpec("image", (1, 3, 8, 6))),
        ("ids:1x7:int64", TensorSpec("ids", (1, 7), "int64")),
        ("ids:1x7:int64:-1..99", TensorSpec("ids", (1, 7), "int64", (-1, 99))),
    ],
)
def test_an_input_is_read(text: str, spec: TensorSpec) -> None:
    assert parse_input(text) == spec


@pytest.mark.parametrize(
    "text",
    [
        "",
        "image",
        ":1x3",
        "image:",
        "image:1x-3",
        "image:3x8x8",
        "image:1x0",
        "2d:1x3",
        "a:1x3:str",
        "a:1x3:int64:",
        "a:1x3:int64:5",
        "a:1x3:int64:9..5",
        "a:1x3:float32:0..1",
    ],
)
def test_an_input_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_input(text)


class Returns(nn.Module):
    """Whatever `form` makes of two tensors."""

    def __init__(self, form: Any) -> None:
        super().__init__()
        self.conv, self.form = nn.Conv2d(3, 4, 1), form

    def forward(self, image: Tensor) -> Any:
        y = self.conv(image)
        return self.form(y, y.mean((2, 3)))


IMAGE = (TensorSpec("image", (1, 3, 4, 4)),)


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda a, b: a, ["output"]),
        (lambda a, b: (a, b), ["output", "output_1"]),
        (lambda a, b: [a, [b, None]], ["output", "output_1"]),
        (lambda a, b: {"map": a, "class scores": b}, ["map", "class_scores"]),
        (lambda a, b: {"p": {"3": a}, "image": b}, ["p_3", "image_out"]),
    ],
)
def test_outputs_are_found_and_named(form: Any, names: list[str]) -> None:
    model = wrap(Returns(form), IMAGE)
    assert [spec.name for spec in model.outputs] == names
    values = model.module(torch.randn(1, 3, 4, 4))
    values = (values,) if isinstance(values, Tensor) else values
    assert type(values) is tuple
    assert [tuple(v.shape) for v in values] == [spec.shape for spec in model.outputs]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda a, b: b.argmax(1), "is int64"),
        (lambda a, b: b.mean(), "is float32[]"),
        (lambda a, b: a[0], "is float32[4, 4, 4]"),
        (lambda a, b: {"a": "text"}, "returns a str"),
        (lambda a, b: [], "no tensor"),
    ],
)
def test_outputs_that_nobody_could_compare_are_refused(form: Any, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        wrap(Returns(form), IMAGE)
    assert said in raised.value.message


def test_wrapping_leaves_the_module_alone() -> None:
    module = Returns(lambda a, b: a).train()
    model = wrap(module, IMAGE, name="mine")
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not model.module.training
    assert model.name == "mine"
    assert len(model.source.sha256) == 64


def test_a_module_without_weights_is_refused() -> None:
    with pytest.raises(UsageError, match="has no weights"):
        wrap(nn.ReLU(), IMAGE)


def test_fused_weights_of_no_family_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(SlideDeployError, match="no known family"):
        save_fused(wrap(Returns(lambda a, b: a), IMAGE), tmp_path / "no.safetensors")
    assert not list(tmp_path.iterdir())


def test_files_hold_no_internal_names(tmp_path: Path) -> None:
    model = wrap(Returns(lambda a, b: {"map": a, "scores": b}), IMAGE, name="mine")
    options = slide_deploy.Options(precision="float16")
    slide_deploy.export(model, "all", tmp_path, options)
    internal = re.compile(rb"slide_deploy[./]\w+([./]\w+)*[./]_[a-zA-Z]|of_the_user|foreign")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.name for path in files if internal.search(path.read_bytes())] == []


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.conv = nn.Embedding(5, 4), nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor, token: Tensor) -> dict[str, Tensor]:
        maps = self.conv(image) * self.table(token)[..., None, None]
        return {"maps": maps, "mean": maps.mean((2, 3))}


def two(dtype: str) -> slide_deploy.Model:
    torch.manual_seed(1)
    inputs = (TensorSpec("image", (1, 3, 8, 8)), TensorSpec("token", (1,), dtype))
    return slide_deploy.wrap(TwoInputs(), inputs, name="two")


def test_several_inputs_and_outputs_of_several_dtypes_are_exported(tmp_path: Path) -> None:
    targets = ["coreml", "onnx", "torchscript"]
    report = slide_deploy.export_and_verify(
        two("int32"), targets, tmp_path, progress=lambda _: None
    )
    assert report.verdict == "pass", [check.problems for check in report.checks]
    for check in report.checks:
        assert {c.output for c in check.comparisons} == {"maps", "mean"}


def test_int64_is_refused_where_a_format_has_none(tmp_path: Path) -> None:
    targets = ["coreml", "torchscript"]
    report = slide_deploy.export_and_verify(
        two("int64"), targets, tmp_path, progress=lambda _: None
    )
    coreml, script = report.checks
    assert script.verdict == "pass", script.problems
    assert coreml.verdict == "fail"
    assert "declare it as int32, e.g. --input token:SHAPE:int32" in coreml.problems[0]


def test_the_command_line_exports_and_inspects_a_model_of_ones_own(own: Path, run_cli: Any) -> None:
    given = (own, "--model", "theirs:Net", "--input", "image:1x3x8x8")
    done = run_cli("export", *given, "-t", "torchscript", "-o", "out")
    assert done.code == 0, done.err
    assert "no Slide Attention found" in done.out
    seen = run_cli("inspect", *given)
    assert seen.code == 0, seen.err
    assert "custom" in seen.out
    again = run_cli("verify", "out/w.torchscript", "--against", *given)
    assert again.code == 0, again.err


def test_the_command_line_refuses_what_does_not_fit_together(own: Path, run_cli: Any) -> None:
    run_cli("export", own, "-t", "torchscript", "--input", "x:1x3").refused(2, "--model")
    run_cli("export", own, "-t", "torchscript", "--model", "theirs:broken").refused(
        2, "--image-size"
    )
    run_cli("inspect", own, "--model", "theirs:broken", "--image-size", "8").refused(
        2, "no such file"
    )
