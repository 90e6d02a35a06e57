"""Reports without torch and runtimes."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from slide_deploy.artifacts.manifest import SourceRecord
from slide_deploy.parity.comparison import Comparison
from slide_deploy.parity.gates import Gate, GateResult, gates_text
from slide_deploy.quantization.catalog import scheme_named
from slide_deploy.types import Fidelity, Precision, Verdict
from slide_deploy.verification.record import BlockError, Check, Opinion, Report, overall

PROBES = {"normal": "wrong weights", "zeros": "wrong biases"}
GATE = scheme_named("float32").gates[0]


def result(gate: Gate, measured: float) -> GateResult:
    return GateResult(
        **{**asdict(gate), "kind": gate.kind},
        measured=measured,
        passed=measured <= gate.limit,
        output="logits",
        probe="normal",
    )


def comparison(probe: str, ratio: float, problem: str = "") -> Comparison:
    return Comparison(probe, "logits", ratio * 4e-7, 4e-7, ratio, 128.0, problem, 2, 2, 1)


def passing(target: str, path: str, ratio: float = 1.5) -> Check:
    return Check(
        target=target,
        path=path,
        precision=Precision.FLOAT32,
        verdict=Verdict.PASS,
        problems=(),
        gate=gates_text([GATE]),
        gates=(result(GATE, ratio),),
        sha256="ab" * 32,
        size_bytes=570_518,
        fidelity=Fidelity.NATIVE,
        runtime=f"{target} 1.2.3",
        ran_precision="float32",
        max_abs_error=ratio * 4e-7,
        noise_floor=4e-7,
        noise_ratio=ratio,
        snr_db=128.0,
        operators={f"{target}::Add": 3, f"{target}::MatMul": 2},
        probes=PROBES,
        comparisons=tuple(comparison(probe, ratio) for probe in PROBES),
        seconds=1.25,
    )


def failing(target: str, path: str) -> Check:
    problem = "error 3.5e+00 is 8750000 times the float32 noise 4.0e-07"
    return replace(
        passing(target, path, 8.75e6),
        verdict=Verdict.FAIL,
        problems=(f"probe normal, output logits: {problem}",),
        comparisons=(comparison("normal", 8.75e6, problem), comparison("zeros", 1.0)),
        seconds=2.5,
        second_opinion=Opinion("another 4.5", Verdict.FAIL, 3.5, 8.75e6, -5.0, (problem,)),
        trace=(
            BlockError("layers.0.blocks.0.attn", 4e-7, 4e-7, 1.0, True),
            BlockError("layers.1.blocks.0.mlp", 3.5, 4e-7, 8.75e6, True),
        ),
        first_bad_block="layers.1.blocks.0.mlp",
    )


def float16(target: str, path: str, loss: float = 2.5) -> Check:
    """Judged by its loss of signal-to-noise ratio; in multiples of float32 noise it is far off."""
    gate = scheme_named("float16").gates[0]
    check = passing(target, path, 3333.0)
    measured = {gate.kind.value: loss}
    return replace(
        check,
        precision="float16",
        gate=gates_text([gate]),
        gates=(result(gate, loss),),
        comparisons=tuple(replace(c, measured=measured) for c in check.comparisons),
        weight_type="float16",
        compute_type="float16",
        device="CPU",
        other_precision=("mil::add sum_3",),
    )


def not_run(target: str, path: str) -> Check:
    return Check(
        target=target,
        path=path,
        precision=Precision.FLOAT32,
        verdict=Verdict.NOT_RUN,
        problems=(f"reading {target} needs {target}, which is not installed",),
    )


def report_of(*checks: Check) -> Report:
    return Report(
        verdict=overall(checks),
        source=SourceRecord("model.pth", "cd" * 32, "ema"),
        model="model",
        reference="unfused PyTorch model in float64, ema weights",
        checks=checks,
        command="slide-deploy export -t all model.pth",
        toolchain={"python": "3.11.7", "slide-deploy": "0.1.0"},
        date="2026-11-25T22:33:44+00:00",
    )


@pytest.fixture
def sample() -> SimpleNamespace:
    """The makers of this file."""
    return SimpleNamespace(
        passing=passing, failing=failing, float16=float16, not_run=not_run, report=report_of
    )


@pytest.fixture
def passed() -> Report:
    return report_of(passing("onnx", "model.onnx"), passing("coreml", "model.mlpackage", 0.9))


@pytest.fixture
def failed() -> Report:
    return report_of(
        passing("onnx", "model.onnx"),
        failing("torchscript", "model.torchscript"),
        not_run("openvino", "model_openvino_model"),
    )


@pytest.fixture
def hostile() -> Report:
    """Names and problems that would break out of HTML, XML or Markdown, or cannot be encoded."""
    check = replace(
        failing("onnx", '"><script>alert(1)</script>|`.onnx'),
        problems=("<img src=x onerror=alert(2)> ]]> \x00\x1b[31m \udcff | [a](javascript:b)\n# h",),
        custom_operators=("evil::<b>Op</b>",),
        operators={"evil::<b>Op</b>": 1},
        probes={"<i>normal</i>": "<u>why</u>"},
        first_bad_block="<s>block</s>",
    )
    return replace(report_of(check), model="</title><script>", command="```\n</pre><script>")
