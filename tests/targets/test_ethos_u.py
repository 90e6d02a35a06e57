"""Programs for Arm's Ethos-U: run on the TOSA reference model, and broken ones are noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import slide_deploy
from slide_deploy import registry
from slide_deploy.artifacts.options import options_by_target
from slide_deploy.bench.latency import bench
from slide_deploy.errors import ArtifactError, UsageError
from slide_deploy.ethos_u import files
from slide_deploy.exporters._quantize.ethos_u import parse_devices
from slide_deploy.protocols import Estimate
from slide_deploy.types import Fidelity, Options, Verdict
from slide_deploy.utils import machine as machines
from slide_deploy.verification.judge import cpu_problems

MISSING = registry.missing_packages(registry.runtime("ethos-u").packages)
simulated = pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} is not installed")

DEVICE_NAMES = ("ethos-u85-128", "ethos-u85-256")


# Each check starts processes that load torch and ExecuTorch.
pytestmark = pytest.mark.timeout(900)


def network():
    """A few operators, which are compiled in seconds."""
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(8, 10)
            self.norm = nn.BatchNorm2d(8)
            self.norm.running_mean.uniform_(-0.1, 0.1)
            self.norm.running_var.uniform_(0.5, 2.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.gelu(self.norm(self.embed(x)).flatten(2).transpose(1, 2))
            return self.head(x.mean(1))

    torch.manual_seed(0)
    return Network().eval()


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sklearn.datasets import load_digits

    images = load_digits().images[:32].repeat(4, axis=1).repeat(4, axis=2) / 16 - 0.5
    path = tmp_path_factory.mktemp("calibration") / "digits.npy"
    np.save(path, images[:, None].repeat(3, axis=1).astype(np.float32))
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, calibration: Path):
    """The network for two devices: its report, artifact and model."""
    folder = tmp_path_factory.mktemp("ethos") / "out"
    model = slide_deploy.wrap(network(), [slide_deploy.TensorSpec("x", (1, 3, 32, 32))])
    options = Options(
        precision="w8a8",
        calibration=calibration,
        target_options={"device": ",".join(DEVICE_NAMES)},
    )
    report = slide_deploy.export_and_verify(model, "ethos-u", folder, options)
    return report, folder / report.checks[0].path, model


@simulated
def test_the_reference_model_computes_exactly_what_the_graph_says(exported):
    report, folder, *_ = exported
    (check,) = report.checks
    assert (check.verdict, check.problems) == (Verdict.PASS, ())
    assert check.fidelity is Fidelity.SIMULATED
    assert check.second_opinion.max_abs_error == 0
    assert check.device == "simulated ethos-u85-128, ethos-u85-256"
    assert sorted(path.name for path in folder.iterdir()) == [
        *("ethos-u85-128.json", "ethos-u85-128.pte", "ethos-u85-256.json", "ethos-u85-256.pte"),
        *("graph.safetensors", "program-0.tosa"),
    ]


@simulated
def test_estimates_name_the_device_and_what_stays_on_the_cpu(exported):
    check = exported[0].checks[0]
    assert [own.device for own in check.estimates] == list(DEVICE_NAMES)
    for own in check.estimates:
        assert own.tool.startswith("Vela ")
        assert own.cycles > 1000
        assert own.milliseconds == pytest.approx(own.cycles / own.clock_mhz / 1e3)
        assert 0 < own.mac_utilisation < 100
        assert own.sram_bytes > 3 * 32 * 32
        assert own.on_cpu == ()
    small, large = check.estimates
    assert large.cycles <= small.cycles


@simulated
def test_bench_tells_the_estimates(exported):
    report, folder, _ = exported
    found = bench(folder, rounds=1, calls=1, warmup=0)
    assert found.timings[0].estimates == report.checks[0].estimates
    assert "runs on a simulator" in " ".join(found.notes)


@simulated
@pytest.mark.slow
def test_an_operator_that_the_npu_lacks_stays_on_the_cpu(calibration, tmp_path: Path):
    import torch

    class Wide(torch.nn.Module):
        """A convolution with a stride that Ethos-U55 lacks, in the middle."""

        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
            self.wide = torch.nn.Conv2d(8, 8, 7, stride=4, padding=3)
            self.head = torch.nn.Linear(8, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.wide(torch.relu(self.first(x))))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    model = slide_deploy.wrap(Wide().eval(), [slide_deploy.TensorSpec("x", (1, 3, 32, 32))])
    own = {"device": "ethos-u55-128"}
    options = Options(precision="w8a8", calibration=calibration, target_options=own)
    policy = slide_deploy.VerificationPolicy(require_full_npu=True)
    report = slide_deploy.export_and_verify(model, "ethos-u", tmp_path, options, policy=policy)
    (check,) = report.checks
    on_cpu = ("wide: aten::convolution", "model: aten::relu")
    assert check.problems == (
        f"2 operators stay on the CPU beside ethos-u55-128: {', '.join(on_cpu)}",
    )
    assert check.estimates[0].on_cpu == check.other_precision == on_cpu
    assert (tmp_path / check.path / "program-1.tosa").is_file()


@simulated
def test_the_numbers_of_other_operators_follow_from_their_scales(calibration, tmp_path: Path):
    """Fused activations, groups, transposed convolutions, comparisons, and a resizing, of which the
    factors are not known."""
    import torch
    from torch import nn

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.groups = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, groups=4)
            self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = nn.functional.relu6(self.stem(x))
            x = nn.functional.hardswish(self.groups(nn.functional.avg_pool2d(x, 2)))
            x = torch.maximum(x, 2 * x - 1) / (x.abs() + 1)
            x = nn.functional.interpolate(self.up(x), scale_factor=2.0, mode="bilinear")
            return torch.cat([torch.sigmoid(x), x * 0.1], 1).mean((2, 3))

    torch.manual_seed(0)
    model = slide_deploy.wrap(Mixed().eval(), [slide_deploy.TensorSpec("x", (1, 3, 32, 32))])
    options = Options(precision="w8a8", calibration=calibration)
    [record] = slide_deploy.export(model, "ethos-u", tmp_path, options).artifacts
    problems = registry.runtime("ethos-u").compiled_problems
    assert list(problems(tmp_path / record.path)) == []


def constant(content: bytearray, ending: str) -> np.ndarray:
    """The bytes of the largest 8-bit constant of a TOSA program with such a name, to be changed; of
    multipliers, which have 32 bits, the lowest bytes."""
    from tosa.DType import DType
    from tosa.TosaGraph import TosaGraph

    block = TosaGraph.GetRootAs(content, 0).Regions(0).Blocks(0)
    tensors = [block.Tensors(number) for number in range(block.TensorsLength())]
    named = [t for t in tensors if t.Name().decode().endswith(ending) and t.DataLength()]
    named = [t for t in named if t.Type() == DType.INT8] or named
    return max(named, key=lambda tensor: tensor.DataLength()).DataAsNumpy()


def changed(ending: str, flipped: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "program-0.tosa"
        content = bytearray(path.read_bytes())
        values = constant(content, ending)
        values[: min(len(values), 64)] ^= flipped
        path.write_bytes(content)

    return damage


def stale(folder: Path) -> None:
    """Another weight in the quantized graph than in the programs."""
    from slide_deploy.ethos_u.graph import load_graph

    path = folder / "graph.safetensors"
    weights = [b for b in load_graph(path).buffers() if b.dtype.is_signed and b.element_size() == 1]
    wanted = max(weights, key=lambda own: own.numel()).numpy().tobytes()
    content = bytearray(path.read_bytes())
    place = content.index(wanted)
    content[place] ^= 64
    path.write_bytes(content)


def swap(folder: Path) -> None:
    first, second, aside = (folder / f"{name}.pte" for name in (*DEVICE_NAMES, "aside"))
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def truncate(folder: Path) -> None:
    path = folder / "ethos-u85-256.pte"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(folder: Path) -> None:
    """One bit in the commands of a program."""
    path = folder / "ethos-u85-256.pte"
    content = bytearray(path.read_bytes())
    place = content.index(b"weight_data")
    content[place + 64] ^= 1
    path.write_bytes(content)


def estimate_less(folder: Path) -> None:
    path = folder / "ethos-u85-256.json"
    summary = json.loads(path.read_text())
    summary["vela"][0]["cycles_total"] = "1000"
    path.write_text(json.dumps(summary))


def remove(folder: Path) -> None:
    for path in folder.glob("*.pte"):
        path.unlink()


def damaged(exported, tmp_path: Path, damage: Callable[[Path], None]) -> Path:
    broken = tmp_path / exported[1].name
    shutil.copytree(exported[1], broken)
    damage(broken)
    return broken


@simulated
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (changed("_weight_ohwi", 64), "ethos-u85-256.pte is not what program-0.tosa compiles to"),
        (changed("_weight_ohwi", 1), "no TOSA program has the integers of"),
        (changed("_multipliers", 64), "ethos-u85-256.pte is not what program-0.tosa compiles to"),
        (changed("_output_zp", 8), "ethos-u85-128.pte is not what program-0.tosa compiles to"),
        (changed("_multipliers", 64), "with a multiplier or zero point that does not follow from"),
        (changed("_output_zp", 1), "with a multiplier or zero point that does not follow from"),
        (changed("_table_constant", 1), "1 tables that do not follow from"),
        (stale, "no TOSA program has the integers of"),
        (swap, "ethos-u85-128.pte was not compiled for ethos-u85-128"),
        (truncate, "ethos-u85-256.pte"),
        (flip, "ethos-u85-256.pte is not what program-0.tosa compiles to"),
        (estimate_less, "ethos-u85-256.json does not have the estimates of Vela"),
    ],
)
def test_a_damaged_program_does_not_belong_to_the_others(
    exported, tmp_path: Path, damage: Callable[[Path], None], told: str
):
    broken = damaged(exported, tmp_path, damage)
    problems = registry.runtime("ethos-u").compiled_problems
    try:
        found = list(problems(broken))
    except ArtifactError as error:
        found = [str(error)]
    assert any(told in problem for problem in found), found


@simulated
@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (changed("_weight_ohwi", 64), "the simulator's"),
        (changed("_multipliers", 64), "the simulator's"),
        (changed("_output_zp", 64), "the simulator's"),
        (stale, "weights that are not the nearest integers"),
        (truncate, "ethos-u85-256.pte cannot be read"),
        (remove, "has no program of a device"),
    ],
)
def test_a_damaged_folder_fails(
    exported, calibration, tmp_path: Path, damage: Callable[[Path], None], told: str
):
    model = exported[2]
    broken = damaged(exported, tmp_path, damage)
    policy = slide_deploy.VerificationPolicy(precision="w8a8")
    report = slide_deploy.verify(broken, model, policy=policy, calibration=calibration)
    assert report.verdict is Verdict.FAIL
    assert any(told in problem for problem in report.checks[0].problems), report.checks[0].problems


@simulated
def test_a_graph_is_the_same_after_writing_and_reading(exported, tmp_path: Path):
    import torch

    from slide_deploy.ethos_u.graph import example, load_graph, metadata_of, save_graph

    path = exported[1] / "graph.safetensors"
    graph = load_graph(path)
    save_graph(graph, tmp_path / "again.safetensors", metadata_of(path))
    again = load_graph(tmp_path / "again.safetensors")
    taken = torch.randn(example(graph)[0].shape)
    assert torch.equal(graph(taken)[0], again(taken)[0])
    assert [node.meta.get("nn_module_stack") for node in graph.graph.nodes] == [
        node.meta.get("nn_module_stack") for node in again.graph.nodes
    ]


@simulated
@pytest.mark.parametrize(
    "operator", ["os.system.default", "aten.from_file.default", "aten.nothing.default", "prims.add"]
)
def test_a_graph_with_an_operator_of_another_kind_is_refused(tmp_path: Path, operator: str):
    import torch
    from safetensors.torch import save_file

    from slide_deploy.ethos_u.graph import load_graph

    node = {"name": "n", "op": operator, "args": [], "kwargs": {}, "block": "", "custom": {}}
    path = tmp_path / "graph.safetensors"
    save_file({"w": torch.zeros(1)}, path, {"graph": json.dumps([node])})
    with pytest.raises(ArtifactError, match="holds no graph"):
        load_graph(path)


@simulated
def test_free_shapes_are_refused(exported, tmp_path: Path):
    options = Options(precision="w8a8", calibration="synthetic", dynamic=True)
    with pytest.raises(UsageError, match="fixed shapes"):
        slide_deploy.export(exported[2], "ethos-u", tmp_path / "out", options)


def test_floats_are_refused():
    with pytest.raises(UsageError, match="computes with integers"):
        options_by_target(["ethos-u"], Options())


def test_devices_are_named():
    assert parse_devices("Ethos-U85-256, ethos-u85-128,ethos-u85-256") == (
        "ethos-u85-256,ethos-u85-128"
    )
    assert parse_devices("ethos-u55-32,ethos-u65-256") == "ethos-u55-32,ethos-u65-256"
    assert parse_devices(parse_devices("ethos-u65-512")) == "ethos-u65-512"
    with pytest.raises(UsageError, match=r"'ethos-u1' is unknown .*ethos-u85-256"):
        parse_devices("ethos-u1")
    with pytest.raises(UsageError, match="ethos-u55-64 and ethos-u85-128 need different programs"):
        parse_devices("ethos-u55-64,ethos-u65-256,ethos-u85-128")


def test_operators_on_the_cpu_fail_where_none_may_be():
    own = Estimate("ethos-u85-128", "Vela 1", 500, 10, 0.1, 1, 1, 5.0, 3, ("layers.0: aten::any",))
    assert list(cpu_problems([own])) == [
        "1 operator stays on the CPU beside ethos-u85-128: layers.0: aten::any"
    ]


def test_without_the_extra_an_environment_of_its_own_is_proposed():
    command = registry.install_command("ethos-u")
    assert command == (
        "python -m venv .venv-ethos-u && .venv-ethos-u/bin/pip install 'slide-deploy[ethos-u]'"
    )
    assert registry.install_command("qnn") == "pip install 'slide-deploy[qnn]'"


@pytest.mark.parametrize(
    ("system", "machine", "libc", "told"),
    [
        ("linux", "x86_64", ("glibc", "2.36"), ""),
        ("linux", "x86_64", ("glibc", "2.27"), "it needs glibc 2.28 or newer; this is 2.27"),
        ("linux", "aarch64", ("glibc", "2.36"), "this is linux on aarch64"),
        ("darwin", "arm64", ("", ""), "this is darwin on arm64"),
    ],
)
def test_other_machines_are_told_why(monkeypatch, system, machine, libc, told):
    monkeypatch.setattr(machines.sys, "platform", system)
    monkeypatch.setattr(machines.platform, "machine", lambda: machine)
    monkeypatch.setattr(machines.platform, "libc_ver", lambda: libc)
    assert told in files.unsupported()
    assert bool(files.unsupported()) is bool(told)


@pytest.mark.slow
@simulated
def test_lowerings_are_tuned_by_estimated_cycles(monkeypatch, tmp_path: Path):
    import torch

    from slide_deploy.artifacts import tuning_cache
    from slide_deploy.bench import tuning
    from slide_deploy.lowering.catalog import lowering_named
    from slide_deploy.models.slide_attention import AttentionConfig, SlideAttention

    monkeypatch.setattr(tuning_cache.platformdirs, "user_cache_dir", lambda _: str(tmp_path))
    monkeypatch.setattr(
        tuning, "lowerings", lambda: [lowering_named(name) for name in ("depthwise", "im2col")]
    )
    module = torch.nn.Sequential(SlideAttention(AttentionConfig(8, 2))).eval()
    model = slide_deploy.wrap(module, [slide_deploy.TensorSpec("tokens", (1, 8, 8, 8))])
    options = Options("w8a8", target_options={"device": "ethos-u85-128"})
    found = tuning.tune(model, "ethos-u", options)
    assert all(own.problem or own.estimate.cycles > 0 for own in found.measured)
    (chosen,) = found.forms.values()
    assert chosen == min(found.measured, key=lambda own: own.rank).form
    for device, known in (("ethos-u85-128", [chosen]), ("ethos-u85-256", [])):
        other = Options("w8a8", target_options={"device": device})
        kept = tuning_cache.load_tuning(model.merged, model.inputs, "ethos-u", other)
        assert list(kept.values()) == known
