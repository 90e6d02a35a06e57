"""Whether a float16 artifact is its float32 artifact, rounded: what float16's noise would hide."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import slide_deploy
from slide_deploy import Model, Options, Verdict, registry
from slide_deploy.parity.gates import GateKind
from slide_deploy.quantization.catalog import scheme_named
from tests.tiny import TINY

TARGETS = [t for t in registry.float_targets() if registry.runtime(t).widen]
HALF = Options(precision="float16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_model, training_config) -> Model:
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pth"
    content = {"model": make_model().state_dict(), "config": training_config(TINY)}
    torch.save(content, path)
    return slide_deploy.load(path)


def check(model: Model, folder: Path, against: Model, options: Options = HALF):
    """Export `model` in float16, and verify the artifact, without its manifest, as `against`."""
    target = folder.name
    manifest = slide_deploy.export(model, target, folder, options)
    (folder / "manifest.json").unlink()
    policy = slide_deploy.VerificationPolicy(precision="float16")
    artifact = folder / manifest.artifacts[0].path
    report = slide_deploy.verify(artifact, against, policy=policy, seed=1)
    return report.checks[0]


def changed(model: Model, module: nn.Module) -> Model:
    return replace(model, module=module)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_one_weight_that_is_one_step_off_is_noticed(model, tmp_path, target):
    module = copy.deepcopy(model.module)
    name, weight = next((n, p) for n, p in module.named_parameters() if n.endswith("proj.weight"))
    with torch.no_grad():
        halves = weight.half().view(-1)
        halves[3] = torch.nextafter(halves[3], torch.tensor(torch.inf, dtype=torch.float16))
        weight.view(-1)[3] = halves[3].float()
    found = check(changed(model, module), tmp_path / target, model)
    assert found.verdict is Verdict.FAIL, name
    (problem,) = found.problems  # float16's own gates see nothing
    assert "has 1 of" in problem
    assert "that are not the rounded weights" in problem


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_another_function_is_noticed_in_float32(model, tmp_path, target):
    module = copy.deepcopy(model.module)
    norms = [part for part in module.modules() if isinstance(part, nn.LayerNorm)]
    norms[0].eps = 2e-5
    found = check(changed(model, module), tmp_path / target, model)
    assert found.verdict is Verdict.FAIL
    assert all("in float32: " in problem or "rounded" in problem for problem in found.problems)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_a_sound_artifact_passes_the_gates_of_both_precisions(model, tmp_path, target):
    found = check(model, tmp_path / target, model)
    assert found.verdict is Verdict.PASS, found.problems
    own, single = (scheme_named(name).gates for name in ("float16", "float32"))
    kinds = [result.kind for result in found.gates]
    assert kinds == [*(g.kind for g in own), GateKind.ROUNDING, *(g.kind for g in single)]


@pytest.mark.slow
def test_of_an_artifact_with_other_operations_its_own_gates_remain(model, tmp_path):
    other = replace(HALF, lowering="tap-by-tap")
    found = check(model, tmp_path / "onnx", model, other)
    assert found.verdict is Verdict.PASS, found.problems
    assert any("was not judged: operation" in note for note in found.notes)
