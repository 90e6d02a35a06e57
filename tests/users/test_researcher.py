"""A researcher: an own model around Slide Attention, checkpoints of training frameworks, Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.users.environments import DIGITS, fails, passes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.fixed = nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False)
        self.learned = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.fixed.weight.zero_()
            self.fixed.weight[:, 0, 1, 2] = 1.0

    def forward(self, image):
        x = self.stem(image)
        x = self.fixed(x) + self.learned(x)
        return self.head(torch.relu(x).mean((2, 3)))
"""

SAVE = """
import sys, torch, my_net
torch.manual_seed(0)
net = my_net.Net()
torch.save({"state_dict": {f"model.{k}": v for k, v in net.state_dict().items()}}, "net.ckpt")
digits = torch.load(sys.argv[1], weights_only=False)
state = {f"backbone.{k}": v for k, v in digits["model"].items()}
torch.save({"state_dict": state, "config": digits["config"]}, "lightning.ckpt")
"""

PYTHON = """
import slide_deploy, my_net
model = slide_deploy.wrap(my_net.Net(), [slide_deploy.TensorSpec("image", (1, 3, 16, 16))])
manifest = slide_deploy.export(model, "onnx", "from_python", slide_deploy.Options(precision="fp16"))
assert manifest.artifacts[0].precision == "float16"
report = slide_deploy.verify("from_python", model)
assert report.verdict == "pass", report
try:
    slide_deploy.Options(batch=0)
except Exception as error:
    assert "batch expects an integer of at least 1" in str(error)
else:
    raise AssertionError("batch 0 was accepted")
"""


def test_from_an_own_model_to_a_verified_file(user: Callable[..., Path], tmp_path: Path) -> None:
    programs = user("onnx", "yacs")
    program, python = programs / "slide-deploy", programs / "python"
    (tmp_path / "my_net.py").write_text(MODEL)
    passes(python, "-c", SAVE, DIGITS, folder=tmp_path)

    # Without a factory the file is no Slide-Transformer; with a wrong one the name is told.
    fails(2, program, "inspect", "net.ckpt", folder=tmp_path)
    wrong = ("export", "-t", "onnx", "--model", "my_net:Ned", "net.ckpt", "--image-size", "16")
    assert "Ned" in fails(2, program, *wrong, folder=tmp_path)

    export = ("export", "-t", "onnx", "--model", "my_net:Net", "net.ckpt", "--image-size", "16")
    said = passes(program, *export, "-o", "out", folder=tmp_path)
    assert "passed" in said
    assert "model." in said  # the prefix that was found
    against = ("verify", "out/net.onnx", "--against", "net.ckpt", "--model", "my_net:Net")
    assert "passed" in passes(program, *against, "--image-size", "16", folder=tmp_path)

    # A Lightning checkpoint of a known family, as it lies on disk.
    noted = passes(program, "inspect", "lightning.ckpt", folder=tmp_path)
    assert "backbone." in noted
    given = ("inspect", "lightning.ckpt", "--prefix", "neck.")
    assert "neck." in fails(2, program, *given, folder=tmp_path)

    passes(python, "-c", PYTHON, folder=tmp_path)
