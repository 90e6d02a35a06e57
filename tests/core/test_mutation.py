"""The mutation benchmark breaks artifacts as intended and counts detections correctly."""

from __future__ import annotations

import random
import shutil
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.mutation.analysis import detection_rate, upper_bound
from benchmarks.mutation.bench import Bench
from benchmarks.mutation.curve import CHANGES, LAYERS, curve_points, layer_of
from benchmarks.mutation.damage import truncated
from benchmarks.mutation.equivalence import INPUTS, largest_effect, random_inputs
from benchmarks.mutation.headroom import headroom
from benchmarks.mutation.mutants import break_artifacts, broken_module, make
from benchmarks.mutation.mutation import Mutation
from benchmarks.mutation.operators import layer_norm_epsilon
from benchmarks.mutation.outcome import Figure, Headroom, Route, Status
from benchmarks.mutation.plan import TARGETS, Plan, counts
from benchmarks.mutation.random_models import Draw, draw, random_bench
from benchmarks.mutation.random_tables import alarm_sentence
from benchmarks.mutation.sampling import KINDS, kind_named, sampled
from benchmarks.mutation.scheduler import run
from benchmarks.mutation.weights import WEIGHTS
from slide_deploy import registry
from slide_deploy.models.slide_nat import SlideNat, SlideNatConfig
from slide_deploy.parity.comparison import OVERFLOW, SYSTEMATIC_MULTIPLE
from slide_deploy.parity.probes import PIXELS
from slide_deploy.reference.run import run_module

pytestmark = pytest.mark.filterwarnings("ignore")

SWIN = Draw(1, "swin", "ordinary", 10, dynamic=False, lowering="auto")
NAT = {
    "image_size": (16, 16),
    "embed_dim": 8,
    "depths": (1, 1),
    "heads": (1, 2),
    "slide_stages": 1,
    "num_classes": 3,
    "neighborhood": 3,
}
TENSORS = [kind.name for kind in KINDS if kind.tensors_only]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return random_bench(SWIN, tmp_path_factory.mktemp("bench"))


def _first(bench: Bench, kind: str) -> Mutation:
    return next(kind_named(kind).candidates(bench.fused, random.Random(0)))


def _nudged(factor: float, module: nn.Module) -> None:
    with torch.no_grad():
        module.get_parameter("head.weight").view(-1)[0] *= factor


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", ["bias dropped", "another layer's weights", "q/k/v order"])
def test_a_patched_file_computes_what_the_broken_module_computes(
    bench: Bench, kind: str, target: str, tmp_path: Path
) -> None:
    mutation = _first(bench, kind)
    broken = broken_module(bench, mutation)
    route, path = make(bench, mutation, broken, (target,), tmp_path)[target]
    assert route is Route.FILE
    assert isinstance(path, Path)
    inputs = dict(bench.expected[0].inputs)
    found = registry.runtime(target).open(path).run(inputs)
    for name, wanted in run_module(broken, bench.model.outputs, inputs).items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["LayerNorm epsilon", "GELU erf/tanh"])
def test_an_edited_operator_computes_what_the_broken_module_computes(
    bench: Bench, kind: str, tmp_path: Path
) -> None:
    *_, mutation = kind_named(kind).candidates(bench.fused, random.Random(0))
    inputs = dict(bench.expected[0].inputs)
    (name,) = bench.expected[0].references
    broken = broken_module(bench, mutation).double()
    sound = bench.expected[0].references[name]
    change = run_module(broken, bench.model.outputs, inputs)[name] - sound
    assert mutation.edits
    for target, edit in mutation.edits.items():
        clean = bench.clean(target)
        edit(clean, tmp_path / clean.name)
        found = registry.runtime(target).open(tmp_path / clean.name).run(inputs)[name] - sound
        np.testing.assert_allclose(found, change, atol=0.05 * np.abs(change).max() + 2e-6)


@pytest.mark.parametrize("kind", [kind.name for kind in KINDS])
def test_every_mutation_changes_the_module(bench: Bench, kind: str) -> None:
    inputs = dict(bench.expected[0].inputs)
    sound = run_module(bench.fused, bench.model.outputs, inputs)
    for mutation in kind_named(kind).candidates(bench.fused, random.Random(0)):
        broken = run_module(broken_module(bench, mutation), bench.model.outputs, inputs)
        same = [np.array_equal(sound[name], broken[name]) for name in sound]
        # A number changed by a few per cent may be lost in rounding, a k bias always is.
        assert not all(same) or kind in ("one weight, 2–5 %", "LayerNorm epsilon"), mutation


def test_the_model_itself_stays_sound(bench: Bench) -> None:
    for target in TARGETS:
        assert bench.verify(target, bench.clean(target)).problem == ""


def test_a_swap_is_detected_in_every_format_and_its_block_named(bench: Bench) -> None:
    mutation = _first(bench, "two channels swapped")
    outcomes = list(break_artifacts(bench, mutation, TARGETS))
    assert [outcome.status for outcome in outcomes] == [Status.DETECTED] * len(TARGETS)
    assert {outcome.named for outcome in outcomes} == {bench.block_of(mutation.site)}


def test_a_change_within_the_noise_is_equivalent(bench: Bench) -> None:
    tiny = Mutation("bias dropped", "head", "", partial(_nudged, 1 + 1e-7))
    (outcome,) = break_artifacts(bench, tiny, ("torchscript",))
    assert outcome.status is Status.EQUIVALENT
    assert outcome.effect is not None
    assert outcome.effect.change <= outcome.effect.noise


def test_a_real_change_is_not_equivalent(bench: Bench) -> None:
    real = Mutation("bias dropped", "head", "", partial(_nudged, 1.5))
    assert not largest_effect(bench, broken_module(bench, real)).effect.equivalent


def _copied(clean: Path, new: Path) -> None:
    shutil.copy(clean, new)


def test_a_mistake_that_is_not_computed_with_is_mended(bench: Bench) -> None:
    edits = {"torchscript": _copied}
    lost = Mutation("GELU erf/tanh", "head", "", partial(_nudged, 1.5), edits)
    (outcome,) = break_artifacts(bench, lost, ("torchscript",))
    assert outcome.status is Status.INEFFECTIVE
    assert detection_rate([outcome]) == 1.0


def test_the_raw_figures_are_enough_to_judge_again(bench: Bench) -> None:
    observed = bench.verify("onnx", bench.clean("onnx"))
    assert observed.judgement is not None
    ratios = [f.max_error / f.noise_floor for f in observed.figures]
    assert ratios == [c.noise_ratio for c in observed.judgement.comparisons]
    # Raw pixels round so roughly that they would hide the other probes.
    pooled = [f for f in observed.figures if f.probe != PIXELS]
    power_of = [sum(f.size * rms(f) ** 2 for f in pooled) for rms in (_error, _noise)]
    assert (power_of[0] / power_of[1]) ** 0.5 == pytest.approx(observed.judgement.pooled_ratio)
    assert observed.judgement.systematic_ratio is not None
    assert observed.judgement.systematic_ratio <= SYSTEMATIC_MULTIPLE


def _error(figure: Figure) -> float:
    return figure.rms_error


def _noise(figure: Figure) -> float:
    return figure.noise_rms


def test_equivalence_is_asked_of_a_thousand_inputs(bench: Bench) -> None:
    assert sum(len(inputs) for inputs in random_inputs(bench).values()) == INPUTS == 1000


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_truncated_files_are_detected(bench: Bench, target: str) -> None:
    assert {outcome.status for outcome in truncated(bench, target)} == {Status.DETECTED}


def test_the_sample_is_the_same_for_the_same_seed(bench: Bench) -> None:
    first, again = (sampled(bench.fused, 3, counts(2)) for _ in range(2))
    assert [(m.kind, m.site, m.detail) for m in first] == [
        (m.kind, m.site, m.detail) for m in again
    ]


def test_draws_combine_every_family_with_all_weights() -> None:
    assert len({(d.family, d.weights) for d in map(draw, range(55))}) == 55
    assert draw(7) == draw(7)


def test_a_drawn_float16_model_is_exported_and_passes(tmp_path: Path) -> None:
    drawn = Draw(3, "nat", "sparse", 1, dynamic=False, lowering="auto")
    (one,) = headroom(random_bench(drawn, tmp_path, "float16"), ("torchscript",), drawn.weights)
    assert (one.problem, one.precision, one.weights) == ("", "float16", "sparse")
    assert {share.gate for share in one.gates} >= {"max_error", "systematic_error", "snr_loss"}
    assert all(share.share <= 1 for share in one.gates)


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_every_kind_of_weights_keeps_the_fixed_shifts(name: str) -> None:
    module = SlideNat(SlideNatConfig(**NAT))
    before = {n: p.clone() for n, p in module.named_parameters()}
    WEIGHTS[name](module, random.Random(0))
    changed = {n for n, p in module.named_parameters() if not p.equal(before[n])}
    assert changed
    assert not [n for n in changed if n.endswith("dep_conv.weight")]


def test_the_curve_ends_where_a_change_is_within_the_noise(bench: Bench) -> None:
    points = curve_points(bench, "MLP", 0, 1, ("torchscript",))
    assert [point.change for point in points] == list(CHANGES[: len(points)])
    assert points[0].detected
    assert [point.above for point in points][:-1] == [True] * (len(points) - 1)


def test_every_parameter_has_a_kind_of_layer(bench: Bench) -> None:
    found = {layer_of(bench.fused, name) for name, _ in bench.fused.named_parameters()}
    assert found <= set(LAYERS)
    assert layer_of(bench.fused, "layers.0.blocks.0.attn.shift.weight") == "depthwise convolution"


@pytest.mark.parametrize("own", ["", ", 9.9999999999999995e-07"])
def test_an_epsilon_in_torchscript_code_is_replaced(own: str, tmp_path: Path) -> None:
    clean, new = tmp_path / "clean.torchscript", tmp_path / "new.torchscript"
    with zipfile.ZipFile(clean, "w") as archive:
        archive.writestr("m.py", f"  y = torch.layer_norm(x, [8], weight, bias{own})\n")
    layer_norm_epsilon(0, 1e-3)["torchscript"](clean, new)
    with zipfile.ZipFile(new) as archive:
        assert archive.read("m.py") == b"  y = torch.layer_norm(x, [8], weight, bias, 0.001)\n"


@pytest.mark.parametrize(("alarms", "bound"), [(0, 0.00597), (1, 0.00945)])
def test_the_bound_on_false_alarms_is_clopper_pearsons(alarms: int, bound: float) -> None:
    assert upper_bound(alarms, 500) == pytest.approx(bound, abs=1e-5)


def test_an_overflow_is_no_false_alarm() -> None:
    failed = Headroom("m", "onnx", OVERFLOW, 0.0, 0.0, 0.0, precision="float16", overflow=True)
    assert not failed.false_alarm
    assert alarm_sentence([failed, replace(failed, overflow=False)]).startswith("1 in 1 clean")


@pytest.mark.parametrize(
    ("site", "block"),
    [
        ("layers.0.blocks.0.attn.qkv", "layers.0.blocks.0.attn"),
        ("layers.0.blocks.0.norm2", "layers.0.blocks.0.norm2"),
        ("layers.0.downsample.norm", "layers.0.downsample"),
        ("patch_embed.proj", "patch_embed"),
        ("absolute_pos_embed", ""),
    ],
)
def test_a_site_belongs_to_a_block(bench: Bench, site: str, block: str) -> None:
    assert bench.block_of(site) == block


SMALL = Plan(1, draws=2, half_draws=1, unusual=1, half_sites=1, curve_sites=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_run_reaches_its_figures(tmp_path: Path) -> None:
    results = run(SMALL, tmp_path, lambda *_: None)
    assert detection_rate(results.outcomes) >= 0.99
    assert not [one for one in (*results.clean, *results.real) if one.false_alarm]
    assert detection_rate(results.unusual) >= 0.9
    assert any(point.detected for point in results.curve)
    assert all(check.agrees for check in results.cross_checks)
