"""Published sizes at 224×224, with non-zero learned shifts, on every target."""

from __future__ import annotations

import pytest
import torch

import slide_deploy
from slide_deploy import registry
from slide_deploy.models import slide_swin
from slide_deploy.types import Verdict


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", ["t", "b"])
def test_every_target_passes(size, tmp_path):
    torch.manual_seed(0)
    module = getattr(slide_swin, f"slide_swin_{size}")()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "bias" in name or "relative" in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    torch.save(module.state_dict(), tmp_path / "model.pth")
    model = slide_deploy.load(tmp_path / "model.pth")
    report = slide_deploy.export_and_verify(
        model, registry.float_targets(), tmp_path / "out", progress=lambda _: None
    )
    assert report.verdict is Verdict.PASS, [check.problems for check in report.checks]
